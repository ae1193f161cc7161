"""Who waits for what in this process: consumers for messages, publishers for room, `join` for silence."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from wippy_queue.drivers.signal import Signal
from wippy_queue.drivers.sqlite.options import options_of
from wippy_queue.queues import Queue


class Watch:
    """Counts who waits for what another process may do; its commits are looked for only while somebody does.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0
        self.began = Signal()  # the keeper waits here while nobody else waits

    @property
    def waiting(self) -> bool:
        return self._waiting > 0

    @contextmanager
    def open(self) -> Iterator[None]:
        with self._lock:
            self._waiting += 1
            first = self._waiting == 1
        if first:
            self.began.set()
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1


class LocalQueue:
    """A queue as this process knows it."""

    def __init__(self, number: int, queue: Queue) -> None:
        self.number = number  # in the database
        self.left = Signal()  # messages have left the queue
        self._consumers: list[Signal] = []  # replaced as a whole, never changed
        self.redeclare(queue)

    def redeclare(self, queue: Queue) -> None:
        self.queue = queue
        self.options = options_of(queue)

    def add_consumer(self, signal: Signal) -> None:
        self._consumers = [*self._consumers, signal]

    def remove_consumer(self, signal: Signal) -> None:
        self._consumers = [one for one in self._consumers if one is not signal]

    def arrived(self) -> None:
        for signal in self._consumers:
            signal.set()

    def changed(self) -> None:
        """Somebody else has done something."""
        self.arrived()
        self.left.set()
