"""The bare baseline: ``queue.Queue``, threads, Lua with the same codec, and nothing else.

No settling, no attempts, no limits, no sandbox: the distance to it is what a queue system costs.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from lupa import lua54

from wippy_queue.bench.contestant import Contestant, Task
from wippy_queue.bench.workloads import Body
from wippy_queue.errors import Timeout
from wippy_queue.lua.host import Chunks

_CHUNK: Final = """
local codec, encoder, source, sleep, publish, started = ...
local std = { getmetatable = debug.getmetatable }
for key, value in next, _G do std[key] = std[key] or value end
local json = load(codec, '=json.lua', 'b', {})(std, {})
load(encoder, '=json_encoder.lua', 'b', {})(std, json)
local sleep, publish, started = python.as_function(sleep), python.as_function(publish), python.as_function(started)
local modules = {
  bench = { started = started },
  queue = { publish = function(id, data) return publish(json.encode(data)) end },
  time = { sleep = function(nanoseconds) return sleep(nanoseconds / 1e9) end, MILLISECOND = 1000000 },
}
local env = setmetatable({ require = function(name) return modules[name] end }, { __index = _G })
local handler = load(source, '=handler', 't', env)()
return function(body) return handler(json.decode(body)) end
"""


def bare_handlers(
    count: int, source: str, publish: Callable[[str], Any], started: Callable[[int], Any]
) -> list[Callable[[bytes], Any]]:
    """Return handlers of a workload, each in a plain Lua state of its own; one thread at a time may call one.

    Args:
        count: of the handlers.
        source: of the workload.
        publish: called with each body that the handler publishes, as Latin-1 text: a character is a byte.
        started: see `Task`.
    """
    codec = [*map(Chunks().get, ("json.lua", "json_encoder.lua"))]
    handlers = []
    for _ in range(count):
        lua = lua54.LuaRuntime(
            encoding="latin-1", register_eval=False, register_builtins=False, unpack_returned_tuples=True
        )
        handlers.append(lua.execute(_CHUNK, *codec, source.encode(), time.sleep, publish, started))
    return handlers


class Baseline(Contestant):
    """Threads that take bodies from a queue and hand them to Lua."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._queue: queue.Queue[bytes | None] = queue.Queue()
        self._done: deque[str] = deque()
        self._encode = msgspec.json.Encoder().encode
        self._threads: list[threading.Thread] = []
        self._barrier = threading.Barrier(task.concurrency + 1)

    def publish(self, bodies: Sequence[Body]) -> None:
        for body in bodies:
            self._queue.put(self._encode(body))

    def start(self) -> None:
        handlers = bare_handlers(self._task.concurrency, self._task.source, self._done.append, self._task.started)
        self._threads = [threading.Thread(target=self._work, args=(handler,), daemon=True) for handler in handlers]
        for thread in self._threads:
            thread.start()

    def _work(self, handler: Callable[[bytes], Any]) -> None:
        while (body := self._queue.get()) is not None:
            if body:
                handler(body)
            else:
                self._barrier.wait()

    def wait(self, handled: int, timeout: float) -> None:
        # Counting each message would cost more than some of the handlers; so everybody meets at the end instead.
        for _ in self._threads:
            self._queue.put(b"")
        try:
            self._barrier.wait(timeout)
        except threading.BrokenBarrierError:
            raise Timeout(f"the baseline has not handled {handled} messages after {timeout:g} s") from None

    def stop(self) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
