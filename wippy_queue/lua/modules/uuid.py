"""The part of the Lua module `uuid` that needs Python."""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid
from collections.abc import Callable

from wippy_queue.lua.host import CallContext

_NODE_IS_RANDOM = 1 << 40  # the multicast bit, which no network card has set (RFC 9562, 6.10)


def functions(context: CallContext) -> dict[str, Callable[..., str]]:
    node = secrets.randbits(48) | _NODE_IS_RANDOM  # of its own, for the address of the machine is nobody's business
    return {
        "v1": lambda: str(uuid.uuid1(node)),
        "v3": lambda namespace, name: _named(3, hashlib.md5, namespace, name),
        "v4": lambda: str(uuid.uuid4()),
        "v5": lambda namespace, name: _named(5, hashlib.sha1, namespace, name),
        "v7": _v7_maker(),
    }


def _named(version: int, digest: Callable[..., hashlib._Hash], namespace: bytes, name: bytes) -> str:
    hashed = digest(bytes.fromhex(namespace.decode()) + name, usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=hashed[:16], version=version))


def _v7_maker() -> Callable[[], str]:
    """Return a maker of version 7 whose ids grow strictly.

    The 12 bits behind the milliseconds hold the fraction of the millisecond (RFC 9562, 6.2, method 3).
    """
    last = 0

    def v7() -> str:
        nonlocal last
        milliseconds, rest = divmod(time.time_ns(), 1_000_000)
        last = max(milliseconds << 12 | (rest << 12) // 1_000_000, last + 1)
        value = (last >> 12) << 80 | 7 << 76 | (last & 0xFFF) << 64 | 0b10 << 62 | secrets.randbits(62)
        return str(uuid.UUID(int=value))

    return v7
