"""What the `ctx` module of Lua asks Python for: values that stay the msgpack that Lua made of them."""

from __future__ import annotations

from collections.abc import Callable

from wippy_queue.lua.host import CallContext


def functions(context: CallContext) -> dict[str, Callable[[], bytes]]:
    return {"values": lambda: context.values}
