"""Values on their way between Lua and Python: only scalars cross, text as bytes."""

from __future__ import annotations

from typing import Final

from wippy_queue import errors
from wippy_queue.errors import Internal, Invalid, Kind, WippyQueueError

Scalar = bool | int | float | str | bytes | None

_CLASSES: Final = {
    error.default_kind.value: error
    for error in (
        errors.NotFound,
        errors.AlreadyExists,
        errors.Invalid,
        errors.PermissionDenied,
        errors.Unavailable,
        errors.Internal,
        errors.Canceled,
        errors.Conflict,
        errors.Timeout,
        errors.RateLimited,
    )
}
_MIN, _MAX = -(2**63), 2**63


def text(data: bytes) -> str:
    """Return a Lua string as text.

    Raises:
        Invalid: it is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"expected UTF-8 text, found {data[:40]!r}") from error


def readable(data: bytes) -> str:
    """Return a Lua string for people to read, whatever is in it."""
    return data.decode("utf-8", "replace")


def outgoing(value: object) -> bool | int | float | bytes | None:
    """Return a result of a Python function as Lua takes it.

    Raises:
        Internal: it is no scalar, or an integer beyond 64 bits.
    """
    kind = type(value)
    if value is None or kind is bool or kind is float or kind is bytes:
        return value  # type: ignore[return-value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    if kind is int and _MIN <= value < _MAX:  # type: ignore[operator]
        return value  # type: ignore[return-value]
    raise Internal(f"cannot hand a value of type {type(value).__name__} to Lua")


def kind_to_lua(kind: Kind) -> str:
    return "" if kind is Kind.UNKNOWN else kind.value


def error_of_kind(kind: bytes, message: str) -> WippyQueueError:
    """Return an error of the class that belongs to a kind of Lua; handlers may use kinds that nobody knows."""
    return _CLASSES.get(readable(kind), WippyQueueError)(message)
