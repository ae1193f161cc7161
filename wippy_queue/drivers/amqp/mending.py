"""Headers that pika cannot read: times before 1970 or after the year 9999, as of programs that count milliseconds, and
tables in tables in tables.

It raises in the middle of a frame then, the connection is lost, and the next one gets the same message again.
"""

from __future__ import annotations

import struct
from typing import Final

_HEADER_FRAME: Final = 2
_TABLE: Final = 7 + 2 + 2 + 8  # bytes before the flags: head of the frame, class, weight, size of the body
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS = 1 << 15, 1 << 14, 1 << 13  # flags
_DEEPEST: Final = 10  # of what RabbitMQ adds itself, x-death, there are three
_SIZES: Final = {
    **dict.fromkeys(b"tbB", 1),
    **dict.fromkeys(b"Usu", 2),
    **dict.fromkeys(b"Iif", 4),
    **dict.fromkeys(b"LldT", 8),
    ord("D"): 5,
    ord("V"): 0,
}


def mended(data: bytes) -> bytes:
    """Return what was received, with the times in the headers of the first frame as plain numbers: Unix seconds.

    What is too deep in them becomes bytes, which nobody reads.
    """
    if not data or data[0] != _HEADER_FRAME:
        return data
    frame = bytearray(data)
    (flags,) = struct.unpack_from(">H", frame, _TABLE)
    at = _TABLE + 2
    for flag in (_CONTENT_TYPE, _CONTENT_ENCODING):
        if flags & flag:
            at += 1 + frame[at]
    if flags & _HEADERS:
        (size,) = struct.unpack_from(">I", frame, at)
        _mend(frame, at + 4, at + 4 + size)
    return bytes(frame)


def _mend(frame: bytearray, first: int, last: int) -> None:
    parts = [(first, last, True, 1)]  # tables and arrays; True: with names; how deep
    while parts:
        at, end, named, depth = parts.pop()
        while at < end:
            if named:
                at += 1 + frame[at]
            kind = frame[at]
            at += 1
            if kind in _SIZES:
                if kind == ord("T"):
                    frame[at - 1] = ord("l")
                at += _SIZES[kind]
                continue
            (size,) = struct.unpack_from(">I", frame, at)
            if kind in b"FA" and depth < _DEEPEST:
                parts.append((at + 4, at + 4 + size, kind == ord("F"), depth + 1))
            elif kind in b"FA":
                frame[at - 1] = ord("x")
            at += 4 + size
