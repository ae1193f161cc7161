"""The queues in which messages wait."""

from __future__ import annotations

import math
import threading
import time
from typing import Final

from wippy_queue.drivers.amqp.topology import Declared

_FRESH: Final = 20.0  # seconds for which a declared delay queue is certain to be there; it lives for 60 s longer
_GOOD: Final = 45.0  # seconds after which nothing is put into it any more: it would be gone before that is due
_SLACK: Final = 5.0  # seconds after which what was to leave a delay queue has left


class Delays:
    """Which delay queues this process has declared, and which of them may hold something.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._declared: dict[tuple[str, int], float] = {}  # by where they lead and milliseconds: when, monotonic

    def is_fresh(self, queue: Declared, ms: int) -> bool:
        with self._lock:
            return time.monotonic() - self._declared.get((queue.back, ms), -_FRESH) < _FRESH

    def until(self, queue: Declared, ms: int) -> float:
        """Return until when (monotonic seconds) messages may be put into it without declaring it anew."""
        with self._lock:
            return self._declared.get((queue.back, ms), -math.inf) + _GOOD

    def note(self, queue: Declared, ms: int) -> None:
        """The delay queue was declared just now."""
        with self._lock:
            self._declared[queue.back, ms] = time.monotonic()

    def forget(self, queue: Declared, ms: int) -> None:
        """It was found missing."""
        with self._lock:
            self._declared.pop((queue.back, ms), None)

    def live(self, queue: Declared) -> list[int]:
        """Return the milliseconds of the delay queues that may hold messages of ours."""
        now = time.monotonic()
        with self._lock:
            for (back, ms), since in list(self._declared.items()):
                if now - since > ms / 1000 + _FRESH + _SLACK:
                    del self._declared[back, ms]
            return [ms for back, ms in self._declared if back == queue.back]
