"""Python callables as handlers."""

from wippy_queue.handlers.current import CurrentMessage, current_message
from wippy_queue.handlers.python import PythonFunction

__all__ = ["CurrentMessage", "PythonFunction", "current_message"]
