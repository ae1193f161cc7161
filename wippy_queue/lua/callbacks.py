"""Python functions that Lua may call: what comes back from them, and what may not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from wippy_queue.access import act_with
from wippy_queue.errors import Internal, Kind, WippyQueueError
from wippy_queue.lua.convert import failure_of, incoming, is_scalar, outgoing
from wippy_queue.lua.host import CallContext
from wippy_queue.lua.limits import Deadline

_QUICK: Final = 250e-6  # seconds; a Python function that came back so soon is trusted to do so again
_ROOM: Final = 4096  # bytes that must be free before a callback returns: a failing push would take the process down

_logger = logging.getLogger(__name__)


class Callbacks:
    """Wraps the Python functions of one runtime: nothing but flat scalars gets back, and nothing that does not fit.

    An exception, or a result that Lua has no room for, would leave Lua by a long jump over lupa's frames, and the
    interpreter lock with it.

    Thread safety: the thread that runs the Lua state; ``late`` any.
    """

    __slots__ = ("_context", "_deadline", "_interrupt", "_lua", "_visit_lock", "_visiting", "_withheld")

    def __init__(self, lua: Any, context: CallContext, deadline: Deadline) -> None:
        self._lua = lua
        self._context = context
        self._deadline = deadline
        self._interrupt: BaseException | None = None
        self._withheld: tuple[Any, ...] = (False,)  # results that Lua had no room for
        self._visit_lock = threading.Lock()
        self._visiting = False  # a function that is quick as a rule; guarded by the lock

    def wrap(self, function: Callable[..., Any], *, never_waits: bool = False) -> Callable[..., tuple[Any, ...]]:
        """Return what the bootstrap makes a closure of; see `results` there for what it gives.

        A function that may wait parts the batch; but not while it has come back quickly the last time: then the
        watchdog parts it, if need be.
        """
        visit = function if never_waits else self._visitor(function)
        context, is_over = self._context, self._deadline.is_over

        def callback(place: int, *arguments: Any) -> tuple[Any, ...]:
            try:
                context.arrive(place)
                if is_over():
                    return (None,)
                try:
                    result = visit(*[a.encode("latin-1") if type(a) is str else a for a in arguments])
                    ok = 1 if context.parted else True
                    flat = (ok, *map(outgoing, result)) if type(result) is tuple else (ok, outgoing(result))
                except WippyQueueError as error:
                    if error.kind is Kind.CANCELED:
                        context.canceled = True
                    flat = failure_of(error)
                except Exception as error:
                    _logger.exception(
                        "a Python function that Lua called has failed",
                        extra={"fields": {"function": context.function}},
                    )
                    flat = failure_of(Internal(f"{type(error).__name__}: {error}"))
                if is_over():
                    return (None,)
                if self.has_room(flat):
                    return flat
                self._withheld = flat
                return (False,)
            except BaseException as error:  # KeyboardInterrupt in a call on the main thread: raised when Lua has ended
                self.abort(error)
                return (None,)

        return callback

    def _visitor(self, function: Callable[..., Any]) -> Callable[..., Any]:
        quick = False

        def visit(*arguments: Any) -> Any:
            nonlocal quick
            watched = quick
            if watched:
                with self._visit_lock:
                    self._visiting = True
            else:
                self._context.part()
            began = time.monotonic()
            try:
                return function(*arguments)
            finally:
                quick = time.monotonic() - began < _QUICK
                if watched:
                    with self._visit_lock:
                        self._visiting = False

        return visit

    def late(self) -> None:
        """The batch has become slow: in a function no hook can part it, and Lua does not go on meanwhile."""
        with self._visit_lock:
            if self._visiting:
                self._context.part()

    def again(self) -> tuple[Any, ...]:
        """Return the results that there was no room for, now that Lua has collected its garbage."""
        flat, self._withheld = self._withheld, (False,)
        return flat if self.has_room(flat) else (False,)

    def has_room(self, values: tuple[Any, ...]) -> bool:
        """Say whether Lua has the memory for these."""
        lua = self._lua
        limit = lua.get_max_memory()
        if not limit:
            return True
        free: int = limit - lua.get_memory_used() - _ROOM
        for value in values:
            if type(value) is bytes:
                free -= len(value) + 64
        return free >= 0

    def abort(self, error: BaseException) -> None:
        """End the call that runs; the error is raised when Lua has ended."""
        self._interrupt = error
        self._deadline.killed = True

    def raise_interrupt(self) -> None:
        """Raise what `abort` was told."""
        if self._interrupt is not None:
            interrupt, self._interrupt = self._interrupt, None
            raise interrupt

    def close(self) -> None:
        """The Lua state is about to be closed."""
        del self._lua


def plain(function: Callable[..., Any], context: CallContext) -> Callable[..., tuple[Any, ...]]:
    """Wrap a user's function: scalars come and go as they are, all other arguments and results as msgpack."""

    def call(packed: bool, *arguments: Any) -> tuple[Any, ...]:
        given = msgspec.msgpack.decode(arguments[0]) if packed else map(incoming, arguments)
        before = act_with(context.security)
        try:
            result = function(*given)
        finally:
            act_with(before)
        return (result,) if is_scalar(result) else (None, msgspec.msgpack.encode(result))

    return call
