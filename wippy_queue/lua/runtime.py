"""One sandboxed Lua state: making it, loading a function into it, and calling that under limits."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from lupa import lua54

from wippy_queue.errors import Internal, Kind, NotFound, WippyQueueError
from wippy_queue.ids import EntryId
from wippy_queue.lua.callbacks import Callbacks, plain
from wippy_queue.lua.convert import readable
from wippy_queue.lua.host import CallContext, Source
from wippy_queue.lua.limits import COUNT, Deadline
from wippy_queue.lua.modules import NAMES, QUICK
from wippy_queue.message import Encoding

# What a call gives: None when all went well, else one of these codes and what belongs to it.
FAILED: Final = 1
UNDECODABLE: Final = 2
KILLED: Final = 3
MEMORY: Final = 4
PARTED: Final = 5  # a batch was cut short: what follows was given away
_UNSENT: Final = 6  # all went well, and what was published comes along

Failure = tuple[Any, ...]

# Places of messages in the outbox, where the bootstrap lays them down.
_ENDED: Final = -4  # in which the call was ended
_LAST: Final = -5  # that was begun last

_SLACK: Final = 65_536  # bytes beside the budget, so that Lua can report that it is spent
_GROWTH: Final = 6  # times the size of its bytecode is what a file of ours may add to a state's memory

_logger = logging.getLogger(__name__)


class Unsent(Exception):
    """What a message, and those behind it in its batch, have published did not get into its queue after all."""

    def __init__(self, place: int, error: WippyQueueError) -> None:
        super().__init__(str(error))
        self.place = place  # of the message in the batch, from 1
        self.error = error


class _Loaders(NamedTuple):
    """What the bootstrap gives for filling a runtime."""

    install_foreign: Callable[..., None]
    define: Callable[..., None]
    start: Callable[..., Any]


def _deny(*_: object) -> Any:
    raise AttributeError("Python objects are closed to Lua")


class Runtime:
    """A Lua state of its own for one function.

    Args:
        context: who calls; the modules' Python functions read it.
        memory_limit: bytes that one call may use on top of what is there when it begins; None: no limit.

    Thread safety: one thread at a time, but ``kill`` from any.
    """

    def __init__(self, context: CallContext, memory_limit: int | None = None) -> None:
        host = context.host
        self.context = context
        context.runtime = self
        self.calls = 0
        self.spoiled = False  # by a kill, for lack of memory or by its age: to be replaced before the next call
        self._last_call = host.recycle_after + 1 if host.recycle_after else math.inf  # loading is the first one
        self._budget = memory_limit
        self._modules: dict[str, Mapping[str, Callable[..., Any]]] = {}  # the Python parts of those in use
        self._files: list[bytes] = []  # of ours that Lua has asked for within calls
        self._callee: Runtime | None = None  # of the function that the one here has called
        self._callee_lock = threading.Lock()
        self._lua = lua = lua54.LuaRuntime(
            encoding="latin-1",
            register_eval=False,
            register_builtins=False,
            unpack_returned_tuples=True,
            attribute_handlers=(_deny, _deny),
            max_memory=0,
        )
        self._deadline = Deadline(host.watchdog, self._late)
        self._callbacks = Callbacks(lua, context, self._deadline)
        hooks = host.hooks
        mode = "count" if host.hook_mode == "async" and hooks is None else host.hook_mode
        *loaders, handle, _, _, invoke, invoke_nested, sweep, outbox, state = lua.execute(
            host.chunks.get("bootstrap.lua"),
            self._ask,
            self._fetch,
            self._bind,
            self._callbacks.again,
            self._flush,
            self._follow,
            mode,
            COUNT,
            mode="b",
        )
        self._loaders: _Loaders | None = _Loaders(*loaders)
        self._handle = handle
        self._invoke, self._invoke_nested, self._sweep, self._outbox = invoke, invoke_nested, sweep, outbox
        if hooks is not None:
            self._deadline.attach(hooks.attach(int(state.rpartition("0x")[2], 16)))
        self._base = lua.get_memory_used()

    def load(self, source: Source, timeout: float | None = None) -> Failure | None:
        """Load the function's chunk with its modules and libraries, once; return None or what went wrong.

        Raises:
            NotFound: it names a module or a library that does not exist.
        """
        loaders, self._loaders = self._loaders, None  # a part of the state's memory: not needed again
        if loaders is None:
            raise Internal(f"{source.id}: its runtime has loaded a function already")
        units = {source.id: source}
        self._collect(source, units)
        for name in sorted({name for unit in units.values() for name in unit.modules}):
            foreign = self.context.host.modules.get(name)
            if foreign is not None:
                loaders.install_foreign(*_bytes(name, *foreign))
            elif name not in NAMES:
                raise NotFound(f"{self.context.function}: there is no module {name!r}")
        for unit in units.values():
            imports = " ".join(f"{alias} {target}" for alias, target in unit.imports.items())
            loaders.define(*_bytes(unit.id, unit.text, unit.name, " ".join(unit.modules), imports))
        method = None if source.method is None else source.method.encode()
        failure: Failure | None = self._call(loaders.start, source.id.encode(), method, size=0, timeout=timeout)
        del loaders
        self._sweep()
        self._base = self._lua.get_memory_used()
        return failure

    def handle(
        self, encodings: bytes | None, bodies: Sequence[bytes], timeout: float | None = None, *, watched: bool = True
    ) -> Failure | None:
        """Run the handler for messages, one after the other in one crossing.

        Args:
            encodings: how each is encoded (0: JSON, 1: msgpack, 2: bytes as they are); None: they are all JSON.
            bodies: of the messages.
            timeout: seconds that one message may take; None: no limit. Several want 0.1 at least: see `Deadline`.
            watched: whether somebody wants to know when they take their time.

        Returns:
            None when all went well. Else what is wrong with the message at `position`, counted from 1, and those behind
            it were not begun; or PARTED: those from `position` on were not begun.
        """
        size = sum(map(len, bodies))
        result: Failure | None = self._call(
            self._handle, encodings, *bodies, size=size, timeout=timeout, watched=watched
        )
        return result

    def position(self) -> int:
        """Return the place of the message that the last call ended with."""
        place: int = self._outbox[_LAST]  # no call of Lua: a kill that comes late for the last one would meet it
        return place

    def ended_at(self) -> int:
        """Return the place of the message in which the last call was ended; 0: in none."""
        place: int = self._outbox[_ENDED]
        return place

    def invoke(
        self, count: int, arguments: bytes, timeout: float | None = None, *, false_fails: bool = True
    ) -> str | Failure:
        """Run the handler with ``count`` arguments from a msgpack array; return msgpack in latin-1, or the failure.

        Args:
            count: of the arguments.
            arguments: a msgpack array.
            timeout: seconds; None: no limit.
            false_fails: whether ``false`` alone is a failure, as it is for a message.
        """
        invoke = self._invoke if false_fails else self._invoke_nested
        result: str | Failure = self._call(invoke, count, arguments, size=len(arguments), timeout=timeout)
        return result

    def parted(self) -> None:
        """The batch that runs ends with the message in hand, whose time limit starts anew."""
        self._deadline.restart()
        if self._deadline.at != math.inf:
            self.context.deadline = self._deadline.at

    def _late(self) -> None:
        """The watchdog finds that a batch has become slow."""
        worker = self.context.worker
        if worker is None:
            return
        self._callbacks.late()
        worker.late()

    def kill(self) -> None:
        """End the call that runs now, from any thread; harmless when none runs."""
        self.spoiled = True
        self._deadline.kill()
        with self._callee_lock:  # a callee that is being killed is still this one's, not back in its pool
            if self._callee is not None:
                self._callee.kill()

    @contextlib.contextmanager
    def calling(self, callee: Runtime) -> Iterator[None]:
        """Have a kill of this runtime reach another one that its function calls."""
        with self._callee_lock:
            self._callee = callee
        if self.killed:  # `kill` writes and reads the two in the other order
            callee.kill()
        try:
            yield
        finally:
            with self._callee_lock:
                self._callee = None

    @property
    def killed(self) -> bool:
        return self._deadline.killed

    @property
    def expired(self) -> bool:
        """Whether the last call has exceeded its time limit."""
        return self._deadline.expired

    def expire(self) -> None:
        """The call that runs has used its time; for a function of Python that it has called."""
        self._deadline.expired = True

    def close(self) -> None:
        """Let go of the Lua state; only when no call runs. Idempotent."""
        self._deadline.detach()
        self.spoiled = True
        if hasattr(self, "_lua"):
            self._loaders = None
            self._callbacks.close()
            del self._lua, self._handle, self._invoke, self._invoke_nested
            del self._sweep, self._outbox

    # The call.

    def _call(self, function: Any, *arguments: Any, size: int, timeout: float | None, watched: bool = False) -> Any:
        lua, deadline = self._lua, self._deadline
        self.calls += 1
        if self.calls >= self._last_call:
            self.spoiled = True
        if not deadline.start(timeout, watched):
            return (KILLED,)
        if timeout is not None:
            self.context.deadline = deadline.at
        try:
            if self._budget is not None:
                lua.set_max_memory(self._allowance(size))
            result = function(*arguments)
        except lua54.LuaError as error:  # outside the bootstrap's own net
            result = self._uncaught(error)
        finally:
            if self._budget is not None:
                lua.set_max_memory(0)
            deadline.stop()
            if timeout is not None:
                self.context.deadline = math.inf
        if result is None and not deadline.expired:
            return None
        if type(result) is int:
            result = (result,)
        code = result[0] if type(result) is tuple else None
        if deadline.expired or deadline.killed or code in {KILLED, MEMORY}:
            self.spoiled = True  # before what may raise
        if code == _UNSENT:
            self._send(*result[1:])
            result = None
        elif self.context.batch and self._outbox[0]:  # calls of functions publish at once
            self._send(*self._unsent())
        self._callbacks.raise_interrupt()
        return result

    def _uncaught(self, error: lua54.LuaError) -> tuple[Any, ...]:
        """Say what a Lua error means that got past the bootstrap: the end of the call, or no memory to report in."""
        self.spoiled = True
        if self._deadline.is_over():
            return (KILLED,)
        if isinstance(error, MemoryError) or "not enough memory" in str(error):
            return (MEMORY,)
        return (FAILED, Kind.INTERNAL.value, str(error), None, None, "")

    def _allowance(self, size: int) -> int:
        """Return the memory limit of a call, in the state's own terms.

        It is relative to what is in use, for an argument that does not fit aborts the process.
        """
        budget = self._budget or 0
        used: int = self._lua.get_memory_used()
        if used > self._base + budget:  # what calls leave behind counts against the budget as soon as it fills it
            self._sweep()  # Lua's collector from inside Lua: lupa's way to call it keeps the interpreter lock
            used = self._lua.get_memory_used()
            if used > self._base + budget:
                self.spoiled = True
        return used + budget + 2 * size + _SLACK

    def _ask(self, place: int) -> bool:
        """What Lua's hook asks: whether the call is over. If not, it is only slow: a batch is parted."""
        try:
            if self._deadline.is_over():
                return True
            self._deadline.relax()
            self.context.arrive(place)
            self.context.part()
        except BaseException:
            _logger.exception("a batch could not be parted")
        return False

    def _follow(self, coroutine: int | None) -> bool:
        """What Lua asks before it takes the hook of a coroutine for good; see `Deadline.follow`."""
        try:
            return self._deadline.follow(coroutine)
        except BaseException as error:
            self._callbacks.abort(error)
            return True

    def _flush(self, *unsent: Any) -> bool:
        """Lua gives what it has kept back in its outbox; False: the call is over."""
        try:
            self._send(*unsent)
        except BaseException as error:
            self._callbacks.abort(error)
        return not self._deadline.is_over()

    def _unsent(self) -> Sequence[Any]:
        """Return what is in Lua's outbox. Each look into a table of Lua lets go of the interpreter lock."""
        outbox = self._outbox
        return [*(outbox[-key] for key in (1, 2, 3)), *(outbox[index + 1] for index in range(outbox[0]))]

    def _send(self, queue_id: str, encoding: Encoding, place: int, *bodies: str) -> None:
        """Publish what is in Lua's outbox, and empty it; see bootstrap.lua, which says how it is laid out."""
        outbox = self._outbox
        outbox[0] = 0
        for index in range(1, len(bodies) + 1):
            outbox[index] = None
        try:
            queue_id = readable(queue_id.encode("latin-1"))
            self.context.host.post(queue_id, [body.encode("latin-1") for body in bodies], encoding)
        except WippyQueueError as error:
            raise Unsent(place, error) from error

    # Modules and libraries.

    def _fetch(self, path: str) -> bytes | None:
        """Return a file of ours that Lua needs now, None when it does not fit; the handler does not pay for it."""
        try:
            code = self.context.host.chunks.get(path)
            limit = self._lua.get_max_memory(total=True)
            if limit and code not in self._files:
                self._files.append(code)
                self._lua.set_max_memory(limit + _GROWTH * len(code), total=True)
                self._base += _GROWTH * len(code)
            return code if self._callbacks.has_room((code,)) else None
        except BaseException as error:
            self._callbacks.abort(error)
            return None

    def _bind(self, module: str, name: str) -> Callable[..., Any] | None:
        """Return a function of a module, guarded, for the bootstrap alone; None when it does not fit."""
        try:
            if not self._callbacks.has_room(()):
                return None
            module, name = (part.encode("latin-1").decode() for part in (module, name))
            never_waits = module in QUICK or f"{module}.{name}" in QUICK
            return self._callbacks.wrap(self._find(module, name), never_waits=never_waits)
        except BaseException as error:
            self._callbacks.abort(error)
            return None

    def _find(self, module: str, name: str) -> Callable[..., Any]:
        foreign = self.context.host.modules.get(module)
        if foreign is not None:
            return plain(foreign[name], self.context)
        functions = self._modules.get(module)
        if functions is None:
            python = self.context.host.chunks.python(module)
            functions = self._modules[module] = {} if python is None else python.functions(self.context)
        return functions[name]

    def _collect(self, source: Source, units: dict[EntryId, Source]) -> None:
        for alias, target in source.imports.items():
            if target in units:
                continue
            library = self.context.host.libraries.get(target)
            if library is None:
                raise NotFound(f"{source.id}: imports: {alias}: there is no library {target}")
            units[target] = library
            self._collect(library, units)


def _bytes(*texts: str) -> Iterable[bytes]:
    return (text.encode() for text in texts)
