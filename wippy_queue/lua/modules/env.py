"""What the `env` module of Lua asks Python for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from wippy_queue.environment import Variable
from wippy_queue.errors import NotFound
from wippy_queue.lua.convert import text
from wippy_queue.lua.host import CallContext


def functions(context: CallContext) -> dict[str, Callable[..., Any]]:
    environment, access = context.host.environment, context.host.access

    def checked(action: str, key: str) -> Variable:
        """Return a variable that the function may use; policies may name it by id or by name, whatever the key was."""
        found = environment.find(key, context.function.namespace)
        context.require(action, *((key,) if found is None else (found.id, found.name)))
        return environment.variable(key, context.function.namespace)

    def get(key: bytes) -> str:
        variable = checked("env.get", text(key))
        value = environment.value(variable)
        if value is None:
            raise NotFound(f"the environment variable {variable.id} ({variable.name}) has no value and no default")
        return value

    def set_(key: bytes, value: bytes) -> bool:
        environment.set(checked("env.set", text(key)), text(value))
        return True

    def get_all() -> bytes:
        readable = {
            variable.name: environment.value(variable)
            for variable in environment.named()
            if access.allows(context.security, "env.get", variable.id, variable.name)
        }
        return msgspec.msgpack.encode({name: value for name, value in readable.items() if value is not None})

    return {"get": get, "set": set_, "get_all": get_all}
