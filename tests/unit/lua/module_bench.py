"""Modules in the real sandbox: code that a handler could hold, and what it returns."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from tests.unit.lua.support import FUNCTION, make_host, make_source, no_store
from wippy_queue.lua.host import CallContext
from wippy_queue.lua.runtime import Runtime


class ModuleBench:
    """Runs Lua with modules at hand as locals; each piece of code is compiled once, into a runtime of its own."""

    def __init__(self, *modules: str, store: Callable[[str], object] = no_store) -> None:
        self.context = CallContext(
            host=make_host(store=store, hook_mode="off"), function=FUNCTION, cancel=threading.Event()
        )
        self._modules = modules
        self._runtimes: dict[str, Runtime] = {}

    def run(self, code: str, *arguments: Any, timeout: float | None = None) -> Any:
        """Return what ``code`` returns; it sees the arguments as ``...``. A failure of it is a test failure."""
        runtime = self._runtimes.get(code)
        if runtime is None:
            runtime = self._runtimes[code] = Runtime(self.context)
            head = " ".join(f'local {name} = require("{name}")' for name in self._modules)
            failure = runtime.load(make_source(f"{head} return function(...) {code} end", modules=self._modules))
            assert failure is None, failure
        result = runtime.invoke(len(arguments), msgspec.msgpack.encode(arguments), timeout)
        assert isinstance(result, str), result
        return msgspec.msgpack.decode(result.encode("latin-1"))

    def memory(self, code: str) -> int:
        """Return the bytes that the runtime of a piece of code holds."""
        lua = self._runtimes[code]._lua
        lua.gccollect()
        used: int = lua.get_memory_used()
        return used

    def value(self, expression: str, *arguments: Any) -> Any:
        """Return the first value of an expression, of any kind that can be encoded."""
        return self.run(f"local v = {expression} return {{ v }}", *arguments)[0]

    def text(self, expression: str, *arguments: Any) -> str:
        result = self.value(f"tostring({expression})", *arguments)
        assert isinstance(result, str)
        return result

    def error(self, expression: str, *arguments: Any) -> tuple[str, str]:
        """Return kind and message of the error that is the second value of an expression, the first being nil."""
        none, kind, message = self.run(
            f"local v, err = {expression} "
            "return { v == nil, err and err:kind() or '-', err and err:message() or '-' }",
            *arguments,
        )
        assert none, f"{expression} gave a value"
        return kind, message

    def raised(self, statement: str) -> str:
        """Return the text of the error that a statement raises."""
        ok, message = self.run(f"local ok, err = pcall(function() {statement} end) return {{ ok, tostring(err) }}")
        assert not ok, f"{statement} raised nothing"
        assert isinstance(message, str)
        return message


@contextlib.contextmanager
def machine_in(zone: str) -> Iterator[None]:
    """Let the machine's own time zone be another one for a while."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = zone
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()
