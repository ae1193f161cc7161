"""Waiting without losing a wake-up, for drivers."""

from __future__ import annotations

import threading


class Signal:
    """A count of something that happened. Read ``count``, look at the world, then wait for the count to move on."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.count = 0

    def set(self) -> None:
        with self._condition:
            self.count += 1
            self._condition.notify_all()

    def wait(self, seen: int, timeout: float) -> bool:
        """Return True as soon as ``count`` is not ``seen``, False after ``timeout`` seconds."""
        with self._condition:
            return self._condition.wait_for(lambda: self.count != seen, timeout)
