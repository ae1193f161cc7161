"""The part of the Lua module `base64` that needs Python."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

from wippy_queue.errors import Invalid
from wippy_queue.lua.host import CallContext


def functions(context: CallContext) -> dict[str, Callable[[bytes], bytes]]:
    return {"encode": base64.b64encode, "decode": _decode}


def _decode(data: bytes) -> bytes:
    # Line breaks are what e-mail and PEM files hold; anything else outside the alphabet is a mistake.
    try:
        return binascii.a2b_base64(data.translate(None, b"\r\n"), strict_mode=True)
    except binascii.Error as error:
        raise Invalid(f"base64.decode: {error}") from error
