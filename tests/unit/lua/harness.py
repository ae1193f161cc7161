"""The codecs of `wippy_queue/lua/` in a bare Lua, without the sandbox, whose tests use `support`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lupa import lua54

LUA = Path(__file__).parents[3] / "wippy_queue" / "lua"

_STD = """
local std = {}
for _, name in ipairs{'string', 'table', 'math', 'utf8', 'setmetatable', 'type', 'tostring', 'tonumber', 'next',
    'select', 'error', 'rawget'} do std[name] = _G[name] end
std.getmetatable = debug.getmetatable
return std
"""


class Lua:
    """A Lua state whose code sees the codecs as ``json`` and ``msgpack``."""

    def __init__(self) -> None:
        self._lua = lua54.LuaRuntime(encoding="latin-1", register_eval=False)
        std = self._lua.execute(_STD)
        self.globals: Any = self._lua.globals()
        json = self.globals.json = self._load("json.lua", std, self._lua.table())
        self._load("json_encoder.lua", std, json)
        msgpack = self.globals.msgpack = self._load("msgpack.lua", std, json)
        self._load("msgpack_encoder.lua", std, json, msgpack)

    def function(self, code: str) -> Callable[..., Any]:
        """Compile code once; its arguments are ``...``, strings go in as bytes and come out as latin-1."""
        function: Callable[..., Any] = self._lua.compile(code.encode())
        return function

    def run(self, code: str, *args: Any) -> Any:
        return self.function(code)(*args)

    def _load(self, path: str, *args: Any) -> Any:
        return self._lua.execute((LUA / path).read_text("utf-8"), *args, mode="t", name=f"={path}")
