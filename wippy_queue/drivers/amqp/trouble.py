"""What pika raises, as errors of ours: in words, with the cure, without secrets."""

from __future__ import annotations

from typing import Final

from pika import exceptions
from pika.adapters.utils import connection_workflow as workflow

from wippy_queue.errors import Conflict, NotFound, PermissionDenied, Unavailable, WippyQueueError
from wippy_queue.redact import redact

_ACCESS_REFUSED: Final = 403
_NOT_FOUND: Final = 404
_LOCKED: Final = 405
_PRECONDITION: Final = 406

_PERMANENT: Final = (
    exceptions.AuthenticationError,
    exceptions.ProbableAuthenticationError,
    exceptions.ProbableAccessDeniedError,
)


def root(error: BaseException) -> BaseException:
    """Return what is at the bottom: pika wraps the reason of a failed connection several times."""
    while True:
        inner: object = None
        if isinstance(error, workflow.AMQPConnectionWorkflowFailed):
            inner = error.exceptions[-1] if error.exceptions else None
        elif isinstance(error, workflow.AMQPConnectorPhaseErrorBase):
            inner = error.exception
        elif isinstance(error, workflow.AMQPConnectorException) or type(error) is exceptions.AMQPConnectionError:
            inner = error.args[0] if error.args else None
        if not isinstance(inner, BaseException):
            return error
        error = inner


def words(error: BaseException) -> str:
    """Return the error as text that is never empty."""
    error = root(error)
    if isinstance(error, (exceptions.ConnectionClosed, exceptions.ChannelClosed)):
        return redact(f"{error.reply_text} ({error.reply_code})")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, workflow.AMQPConnectorStackTimeout):
        return "no answer in time"
    text = str(error.args[0]) if len(error.args) == 1 else str(error)
    return redact(text) or type(error).__name__


def connection_trouble(error: BaseException, address: str) -> WippyQueueError:
    """Return the error that says that the broker cannot be reached, or does not let us in."""
    bottom = root(error)
    if isinstance(bottom, _PERMANENT):
        return Unavailable(
            f"RabbitMQ at {address} refuses the connection: {words(bottom)}; check user, password and vhost of the url",
            retryable=False,
        )
    return Unavailable(f"RabbitMQ at {address} cannot be reached: {words(error)}")


def channel_trouble(error: BaseException, what: str) -> WippyQueueError:
    """Return the error that says why the broker has closed a channel on which ``what`` was done."""
    code = error.reply_code if isinstance(error, exceptions.ChannelClosed) else 0
    text = f"{what}: RabbitMQ says {words(error)}"
    if code == _NOT_FOUND:
        return NotFound(text)
    if code == _LOCKED:
        # Perhaps one that we have lost, and the broker does not know yet.
        return Conflict(f"{text}; it is exclusive to another connection", retryable=True)
    if code == _ACCESS_REFUSED and "exclusive" in words(error):
        return Unavailable(f"{text}; another consumer has it for itself")
    if code == _ACCESS_REFUSED:
        return PermissionDenied(f"{text}; give the user the permission, or use another user")
    if code == _PRECONDITION:
        return Conflict(text)
    return Unavailable(text)
