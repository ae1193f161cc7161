"""Python callables as handlers."""

from wippy_queue.handlers.current import CurrentMessage, current_message
from wippy_queue.handlers.python import PythonFunction, check_callable

__all__ = ["CurrentMessage", "PythonFunction", "check_callable", "current_message"]
