"""Functions in Lua as handlers of consumers, and as functions that Python can call."""

from __future__ import annotations

import contextlib
import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from wippy_queue.access import SecurityContext
from wippy_queue.codecs import check_plain
from wippy_queue.delivery import Delivery
from wippy_queue.errors import Canceled, Internal, Invalid, Kind, Timeout, WippyQueueError
from wippy_queue.handler import ACK, Outcome, WorkerContext
from wippy_queue.lua.convert import error_from, readable
from wippy_queue.lua.host import NO_VALUES, CallContext, Host, Source
from wippy_queue.lua.runtime import KILLED, MEMORY, PARTED, UNDECODABLE, Failure, Runtime, Unsent
from wippy_queue.message import Encoding

MEMORY_LIMIT: Final = 64 << 20  # bytes, where nobody says otherwise

_LOAD_TIMEOUT: Final = 10.0  # seconds that the chunk of a function may run before it gives its handler
_IDLE_RUNTIMES: Final = 16  # kept for the next `call`
_ENCODINGS: Final[Mapping[Encoding, int]] = {"json": 0, "msgpack": 1, "binary": 2}


class LuaFunction:
    """A function in Lua.

    Args:
        source: its text, and what it may require.
        host: what the engine hands in.
        timeout: seconds that one call may take; None: no limit.
        memory_limit: bytes that one call may use; None: 64 MiB.

    Thread safety: every method may be called from any thread.
    """

    def __init__(
        self, source: Source, host: Host, timeout: float | None = None, memory_limit: int | None = None
    ) -> None:
        self.id = source.id
        self.timeout = timeout
        self._source = source
        self._host = host
        self._memory_limit = MEMORY_LIMIT if memory_limit is None else memory_limit
        self._idle: deque[Runtime] = deque()

    def open(self, context: WorkerContext) -> LuaSession:
        """Make a worker's session, with a runtime of its own.

        Raises:
            WippyQueueError: the function cannot be loaded; the message names the Lua file and the line.
        """
        return LuaSession(self, context)

    def call(
        self,
        args: Sequence[Any],
        timeout: float | None = None,
        security: SecurityContext | None = None,
        *,
        false_fails: bool = True,
    ) -> Any:
        """Call the function in this thread and return its first value.

        Args:
            args: plain data: what msgpack has a form for.
            timeout: seconds, in place of the function's own limit.
            security: what it acts with.
            false_fails: whether ``false`` alone is an error too, as it is for a message.

        Raises:
            Invalid: an argument that Lua has no form for.
            WippyQueueError: what the function raised or returned as its error.
        """
        for number, argument in enumerate(args, 1):
            check_plain(argument, f"{self.id}: argument {number}")
        try:
            encoded = msgspec.msgpack.encode(list(args))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Invalid(f"{self.id}: the arguments cannot be handed to Lua: {error}") from error
        runtime = self._take()
        context = runtime.context
        context.security, context.values, context.depth = security, NO_VALUES, 0
        context.worker, context.cancel = None, threading.Event()
        limit = self.timeout if timeout is None else timeout
        try:
            return msgspec.msgpack.decode(self._run(runtime, len(args), encoded, limit, false_fails=false_fails))
        finally:
            self._give_back(runtime)

    def call_from(
        self,
        caller: CallContext,
        count: int,
        arguments: bytes,
        *,
        timeout: float | None,
        security: SecurityContext | None,
        values: bytes,
    ) -> bytes:
        """Call the function for another one, in whose thread and time it runs; a kill of that one ends it too.

        Args:
            caller: whose call it is.
            count: of the arguments.
            arguments: a msgpack array.
            timeout: seconds, in place of the function's own limit.
            security: what it acts with.
            values: what the module ctx gives it: a msgpack map.

        Returns:
            The first value, in msgpack.

        Raises:
            WippyQueueError: what the function raised or returned as its error.
        """
        runtime = self._take()
        context = runtime.context
        context.security, context.values, context.depth = security, values, caller.depth + 1
        context.worker, context.cancel = caller.worker, caller.cancel
        limit = self.timeout if timeout is None else timeout
        left = caller.deadline - time.monotonic()
        all_of_it = left < (math.inf if limit is None else limit)
        if all_of_it:
            limit = max(left, 0.0)
        try:
            with caller.runtime.calling(runtime):
                return self._run(runtime, count, arguments, limit, false_fails=False)
        except Timeout:
            if all_of_it and runtime.expired:  # the caller's clock may have been started anew meanwhile
                caller.runtime.expire()
            raise
        finally:  # only now: a kill of the caller must not hit whoever takes the runtime next
            self._give_back(runtime)

    def _run(self, runtime: Runtime, count: int, arguments: bytes, limit: float | None, *, false_fails: bool) -> bytes:
        """Call the function in a runtime that was taken."""
        runtime.context.canceled = False
        left = limit
        try:
            if not runtime.calls:
                began = time.monotonic()
                self._load(runtime, _LOAD_TIMEOUT if limit is None else min(limit, _LOAD_TIMEOUT))
                left = None if limit is None else max(0.0, limit - (time.monotonic() - began))
            result = runtime.invoke(count, arguments, left, false_fails=false_fails)
        except BaseException:
            runtime.spoiled = True
            raise
        if isinstance(result, str):
            return result.encode("latin-1")
        failure, trace = self.failure(result, runtime, limit)
        raise _with_trace(failure, trace)

    def make_runtime(self, context: CallContext) -> Runtime:
        """Make a runtime with the function loaded, or raise what is wrong with it."""
        runtime = Runtime(context, self._memory_limit)
        self._load(runtime, _LOAD_TIMEOUT)
        return runtime

    def _load(self, runtime: Runtime, timeout: float) -> None:
        failure = runtime.load(self._source, timeout)
        if failure is None:
            return
        error, trace = self.failure(failure, runtime, timeout)
        runtime.close()
        if error.kind is Kind.UNKNOWN:
            error = Invalid(f"{self.id}: {error.message}", details=error.details)
        raise _with_trace(error, trace)

    def new_context(self, worker: WorkerContext | None) -> CallContext:
        cancel = threading.Event() if worker is None else worker.cancel
        security = None if worker is None else worker.security
        return CallContext(host=self._host, function=self.id, worker=worker, cancel=cancel, security=security)

    def failure(self, result: Failure, runtime: Runtime, timeout: float | None) -> tuple[WippyQueueError, str]:
        """Return the error of a call that failed, and its trace."""
        code = result[0]
        if code == KILLED:
            if runtime.killed:
                return Canceled(f"{self.id}: the handler was ended, for its consumer stops"), ""
            return Timeout(f"{self.id}: the handler exceeded its time limit of {timeout:g} s"), ""
        if code == MEMORY:
            limit = f"{self._memory_limit / (1 << 20):g} MiB"
            return Internal(f"{self.id}: the handler exceeded its memory limit of {limit}"), ""
        return error_from(result), readable(result[5].encode("latin-1"))

    def _take(self) -> Runtime:
        try:
            return self._idle.pop()
        except IndexError:
            return Runtime(self.new_context(None), self._memory_limit)  # whoever calls loads it, as the one who acts

    def _give_back(self, runtime: Runtime) -> None:
        if runtime.spoiled or len(self._idle) >= _IDLE_RUNTIMES:
            runtime.close()
        else:
            self._idle.append(runtime)


