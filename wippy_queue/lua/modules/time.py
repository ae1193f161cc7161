"""What the `time` module of Lua asks Python for: clocks, zones, and a wait that can be cancelled."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from wippy_queue.errors import Canceled, Invalid, NotFound
from wippy_queue.lua.convert import text

if TYPE_CHECKING:
    from wippy_queue.lua.host import CallContext

_LOCAL: Final = b"Local"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# What datetime can express, with a day to spare for the offset; Lua goes a little further than that.
_FIRST: Final = int((datetime(1, 1, 2, tzinfo=UTC) - _EPOCH).total_seconds())
_LAST: Final = int((datetime(9999, 12, 30, tzinfo=UTC) - _EPOCH).total_seconds())
_MONTH: Final = 30 * 86400


def functions(context: CallContext) -> dict[str, Callable[..., Any]]:
    """Return the functions that time.lua calls."""

    def sleep(nanoseconds: int) -> bool:
        context.part()
        seconds = min(max(0.0, nanoseconds / 1e9), threading.TIMEOUT_MAX)
        if context.deadline != math.inf:
            seconds = min(seconds, max(0.0, context.deadline - time.monotonic()))
        if context.cancel.wait(seconds):
            raise Canceled("time.sleep: the worker is stopping")
        return True

    return {
        "now": lambda: (time.time_ns(), time.monotonic_ns()),
        "find_zone": _find_zone,
        "offset": _offset,
        "offset_named": _offset_named,
        "sleep": sleep,
    }


def _find_zone(name: bytes) -> bool:
    _zone(name)
    return True


def _zone(name: bytes) -> ZoneInfo:
    key = text(name)
    try:
        return ZoneInfo(key)
    except (KeyError, ValueError, OSError) as error:  # unknown; no legal key; a folder
        if not _has_zones():
            raise Invalid(
                f"time zone {key!r}: this machine has no time zone database; install it with `pip install tzdata`"
            ) from error
        raise NotFound(f"unknown time zone {key!r}: expected an IANA name such as Europe/Berlin") from error


def _has_zones() -> bool:
    try:
        ZoneInfo("Etc/UTC")
    except KeyError:
        return False
    return True


def _offset(name: bytes, seconds: int) -> tuple[int, str]:
    """Return the seconds east of UTC and the abbreviation that hold in a zone at an instant (Unix seconds)."""
    seconds = min(max(seconds, _FIRST), _LAST)
    if name == _LOCAL:
        local = time.localtime(seconds)
        return local.tm_gmtoff, local.tm_zone
    there = (_EPOCH + timedelta(seconds=seconds)).astimezone(_zone(name))
    offset = there.utcoffset() or timedelta()
    return int(offset.total_seconds()), there.tzname() or ""


def _offset_named(name: bytes, abbreviation: bytes, wall: int) -> int | None:
    """Return the offset that an abbreviation stands for in a zone, or None.

    Args:
        wall: the wall clock that it belongs to, as if it were Unix seconds: an abbreviation is looked for around it,
            for zones have changed the meaning of theirs, and one that is in effect just then wins.
    """
    wanted = abbreviation.decode("latin-1")
    others: list[int] = []
    for months in (0, *range(-6, 0), *range(1, 7)):
        offset, found = _offset(name, wall + months * _MONTH)
        if found == wanted:
            if _offset(name, wall - offset) == (offset, found):
                return offset
            others.append(offset)
    return others[0] if others else None
