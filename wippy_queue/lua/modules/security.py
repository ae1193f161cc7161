"""What the `security` module of Lua asks Python for; scopes come as the ids of their policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from wippy_queue.access import Actor, Policy, Scope
from wippy_queue.lua.convert import text
from wippy_queue.lua.host import CallContext


def functions(context: CallContext) -> dict[str, Callable[..., Any]]:
    access = context.host.access

    def actor() -> tuple[str, bytes] | None:
        found = None if context.security is None else context.security.actor
        return None if found is None else (found.id, msgspec.msgpack.encode(found.meta))

    def scope() -> str | None:
        found = None if context.security is None else context.security.scope
        return None if found is None else _ids(found.policies)

    def can(action: bytes, resource: bytes, meta: bytes) -> bool:
        security = context.security
        if security is None or security.actor is None or security.scope is None:
            return False
        return security.scope.evaluate(security.actor, text(action), text(resource), _map(meta)) == "allow"

    def evaluate(
        ids: bytes, actor_id: bytes | None, actor_meta: bytes | None, action: bytes, resource: bytes, meta: bytes
    ) -> str:
        asker = None if actor_id is None or actor_meta is None else Actor(text(actor_id), _map(actor_meta))
        scope = scope_of(context, ids)
        return scope.evaluate(asker, text(action), text(resource), _map(meta))

    def require(action: bytes, resource: bytes) -> bool:
        context.require(text(action), text(resource))
        return True

    def policy(policy_id: bytes) -> str:
        context.require("security.policy.get", text(policy_id))
        return access.policy(text(policy_id)).id

    def group(group_id: bytes) -> str:
        context.require("security.policy_group.get", text(group_id))
        return _ids(access.group(text(group_id)))

    return {
        "actor": actor,
        "scope": scope,
        "can": can,
        "evaluate": evaluate,
        "require": require,
        "policy": policy,
        "group": group,
    }


def scope_of(context: CallContext, ids: bytes) -> Scope:
    """Return the scope that a value of Lua stands for."""
    return Scope(tuple(context.host.access.policy(policy_id) for policy_id in ids.decode().split()))


def actor_of(actor_id: bytes, meta: bytes) -> Actor:
    """Return the actor that a value of Lua stands for."""
    return Actor(text(actor_id), _map(meta))


def _ids(policies: Iterable[Policy]) -> str:
    return "".join(f"{policy.id} " for policy in policies)


def _map(data: bytes) -> Mapping[str, Any]:
    decoded: Mapping[str, Any] = msgspec.msgpack.decode(data)
    return decoded
