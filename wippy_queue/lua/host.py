"""What the engine hands to the Lua side, and what a runtime knows while it runs."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import threading
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
from lupa import lua54

from wippy_queue.access import NOTHING, Access, SecurityContext
from wippy_queue.delivery import Delivery
from wippy_queue.environment import Environment
from wippy_queue.handler import WorkerContext
from wippy_queue.ids import EntryId
from wippy_queue.lua.convert import readable
from wippy_queue.lua.limits import HookLibrary, HookMode, Watchdog
from wippy_queue.message import Encoding, HeaderValue
from wippy_queue.queues import QueueInfo

NO_VALUES: Final = b"\x80"  # an empty map in msgpack

if TYPE_CHECKING:
    from wippy_queue.lua.runtime import Runtime

_COMPILER: Final = """
return {
  dump = function(text, name) return string.dump(assert(load(text, name, 't')), true) end,
  check = function(text, name) return select(2, load(text, name, 't')) end,
}
"""


@attrs.frozen(kw_only=True)
class Source:
    """The text of a function or a library, and what it may require."""

    id: EntryId
    text: str
    name: str  # of the file, as errors show it: task_handler.lua
    method: str | None = None
    modules: tuple[str, ...] = ()
    imports: Mapping[str, EntryId] = attrs.field(factory=dict)  # alias -> library


class Publish(Protocol):
    """How an encoded body gets into a queue; blocks until it is there and returns the message's id."""

    def __call__(
        self,
        queue_id: str,
        body: bytes,
        encoding: Encoding,
        headers: dict[str, HeaderValue],
        cancel: threading.Event,
        deadline: float,
    ) -> str: ...


class Function(Protocol):
    """What `funcs.call` can call; Lua functions are called without a detour through Python values."""

    def call(
        self,
        args: Sequence[Any],
        timeout: float | None = None,
        security: SecurityContext | None = None,
        *,
        false_fails: bool = True,
    ) -> Any:
        """Call it in this thread and return its first value; raises what it raised or returned as its error."""


class Chunks:
    """The files of this package that runtimes are made of: Lua compiled once, Python imported once.

    Thread safety: every method from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._code: dict[str, bytes] = {}
        self._python: dict[str, ModuleType | None] = {}

    def get(self, path: str) -> bytes:
        """Return the bytecode of a file; ``path`` is relative to this package."""
        code = self._code.get(path)
        if code is None:
            with self._lock:
                code = self._code.get(path) or self._load(path)
                self._code[path] = code
        return code

    def python(self, name: str) -> ModuleType | None:
        """Return the Python part of a module, None where it is Lua alone."""
        try:
            return self._python[name]
        except KeyError:
            path = f"{__package__}.modules.{name}"
            found = None if importlib.util.find_spec(path) is None else importlib.import_module(path)
            self._python[name] = found
            return found

    def check(self, text: str, name: str) -> str | None:
        """Compile a handler's text; return what is wrong with it, with file and line, or None."""
        with self._lock:
            failure = self._compiler.check(text.encode(), f"={name}".encode())
        return None if failure is None else readable(failure.encode("latin-1"))

    @functools.cached_property
    def _compiler(self) -> Any:
        lua = lua54.LuaRuntime(encoding="latin-1", register_eval=False, register_builtins=False)
        return lua.execute(_COMPILER)

    def _load(self, path: str) -> bytes:
        from importlib import resources

        text = resources.files(__package__).joinpath(path).read_bytes()
        code: str = self._compiler.dump(text, f"={path}".encode())
        return code.encode("latin-1")


@attrs.define(kw_only=True, eq=False)
class Host:
    """Everything outside that Lua code can reach. One per engine; every callable may be called from any thread."""

    publish: Publish
    post: Callable[[str, Sequence[bytes], Encoding], object]  # to a queue where publishing cannot wait
    queue_encoding: Callable[[str], Encoding]  # raises NotFound
    may_wait: Callable[[str], bool] = lambda _: True  # whether a publish to that queue can take its time
    info: Callable[[str], QueueInfo]
    store: Callable[[str], object]
    function: Callable[[str], Function]  # raises NotFound
    access: Access
    environment: Environment
    modules: Mapping[str, Mapping[str, Callable[..., Any]]] = attrs.field(factory=dict)  # written in Python by users
    libraries: Mapping[EntryId, Source] = attrs.field(factory=dict)
    hook_mode: HookMode = "async"
    recycle_after: int = 0  # calls after which a runtime is replaced; 0: never
    watchdog: Watchdog = attrs.field(factory=Watchdog, init=False)
    chunks: Chunks = attrs.field(factory=Chunks, init=False)
    logger_names: dict[EntryId, set[bytes]] = attrs.field(factory=dict, init=False)  # that each function has used

    @functools.cached_property
    def hooks(self) -> HookLibrary | None:
        """The functions that hook mode "async" needs; None in the other modes, and where lupa does not export them."""
        return HookLibrary.load() if self.hook_mode == "async" else None


@attrs.define(kw_only=True, eq=False)
class CallContext:
    """Whose call a runtime runs now; one per runtime, changed between calls by the thread that owns it."""

    host: Host
    function: EntryId
    worker: WorkerContext | None = None
    cancel: threading.Event = attrs.field(factory=threading.Event)
    delivery: Delivery | None = None
    batch: Sequence[Delivery] = ()  # the messages of this crossing; `delivery` is one of them then
    place: int = 0  # of the message in hand in the batch, from 1
    parted: bool = False  # the batch ends with the message in hand
    canceled: bool = False  # one of the modules has told the handler Canceled
    deadline: float = float("inf")  # monotonic seconds
    security: SecurityContext | None = None
    values: bytes = NO_VALUES  # of the module ctx: a msgpack map
    depth: int = 0  # how many calls of functions by functions led here
    runtime: Runtime = attrs.field(init=False)  # that this is the context of

    def arrive(self, place: int) -> None:
        """Lua calls Python for the message at ``place`` of the batch; 0 is a hook that came too late for its call."""
        self.place = place
        if place and not self.parted and self.batch:
            self.delivery = self.batch[place - 1]

    def part(self) -> None:
        """What runs now may take its time, so what waits behind it in the batch is given away."""
        if self.place and self.batch and not self.parted and self.worker is not None:
            self.parted = True
            self.worker.part(self.place)
            if len(self.batch) > 1:  # the clock of one alone has started with it
                self.runtime.parted()

    def require(self, action: str, *resources: str, meta: Mapping[str, Any] = NOTHING) -> None:
        """Return when the function may do this; see `Access.require`. Raises PermissionDenied."""
        self.host.access.require(self.security, action, *resources, meta=meta, function=self.function)
