"""Counters: how often what went wrong since the engine was made. Successes cost nothing; nobody counts them here."""

from __future__ import annotations

import collections
import threading
from typing import Final

from wippy_queue.events import (
    Event,
    MessageDeadLettered,
    MessageDropped,
    MessageFailed,
    SettleLost,
    WorkerStuck,
)
from wippy_queue.ids import EntryId

COUNTERS: Final = (
    "failed",
    "dead_lettered",
    "parked",
    "dropped_expired",
    "dropped_maxlen",
    "settles_lost",
    "stuck",
)


class Counters:
    """Counts events by queue.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: collections.Counter[tuple[EntryId, str]] = collections.Counter()

    def note(self, event: Event) -> None:
        """Count an event, if it is one that is counted."""
        match event:
            case MessageFailed():
                name = "failed"
            case MessageDeadLettered():
                name = "parked" if event.parked else "dead_lettered"
            case MessageDropped():
                name = f"dropped_{event.reason}"
            case SettleLost():
                name = "settles_lost"
            case WorkerStuck():
                name = "stuck"
            case _:
                return
        with self._lock:
            self._counts[event.queue, name] += 1

    def of(self, queue: EntryId) -> dict[str, int]:
        """Return the counters of a queue, those at 0 included."""
        with self._lock:
            return {name: self._counts[queue, name] for name in COUNTERS}
