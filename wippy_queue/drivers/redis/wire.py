"""Messages as the server keeps them: the body as it is, and a `meta` of which scripts read the front only."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from wippy_queue.message import NO_HEADERS, Encoding, HeaderValue, Message

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Encoding, float, dict[str, HeaderValue] | None]).decode

Argument = bytes | str | int | float
FIELDS_OF_MESSAGE: Final = 3  # in the answers of peek and drop: id, meta, body


def milliseconds(seconds: float) -> int:
    return max(0, int(seconds * 1000 + 0.999))  # up: a delay must not end early


def expiry(message: Message, ttl: float | None) -> bytes:
    """Return when a message of a queue with that time to live expires, in Unix milliseconds; empty: never."""
    expires_at = message.expires_at
    if ttl is not None:  # which begins now: a dead letter was first published long ago
        ends_at = time.time() + ttl
        expires_at = ends_at if expires_at is None else min(expires_at, ends_at)
    return b"" if expires_at is None else b"%d" % max(0, int(expires_at * 1000))


def encode_meta(message: Message, expires: bytes) -> bytes:
    headers = dict(message.headers) if message.headers else None
    return b"%d:%d:%b:" % (message.priority, message.attempts, expires) + _encode(
        (message.encoding, message.timestamp, headers)
    )


def decode(message_id: bytes, meta: bytes, body: bytes) -> Message:
    priority, attempts, expires, rest = meta.split(b":", 3)
    encoding, timestamp, headers = _decode(rest)
    known: Mapping[str, HeaderValue] = NO_HEADERS if headers is None else headers
    return Message(
        id=message_id.decode(),
        body=body,
        encoding=encoding,
        headers=known,
        timestamp=timestamp,
        attempts=int(attempts),
        priority=int(priority),
        expires_at=int(expires) / 1000 if expires else None,
    )


def decode_many(parts: Sequence[Any]) -> list[Message]:
    """Return the messages of an answer that has ``FIELDS_OF_MESSAGE`` fields for each."""
    return [decode(*parts[first : first + FIELDS_OF_MESSAGE]) for first in range(0, len(parts), FIELDS_OF_MESSAGE)]