class LuaSession:
    """One worker's runtime; it is replaced when a kill, a lack of memory or its age has spoiled it."""

    def __init__(self, function: LuaFunction, worker: WorkerContext) -> None:
        self._function = function
        self._timeout = function.timeout
        self._worker = worker
        self._context = function.new_context(worker)
        self._runtime = function.make_runtime(self._context)

    def handle(self, deliveries: Sequence[Delivery], *, alone: bool = False) -> Sequence[Outcome]:
        """Run the handler for several messages in one crossing, as many as go well; see `Session.handle`."""
        if self._runtime.spoiled:
            try:
                self._renew()
            except WippyQueueError as error:
                return [Outcome(error=error)]
        context, runtime = self._context, self._runtime
        context.batch, context.delivery = deliveries, deliveries[0]
        context.parted = context.canceled = False
        context.place = 1
        bodies, json = [], True
        for delivery in deliveries:
            message = delivery.message
            bodies.append(message.body)
            json = json and message.encoding == "json"
        encodings = None if json else bytes(_ENCODINGS[delivery.message.encoding] for delivery in deliveries)
        try:
            result = runtime.handle(encodings, bodies, self._timeout, watched=not alone)
        except Unsent as unsent:
            return [*[ACK] * (unsent.place - 1), Outcome(error=unsent.error)]
        except BaseException as error:  # sys.exit() in a function that Lua has called must not end the worker
            if isinstance(error, Exception):
                raise
            failed = WippyQueueError(f"{type(error).__name__}: {error}")
            return [*[ACK] * (context.place - 1), Outcome(error=failed, trace=traceback.format_exc())]
        finally:
            context.batch, context.delivery, context.parted = (), None, False
        if result is None:
            return [ACK] * len(deliveries)
        place = (runtime.ended_at() or context.place) if result[0] == KILLED else runtime.position()
        done = [ACK] * (place - 1)
        return done if result[0] == PARTED else [*done, self._outcome(deliveries[place - 1], result)]

    def kill(self) -> None:
        """End the handler that runs now, from any thread; what is stuck in one call of C goes on until that returns."""
        self._runtime.kill()

    def renew(self) -> None:
        """Replace a spoiled runtime between two hands; one that cannot be made is the next message's failure."""
        if self._runtime.spoiled and not self._worker.cancel.is_set():
            self._worker.late()
            with contextlib.suppress(WippyQueueError):
                self._renew()

    def close(self) -> None:
        self._runtime.close()

    def _renew(self) -> None:
        self._runtime.close()
        self._runtime = self._function.make_runtime(self._context)
        if self._worker.over:  # `Worker.kill` writes and reads the two in the other order
            self._runtime.kill()

    def _outcome(self, delivery: Delivery, result: Failure) -> Outcome:
        if result[0] == UNDECODABLE:
            message, why = delivery.message, readable(result[1].encode("latin-1"))
            error = Invalid(f"message {message.id}: the body is no {message.encoding}: {why}")
            return Outcome(error=error, undecodable=True)
        failure, trace = self._function.failure(result, self._runtime, self._timeout)
        return Outcome(error=failure, trace=trace, canceled=self._context.canceled)


def _with_trace(error: WippyQueueError, trace: str) -> WippyQueueError:
    if trace:
        error.add_note(f"Lua stack:\n{trace}")
    return error
