"""Durations as text: ``500ms``, ``10s``, ``1h30m``."""

from __future__ import annotations

import re
from typing import Final

from wippy_queue.errors import Invalid

LONGEST: Final = 1e9  # seconds, 31 years: what may be asked for; timers of the platform take ten times as much

_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)(ns|us|µs|ms|s|m|h)", re.ASCII)


def is_seconds(value: object) -> bool:
    """Return whether it is a time in seconds: a number from 0 to `LONGEST`."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= LONGEST


def check_seconds(value: object, name: str) -> None:
    """Check a time in seconds that somebody has given as ``name``.

    Raises:
        Invalid: it is no number from 0 to `LONGEST`.
    """
    if not is_seconds(value):
        raise Invalid(f"{name}: expected seconds from 0 to {LONGEST:.0f}, found {value!r}")


def parse_duration(text: str) -> float:
    """Return the seconds that ``text`` means; the syntax is Go's, without a sign.

    Raises:
        ValueError: it is no duration; the message says what is expected.
    """
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"expected a duration like 500ms, 10s or 1h30m, found {text!r}")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
