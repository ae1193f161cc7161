"""Values on their way between Lua and Python: only scalars cross, text as bytes."""

from __future__ import annotations

from typing import Any, Final

import msgspec

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


def incoming(value: Scalar) -> Scalar:
    """Return a scalar of Lua as user code in Python gets it: text where it is UTF-8, else bytes."""
    if type(value) is bytes:
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    return value


def is_scalar(value: object) -> bool:
    """Say whether `outgoing` hands a value of user code over unchanged; it refuses some others, and mends some text."""
    kind = type(value)
    if kind is str:
        return value.isascii()  # type: ignore[attr-defined,no-any-return]  # what is no UTF-8 is for msgpack to refuse
    if kind is int:
        return _MIN <= value < _MAX  # type: ignore[operator]
    return value is None or kind is bool or kind is float or kind is bytes


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


def failure_of(error: WippyQueueError) -> tuple[Any, ...]:
    """Return an error as the scalars that the bootstrap makes an errors value of."""
    details = None
    if error.details:
        try:
            details = msgspec.json.encode(error.details, enc_hook=str)
        except Exception:  # whatever the values' own methods raise
            details = None
    kind = "" if error.kind is Kind.UNKNOWN else error.kind.value
    return (False, error.message.encode("utf-8", "replace"), kind.encode(), error.retryable, details)


def error_from(result: tuple[Any, ...]) -> WippyQueueError:
    """Return the error that a call which has failed describes: see `failure` in bootstrap.lua.

    Handlers may use kinds that nobody knows.
    """
    _, kind, message, retryable, details, _ = result
    decoded: Any = None if details is None else msgspec.json.decode(readable(details.encode("latin-1")))
    error = _CLASSES.get(readable(kind.encode("latin-1")), WippyQueueError)(readable(message.encode("latin-1")))
    error.retryable = retryable
    if isinstance(decoded, dict):
        error.details = decoded
    elif decoded:
        error.details = {"details": decoded}
    return error
