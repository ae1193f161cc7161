"""Waiting without losing a wake-up, for drivers."""

from __future__ import annotations

import threading
import time
from typing import Final

JOIN_REST: Final = 0.005  # seconds between two looks of a join, each of which costs as much as some messages


class Signal:
    """A count of something that happened. Read ``count``, look at the world, then wait for the count to move on."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.count = 0

    def set(self) -> None:
        with self._condition:
            self.count += 1
            self._condition.notify_all()

    def wait(self, seen: int, timeout: float, rest: float = 0.0) -> bool:
        """Return True as soon as ``count`` is not ``seen``, False after ``timeout`` seconds.

        Args:
            seen: the count before the look at the world.
            timeout: seconds.
            rest: seconds to let go by in any case, where a look costs something.
        """
        if rest > 0:
            time.sleep(max(0.0, min(rest, timeout)))
            timeout -= rest
        with self._condition:
            return self._condition.wait_for(lambda: self.count != seen, timeout)
