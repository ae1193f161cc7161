"""The drivers, one folder each; `driver.py` is the contract that they keep."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Final

from wippy_queue.driver import DriverKind

_NAMES: Final = ("memory", "sqlite", "amqp", "redis", "sqs")


class _Kinds(Mapping[str, DriverKind]):
    """The kinds of drivers by name; one is imported when it is asked for, for an application uses one or two."""

    def __getitem__(self, kind: str) -> DriverKind:
        prefix, _, name = kind.rpartition(".")
        if prefix != "queue.driver" or name not in _NAMES:
            raise KeyError(kind)
        found: DriverKind = importlib.import_module(f"{__name__}.{name}").KIND
        return found

    def __contains__(self, kind: object) -> bool:
        return kind in set(self)

    def __iter__(self) -> Iterator[str]:
        return (f"queue.driver.{name}" for name in _NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


DRIVER_KINDS: Final[Mapping[str, DriverKind]] = _Kinds()
