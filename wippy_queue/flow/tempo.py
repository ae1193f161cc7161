"""Beside the steps: how fast a consumer's handler is, and what follows from that for its workers."""

from __future__ import annotations

import os
from typing import Final

# Seconds of processor time that the messages which a worker takes at a time may last together: handlers of 1 ms are
# some 10 % faster with four than with one, and it stays well below what has a hand parted (see limits.py).
_SPAN: Final = 4e-3
_WORTH: Final = 150e-6  # seconds of work that are worth waking one more thread: two or three changes of threads


class Tempo:
    """Learns from the workers how long messages take, and says how many they may take at a time.

    A thread that is woken costs more than a quick handler. So while the handler is fast a worker takes several
    messages, and no more workers are awake than the processors can use, or than what waits is worth; when it is slow
    each takes one.

    Args:
        limit: messages that a worker may take at a time; 1: always one.

    Thread safety: any thread; the numbers are hints, an update that gets lost does no harm.
    """

    def __init__(self, limit: int = 1) -> None:
        self._limit = limit
        self._cores = _cores()
        self._each = 0.0  # seconds of processor time of a message
        self.most = 1  # messages that a worker takes at a time

    @property
    def fast(self) -> bool:
        return self.most > 1

    def workers(self, waiting: int) -> int:
        """Return how many workers should be awake for so many messages, while `fast`."""
        return max(1, min(self._cores, int(waiting * self._each / _WORTH)))

    def enough(self, waiting: int) -> int:
        """Return how many workers at work leave nothing to do for one that comes back, while `fast`.

        One more than are to be awake where messages are short: it works while others are between two of them.
        """
        return self.workers(waiting) + (self._each < _WORTH)

    def handled(self, seconds: float, count: int) -> None:
        """Learn that ``count`` messages, none of them slow, took ``seconds`` of processor time together."""
        if self._limit == 1:
            return
        self._each = each = seconds / count
        self.most = max(1, min(self.most * 2, self._limit, int(_SPAN / each) if each else self._limit))

    def slow(self) -> None:
        """Learn that a message takes its time, be it that it waits or that it computes: what was behind it goes back.

        Taken by halves and doubles, as many come together as are mostly handled without such a one among them.
        """
        self.most = max(1, self.most // 2)


def _cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
