"""How the attrs class of a driver's configuration or options says what a field may hold.

The loader reads such classes by their annotations: ``str``, ``bool``, ``int``, ``float``, ``Literal[...]``, enums,
``X | None``, nested attrs classes, ``tuple[X, ...]``, ``Mapping[str, X]``, ``EntryId`` and ``Any``. A field without a
default is required, attrs validators run, and ``repr=False`` keeps a secret out of errors. The helpers here make fields
that are more than their annotation::

    @attrs.frozen(kw_only=True)
    class SqliteConfig:
        file: str
        lease: float = duration(30.0, minimum=1.0)
        cache: int = size(8 * 1024**2)
        readers: int = whole(4, minimum=1, maximum=64)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from wippy_queue.ids import EntryId

DURATION = "duration"  # keys of the metadata that the loader looks for
SIZE = "size"
SHAPE = "shape"  # the class that YAML is read as, where the field holds something else
KINDS = "kinds"  # of the entries that a reference may lead to

LONGEST = 1e9  # seconds, about 31 years: what every wait of Python's threading can still take


def duration(default: Any = attrs.NOTHING, *, minimum: float = 0.0, maximum: float = LONGEST) -> Any:
    """Return an attrs field of type ``float`` (or ``float | None``) that reads ``500ms``, ``1h30m`` or seconds.

    Args:
        default: seconds, or None; without one the field is required.
        minimum: the least that is allowed, in seconds, 0 or more.
        maximum: the most that is allowed, in seconds.
    """
    return attrs.field(default=default, validator=_between(minimum, maximum, "s"), metadata={DURATION: True})


def size(default: Any = attrs.NOTHING, *, minimum: int = 0, maximum: int | None = None) -> Any:
    """Return an attrs field of type ``int`` (or ``int | None``) that reads ``64MiB``, ``10kB`` or bytes.

    Args:
        default: bytes, or None; without one the field is required.
        minimum: the least that is allowed, in bytes.
        maximum: the most that is allowed, in bytes; None: no limit.
    """
    return attrs.field(default=default, validator=_between(minimum, maximum, " bytes"), metadata={SIZE: True})


def whole(default: Any = attrs.NOTHING, *, minimum: int = 0, maximum: int | None = None) -> Any:
    """Return an attrs field of type ``int`` (or ``int | None``) between two bounds, both of them allowed.

    Args:
        default: a whole number, or None; without one the field is required.
        minimum: the least that is allowed.
        maximum: the most that is allowed; None: no limit.
    """
    return attrs.field(default=default, validator=_between(minimum, maximum, ""))


class FilePath:
    """The shape of a field that `file_path` makes."""


def file_path() -> Any:
    """Return an attrs field of type ``str`` that names a file; a relative path starts where the entry is declared."""
    return attrs.field(metadata={SHAPE: FilePath})


def reference(*kinds: str) -> dict[str, Any]:
    """Return the metadata of a field that names an entry; a driver is made with the entry itself in its place.

    Args:
        kinds: what the entry may be.
    """
    return {SHAPE: EntryId, KINDS: kinds}


def _between(minimum: float, maximum: float | None, unit: str) -> Callable[[Any, Any, Any], None]:
    least = f"{minimum:.15g}{unit}"
    allowed = f"{least} or more" if maximum is None else f"from {least} to {maximum:.15g}{unit}"

    def check(_instance: Any, attribute: Any, value: Any) -> None:
        if value is None:
            return
        if value < minimum or (maximum is not None and value > maximum):
            raise ValueError(f"'{attribute.name}' must be {allowed}: {value!r}")

    return check
