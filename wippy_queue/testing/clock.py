"""A clock that stands still until it is moved."""

from __future__ import annotations

import time

from wippy_queue.clock import Clock


class ManualClock(Clock):
    """Begins at the present and moves only when it is told to.

    Thread safety: may be read from any thread; `move` is for one at a time.
    """

    def __init__(self) -> None:
        self._moved = 0.0
        self._time = time.time()
        self._monotonic = time.monotonic()

    def time(self) -> float:
        return self._time + self._moved

    def monotonic(self) -> float:
        return self._monotonic + self._moved

    def move(self, seconds: float) -> None:
        """Let ``seconds`` pass; 0 or more."""
        if seconds < 0:
            raise ValueError(f"a clock does not go back: {seconds!r}")
        self._moved += seconds
