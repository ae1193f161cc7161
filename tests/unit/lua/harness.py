"""The chunks of `wippy_queue/lua/` in a bare Lua, without the sandbox: what codecs and modules are tested with."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lupa import lua54

from wippy_queue.errors import WippyQueueError

LUA = Path(__file__).parents[3] / "wippy_queue" / "lua"

_PRELUDE = """
std = {}
for _, name in ipairs{'string', 'table', 'math', 'utf8', 'os', 'setmetatable', 'type', 'tostring', 'tonumber', 'pairs',
    'ipairs', 'next', 'select', 'error', 'pcall', 'rawget', 'rawset', 'rawequal', 'rawlen'} do std[name] = _G[name] end
std.getmetatable = debug.getmetatable
errors = {kinds = {}, new = function(message, kind, retryable)
  return {message = message, kind = kind, retryable = retryable}
end}
function exposed(py)
  return function(...)
    local ok, value, kind = py(...)
    if ok then return value end
    return nil, errors.new(value, kind)
  end
end
"""


class Lua:
    """A runtime with the codecs loaded; code sees them as ``json`` and ``msgpack``."""

    def __init__(self) -> None:
        self._lua = lua54.LuaRuntime(encoding="latin-1", register_eval=False, unpack_returned_tuples=True)
        self._lua.execute(_PRELUDE)
        self.globals: Any = self._lua.globals()
        std = self.globals.std
        self.globals.json = self._load("json.lua", std)
        self.globals.msgpack = self._load("msgpack.lua", std, self.globals.json)
        self.globals.lib = lib = self._lua.table(
            std=std, json=self.globals.json, msgpack=self.globals.msgpack, errors=self.globals.errors, type_of=std.type
        )
        lib.include = lambda name: self._load(f"modules/{name}.lua", std, lib)

    def function(self, code: str) -> Callable[..., Any]:
        """Compile code once; its arguments are ``...``, strings go in as bytes and come out as latin-1."""
        function: Callable[..., Any] = self._lua.compile(code.encode())
        return function

    def run(self, code: str, *args: Any) -> Any:
        return self.function(code)(*args)

    def module(self, name: str) -> None:
        """Load a module with its Python functions, as a global of its name."""
        host = self._lua.table()
        if (LUA / "modules" / f"{name}.py").exists():
            functions: dict[str, Callable[..., Any]] = importlib.import_module(
                f"wippy_queue.lua.modules.{name}"
            ).functions(None)
            for key, function in functions.items():
                host[key] = self.globals.exposed(_guarded(function))
        self.globals[name] = self._load(f"modules/{name}.lua", host, self.globals.lib)

    def _load(self, path: str, *args: Any) -> Any:
        return self._lua.execute((LUA / path).read_text("utf-8"), *args, mode="t", name=f"={path}")


def _guarded(function: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    def call(*args: Any) -> tuple[Any, ...]:
        try:
            value = function(*[a.encode("latin-1") if isinstance(a, str) else a for a in args])
        except WippyQueueError as error:
            return False, error.message, error.kind.value
        return True, value.encode() if isinstance(value, str) else value

    return call
