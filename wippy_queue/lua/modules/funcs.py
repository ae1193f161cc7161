"""What the `funcs` module of Lua asks Python for: calls of other functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from wippy_queue.access import SecurityContext
from wippy_queue.durations import parse_duration
from wippy_queue.errors import Invalid
from wippy_queue.lua.convert import text
from wippy_queue.lua.handler import LuaFunction
from wippy_queue.lua.host import CallContext
from wippy_queue.lua.modules.security import actor_of, scope_of

MAX_DEPTH: Final = 16  # functions that call one another; each has a Lua state and a piece of the thread's stack


def functions(context: CallContext) -> dict[str, Callable[..., Any]]:
    def call(
        function_id: bytes,
        count: int,
        arguments: bytes,
        timeout: float | None,
        values: bytes | None,
        actor_id: bytes | None,
        actor_meta: bytes | None,
        scope: bytes | None,
    ) -> bytes:
        target_id = text(function_id)
        context.require("funcs.call", target_id)
        target = context.host.function(target_id)
        if context.depth >= MAX_DEPTH:
            raise Invalid(
                f"{target_id} is not called: {MAX_DEPTH} functions have called one another already; "
                "let the function publish to a queue, or see whether it calls itself for ever"
            )
        security = context.security or SecurityContext()
        if actor_id is not None and actor_meta is not None:
            security = SecurityContext(actor=actor_of(actor_id, actor_meta), scope=security.scope)
        if scope is not None:
            security = SecurityContext(actor=security.actor, scope=scope_of(context, scope))
        if isinstance(target, LuaFunction):
            passed = context.values if values is None else merge(context.values, values)
            return target.call_from(context, count, arguments, timeout=timeout, security=security, values=passed)
        result = target.call(msgspec.msgpack.decode(arguments), timeout, security, false_fails=False)
        return _encoded(target_id, result)

    def require(action: bytes, resource: bytes) -> bool:
        context.require(text(action), text(resource))
        return True

    def seconds(duration: bytes) -> float:
        try:
            return parse_duration(text(duration))
        except ValueError as error:
            raise Invalid(f"executor:with_options: timeout: {error}") from None

    return {"call": call, "merge": merge, "require": require, "seconds": seconds}


def merge(values: bytes | None, added: bytes) -> bytes:
    """Return a msgpack map with another one over it."""
    if values is None:
        return added
    return msgspec.msgpack.encode({**msgspec.msgpack.decode(values), **msgspec.msgpack.decode(added)})


def _encoded(function_id: str, result: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(result)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Invalid(f"{function_id}: the result cannot be handed to Lua: {error}") from error
