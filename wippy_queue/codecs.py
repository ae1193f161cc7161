"""Bodies to bytes and back, in Python; handlers in Lua have their own side of it in `lua/`."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from wippy_queue.errors import Invalid
from wippy_queue.message import Encoding, Message

MAX_DEPTH = 128  # levels of nesting, the same as in Lua

_SIMPLE = frozenset({str, bool, type(None)})  # types whose every value can be encoded, or is refused by the encoder
_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()


def encode_body(body: Any, codec: Encoding) -> tuple[bytes, Encoding]:
    """Return the encoded body and how it is encoded.

    Args:
        body: a JSON value, or bytes, which travel as they are.
        codec: the queue's, ``json`` or ``msgpack``; bytes inside a structure need the latter.

    Raises:
        Invalid: the body is empty (None, {} or []) or holds something that the codec has no form for.
    """
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body), "binary"
    if body is None or (isinstance(body, (dict, list)) and not body):
        raise Invalid(f"body: a message must not be empty, found {body!r}")
    if not _is_plain(body, codec == "msgpack", MAX_DEPTH):
        raise Invalid(_first_fault(body, codec, "body", MAX_DEPTH))
    try:
        return (_msgpack if codec == "msgpack" else _json).encode(body), codec
    except (UnicodeEncodeError, msgspec.MsgspecError, RecursionError) as error:
        raise Invalid(f"body: cannot be encoded as {codec}: {error}") from error


def check_plain(value: Any, path: str) -> None:
    """Check that a value is a JSON value, or bytes, or has bytes inside.

    Raises:
        Invalid: it is not; the message says where, below ``path``.
    """
    if not isinstance(value, bytes) and not _is_plain(value, True, MAX_DEPTH):
        raise Invalid(_first_fault(value, "msgpack", path, MAX_DEPTH))


def decode_body(message: Message) -> Any:
    """Return the body of a message as Python values.

    Raises:
        Invalid: the bytes are not what the message says they are.
    """
    if message.encoding == "binary":
        return message.body
    try:
        if message.encoding == "msgpack":
            return msgspec.msgpack.decode(message.body)
        return msgspec.json.decode(message.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"message {message.id}: the body is no {message.encoding}: {error}") from error


def _is_plain(value: Any, binary: bool, depth: int) -> bool:
    kind: Any = type(value)
    if kind in _SIMPLE:
        return True
    if kind is int:
        return bool(-(2**63) <= value < 2**63)
    if kind is float:
        return math.isfinite(value)
    if depth == 0:
        return False
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or not (type(item) in _SIMPLE or _is_plain(item, binary, depth - 1)):
                return False
        return True
    if kind is list:
        for item in value:
            if type(item) not in _SIMPLE and not _is_plain(item, binary, depth - 1):
                return False
        return True
    return binary and kind is bytes


def _first_fault(value: Any, codec: str, path: str, depth: int) -> str:
    """Say what `_is_plain` refused; only called after it did."""
    if depth == 0 and isinstance(value, (dict, list)):
        return f"{path.split('.')[0].split('[')[0]}: nested deeper than {MAX_DEPTH} levels"
    if type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                return f"{path}: keys must be text, found {key!r}"
            if not _is_plain(item, codec == "msgpack", depth - 1):
                return _first_fault(item, codec, f"{path}.{key}", depth - 1)
    if type(value) is list:
        for index, item in enumerate(value):
            if not _is_plain(item, codec == "msgpack", depth - 1):
                return _first_fault(item, codec, f"{path}[{index}]", depth - 1)
    if type(value) is float:
        return f"{path}: expected a finite number, found {value!r}"
    if type(value) is int:
        return f"{path}: expected an integer of at most 64 bits, found one of {value.bit_length()} bits"
    if isinstance(value, bytes):
        return f"{path}: bytes inside a structure need a queue with codec: msgpack"
    return (
        f"{path}: expected a JSON value (dict, list, str, int, float, bool, None), found {type(value).__name__};"
        " convert it before you publish"
    )
