"""Booleans, numbers, durations and sizes, as YAML, the environment or Python gave them.

``loose`` means that a text may stand for a number: YAML knows the difference, an environment variable does not.
"""

from __future__ import annotations

import math
import re
import typing
from typing import Any, Final

from wippy_queue.durations import parse_duration

_BYTES: Final = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([A-Za-z]+)", re.ASCII)
_BOOLEANS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NUMBER = re.compile(r"[-+]?\d{1,30}(\.\d{0,30})?([eE][-+]?\d{1,3})?", re.ASCII)


class CuredError(ValueError):
    """The message of this one tells the cure, and nothing of the value."""


def to_bool(value: Any, _loose: bool) -> bool:
    if isinstance(value, str):
        return _BOOLEANS[value.lower()] if value.lower() in _BOOLEANS else _refuse()
    return value if isinstance(value, bool) else _refuse()


def to_int(value: Any, loose: bool) -> int:
    if loose and isinstance(value, str) and _NUMBER.fullmatch(value) and value.lstrip("+-").isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        _refuse()
    if not -(2**63) <= value < 2**63:
        raise CuredError("it must fit into 64 bits")
    return int(value)


def to_float(value: Any, loose: bool) -> float:
    if loose and isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        _refuse()
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    return number if math.isfinite(number) else _refuse()


def to_duration(value: Any, loose: bool) -> float:
    if isinstance(value, str) and not (loose and _NUMBER.fullmatch(value)):
        if value.startswith("-"):
            raise CuredError("it must not be negative")
        if _NUMBER.fullmatch(value):
            raise CuredError("leave the quotes out for seconds, or add a unit")
        try:
            return parse_duration(value)
        except ValueError:
            raise CuredError("units are ns, us, ms, s, m and h") from None
    seconds = to_float(value, loose)
    if seconds < 0:
        raise CuredError("it must not be negative")
    return seconds


def to_size(value: Any, loose: bool) -> int:
    if isinstance(value, str) and not (loose and _NUMBER.fullmatch(value)):
        match = _SIZE.fullmatch(value)
        units = {unit.lower(): factor for unit, factor in _BYTES.items()}
        if match is None or match[2].lower() not in units:
            raise CuredError("units are B, KiB, MiB, GiB, kB, MB and GB")
        value = int(float(match[1]) * units[match[2].lower()])
    return to_int(value, loose)


def _refuse() -> typing.NoReturn:
    raise ValueError
