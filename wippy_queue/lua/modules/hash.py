"""The part of the Lua module `hash` that needs Python."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from wippy_queue.lua.host import CallContext


def functions(context: CallContext) -> dict[str, Callable[..., bytes]]:
    return {"digest": _digest, "hmac": _hmac}


def _digest(name: bytes, data: bytes, raw: bool) -> bytes:
    # Not for security: with the flag, systems in FIPS mode allow MD5 too.
    return _shown(hashlib.new(name.decode(), data, usedforsecurity=False).digest(), raw)


def _hmac(name: bytes, data: bytes, key: bytes, raw: bool) -> bytes:
    return _shown(hmac.digest(key, data, name.decode()), raw)


def _shown(digest: bytes, raw: bool) -> bytes:
    return digest if raw else digest.hex().encode()
