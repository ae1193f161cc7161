"""A Python callable as the handler of a consumer."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from wippy_queue.access import SecurityContext, act_with
from wippy_queue.codecs import decode_body
from wippy_queue.delivery import Delivery
from wippy_queue.errors import Invalid, WippyQueueError
from wippy_queue.handler import ACK, Outcome, WorkerContext
from wippy_queue.handlers.current import CurrentMessage
from wippy_queue.ids import EntryId

_RUN_NOTHING: Final[Mapping[str, Callable[[Any], bool]]] = {
    "a coroutine function (async def)": inspect.iscoroutinefunction,
    "an asynchronous generator": inspect.isasyncgenfunction,
    "a generator function": inspect.isgeneratorfunction,
}


class PythonFunction:
    """Any return but ``False`` acks, an exception nacks.

    Thread safety: the callable is called by many workers at once and must bear that.

    Raises:
        Invalid: it is no callable, or one whose call runs nothing: a coroutine or a generator.
    """

    def __init__(self, function_id: EntryId, function: Callable[..., Any]) -> None:
        check_callable(function_id, function)
        self.id = function_id
        self._function = function

    def open(self, context: WorkerContext) -> PythonSession:
        return PythonSession(self, context)

    def call(
        self,
        args: Sequence[Any],
        timeout: float | None = None,
        security: SecurityContext | None = None,
        *,
        false_fails: bool = True,
    ) -> Any:
        """Call it; whatever it raises becomes a WippyQueueError.

        Args:
            args: its arguments.
            timeout: must be None.
            security: what `Engine.publish` and `Engine.call` inside it act with.
            false_fails: whether ``False`` is an error too, as it is for a message.

        Raises:
            Invalid: a ``timeout`` is given, which nothing could enforce on Python code.
        """
        if timeout is not None:
            raise Invalid(f"{self.id} is a Python function: a call of it cannot be given a time limit")
        before = act_with(security)
        try:
            result = self._function(*args)
        except WippyQueueError:
            raise
        except Exception as error:
            raise WippyQueueError(f"{type(error).__name__}: {error}") from error
        finally:
            act_with(before)
        if result is False and false_fails:
            raise WippyQueueError(f"{self.id} returned False")
        return result


class PythonSession:
    """One worker's calls of the function."""

    def __init__(self, function: PythonFunction, context: WorkerContext) -> None:
        self._function = function
        self._context = context

    def handle(self, deliveries: Sequence[Delivery], *, alone: bool = False) -> Sequence[Outcome]:
        return [self._handle(deliveries[0])]

    def _handle(self, delivery: Delivery) -> Outcome:
        try:
            body = decode_body(delivery.message)
        except Invalid as error:
            return Outcome(error=error, undecodable=True)
        message = CurrentMessage(delivery, self._context)
        message._enter()
        try:
            self._function.call([body], security=self._context.security)
        except WippyQueueError as error:
            cause = error.__cause__
            return Outcome(error=error, trace="" if cause is None else "".join(traceback.format_exception(cause)))
        except BaseException as error:  # sys.exit() in a handler must not end the worker
            return Outcome(error=WippyQueueError(f"{type(error).__name__}: {error}"), trace=traceback.format_exc())
        finally:
            message._leave()
        return ACK

    def kill(self) -> None:
        """Python code cannot be ended from outside; the consumer abandons the thread."""

    def renew(self) -> None: ...

    def close(self) -> None: ...


def check_callable(name: str, function: object) -> None:
    """Refuse what is no function, and what only makes something that nobody would run.

    Raises:
        Invalid: it is no callable, or a coroutine function, or a generator function.
    """
    if not callable(function):
        raise Invalid(f"{name}: expected a function, found {type(function).__name__}")
    for what, is_one in _RUN_NOTHING.items():
        if is_one(function) or is_one(getattr(function, "__call__", None)):  # noqa: B004
            raise Invalid(f"{name}: calling {what} runs nothing; workers are threads, so register a plain function")
