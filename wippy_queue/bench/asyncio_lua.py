"""The asyncio variant's Lua: the engine's sandbox, codec and modules, with handlers that give the loop its turn.

A handler runs as a Lua coroutine. Where the engine blocks its thread, in ``time.sleep`` and in a publish to a full
queue, it yields, and whoever drives it awaits. Many messages go into Lua in one crossing. There is no time limit: a
loop cannot end a handler that does not give it its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from types import ModuleType, SimpleNamespace
from typing import Any, Final, cast

import attrs

import wippy_queue.lua
from wippy_queue.delivery import Delivery
from wippy_queue.lua.host import CallContext, Chunks
from wippy_queue.lua.runtime import Failure, Runtime
from wippy_queue.message import Encoding

# What a handler, or the end of one, makes a crossing return with.
OUTCOME: Final = "outcome"  # it failed
SLEEP: Final = "sleep"  # it wants to sleep, so many nanoseconds
ROOM: Final = "room"  # it waits for room in a queue

_ENCODINGS: Final[dict[Encoding, int]] = {"json": 0, "msgpack": 1, "binary": 2}
_RESUME: Final = -1
_BOOTSTRAP: Final = "bootstrap.lua"
_ORIGINAL: Final = f"original/{_BOOTSTRAP}"

# Runs in the place of the engine's bootstrap, runs that one, and wraps the function that handles a message. What the
# wrapped one gives: nil when all messages are done, else why it returns, the number of the message in hand, and more.
# Handlers have an `os` of their own, so they do not see what is put there for the modules below.
_WRAPPER: Final = f"""
local arguments = table.pack(...)
local create, resume, yield, error = coroutine.create, coroutine.resume, coroutine.yield, error
local pack, unpack = table.pack, table.unpack
local at, last = 0, 0
os.loop = {{
  await = function(what, argument) return yield(what, at, argument) end,
  at = function() return at end,
}}
local code = arguments[2]('{_ORIGINAL}') -- its function that fetches files
local parts = pack(load(code, '=[wippy]', 'b')(unpack(arguments, 1, arguments.n)))
local handle_one, well, DONE = parts[5], parts[6], {{}} -- of what it returns: what runs one message, and what ends all

local function tell(code, ...)
  if code ~= nil then yield('{OUTCOME}', at, code, ...) end
end

local function work(count, ...)
  local items = {{ ... }}
  at, last = 1, count
  while at <= last do
    tell(handle_one(items[2 * at - 1], items[2 * at]))
    at = at + 1
  end
  return work(yield(DONE))
end

local thread -- made by the first call: here it would inherit a hook, which makes loops twice as slow

local function outcome(ok, why, ...)
  if not ok then
    thread = nil
    error(why, 0)
  end
  if why ~= DONE then return why, ... end
  return well(last)
end

parts[4] = function(first, second, ...)
  if first ~= {_RESUME} then
    thread = thread or create(work)
    return outcome(resume(thread, first, second, ...))
  end
  last = second
  return outcome(resume(thread, ...))
end
return unpack(parts, 1, parts.n)
"""

# Put before two of the engine's modules: the message in hand is known by its number, and waiting is the loop's.
_PREFIXES: Final = {
    "modules/time.lua": f"""
do
  local host, lib = ...
  local await, new_error = lib.std.os.loop.await, lib.errors.new
  function host.sleep(nanoseconds)
    if await('{SLEEP}', nanoseconds) then return true end
    return nil, new_error('time.sleep: the worker is stopping', 'Canceled')
  end
end
""",
    "modules/queue.lua": f"""
do
  local host, lib = ...
  local loop, new_error, parts_of = lib.std.os.loop, lib.errors.new, lib.errors.parts
  for _, name in lib.std.next, {{ 'id', 'headers', 'settle' }} do
    local f = host[name]
    host[name] = function(...)
      host.take_in_hand(loop.at())
      return f(...)
    end
  end
  local publish = host.publish
  function host.publish(id, ...)
    while true do
      local ok, err = publish(id, ...)
      if ok then return ok end
      local _, _, _, details = parts_of(err)
      if not (details and details.room) then return nil, err end
      if not loop.await('{ROOM}', id) then
        return nil, new_error('publish to ' .. id .. ' was cancelled while it waited for room', 'Canceled')
      end
    end
  end
end
""",
}


class LoopChunks(Chunks):
    """The engine's Lua files, three of them changed."""

    def python(self, name: str) -> ModuleType | None:
        module = super().python(name)
        if name != "queue" or module is None:
            return module

        def functions(context: LoopContext) -> dict[str, Callable[..., Any]]:
            def take_in_hand(number: int) -> None:
                context.delivery = context.batch[number - 1]

            return {**module.functions(context), "take_in_hand": take_in_hand}

        return cast(ModuleType, SimpleNamespace(functions=functions))

    def _load(self, path: str) -> bytes:
        if path == _ORIGINAL:
            return super()._load(_BOOTSTRAP)
        if path == _BOOTSTRAP:
            return self._compile(_WRAPPER, path)
        if path in _PREFIXES:
            text = resources.files(wippy_queue.lua).joinpath(path).read_text(encoding="utf-8")
            return self._compile(_PREFIXES[path] + text, path)
        return super()._load(path)

    def _compile(self, text: str, path: str) -> bytes:
        code: str = self._compiler.dump(text.encode(), f"={path}".encode())
        return code.encode("latin-1")


@attrs.define(kw_only=True, eq=False)
class LoopContext(CallContext):
    """Whose messages a runtime handles now."""

    def arrive(self, place: int) -> None:
        """The message in hand is known by `take_in_hand`."""

    def part(self) -> None:
        """Nobody else could take what waits behind a message: the loop is one thread."""


class LoopRuntime(Runtime):
    """A runtime that takes a batch of messages in one crossing, and comes back where a handler has to wait."""

    context: LoopContext

    def begin(self, batch: Sequence[Delivery]) -> Failure | None:
        """Handle the messages; return None, or why Lua came back, the number of the message (from 1), and more."""
        self.context.batch = batch
        values: list[Any] = [len(batch)]
        size = 0
        for delivery in batch:
            message = delivery.message
            values += (_ENCODINGS[message.encoding], message.body)
            size += len(message.body)
        return self._cross(values, size)

    def resume(self, last: int, value: bool) -> Failure | None:
        """Go on after `begin` or `resume` came back, up to message number ``last``; see `begin`."""
        return self._cross((_RESUME, last, value), 0)

    def _cross(self, values: Sequence[Any], size: int) -> Failure | None:
        handle = self._handle
        result: Failure | None = self._call(handle, *values, size=size, timeout=None)
        return result
