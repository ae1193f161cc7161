"""Modules in the real sandbox: code that a handler could hold, and what it returns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from wippy_queue.ids import EntryId
from wippy_queue.lua.host import CallContext, Host, Source
from wippy_queue.lua.runtime import Runtime

_ID = EntryId("app:test")


def _not_here(*_: object) -> NoReturn:
    raise AssertionError("this module has no business here")


class ModuleBench:
    """Runs Lua with modules at hand as locals; each piece of code is compiled once, into a runtime of its own."""

    def __init__(self, *modules: str, store: Callable[[str], object] = _not_here) -> None:
        host = Host(publish=_not_here, queue_encoding=_not_here, info=_not_here, store=store, hook_mode="off")
        self.context = CallContext(host=host, function=_ID, cancel=threading.Event())
        self._modules = modules
        self._runtimes: dict[str, Runtime] = {}

    def run(self, code: str, *arguments: Any, timeout: float | None = None) -> Any:
        """Return what ``code`` returns; it sees the arguments as ``...``. A failure of the handler is a test failure."""
        runtime = self._runtimes.get(code)
        if runtime is None:
            runtime = self._runtimes[code] = Runtime(self.context)
            head = " ".join(f'local {name} = require("{name}")' for name in self._modules)
            source = Source(
                id=_ID, text=f"{head} return function(...) {code} end", name="test.lua", modules=self._modules
            )
            failure = runtime.load(source)
            assert failure is None, failure
        result = runtime.invoke(len(arguments), msgspec.msgpack.encode(arguments), timeout)
        assert result[0] == 0, result
        return msgspec.msgpack.decode(result[1].encode("latin-1"))

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
            f"local v, err = {expression} return {{ v == nil, err and err:kind() or '-', err and err:message() or '-' }}",
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
