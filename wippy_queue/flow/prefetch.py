"""Step 3: the bounded buffer between the feeder and the workers."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import Final, Protocol

from wippy_queue.delivery import Delivery

_GATHER: Final = 0.005  # seconds


class Holder(Protocol):
    """Who takes deliveries out."""

    hand: Sequence[Delivery]


class PrefetchBuffer(queue.Queue[Delivery]):
    """A ``queue.Queue`` of ``prefetch`` deliveries that can be closed, and gives back what it holds then.

    Thread safety: ``wait_room`` and ``put_many`` for the one feeder; ``take`` for any worker; ``close`` for anyone.
    """

    def __init__(self, prefetch: int, takers: int = 1) -> None:
        super().__init__(prefetch)
        self._closed = False
        self._takers = takers
        self._idle = 0  # how many of them wait
        self._full = False  # the feeder waits for the first room

    def wait_room(self) -> int:
        """Wait until there is room and return how much; 0 once the buffer is closed.

        While more than half of it is full nobody is in a hurry, and each hop between threads costs more than a quick
        handler: so the feeder gathers room for a moment.
        """
        with self.not_full:
            while not self._closed and self._qsize() >= self.maxsize:
                self._full = True
                self.not_full.wait()
            if not self._closed and 2 * self._qsize() > self.maxsize:
                self.not_full.wait(_GATHER)
            return 0 if self._closed else max(0, self.maxsize - self._qsize())

    def put_many(self, deliveries: Sequence[Delivery]) -> bool:
        """Put them all at the end; False, and none is taken over, once the buffer is closed.

        The feeder asks for no more than ``wait_room`` said and is the only one to put, so there is room.
        """
        with self.not_empty:
            if self._closed:
                return False
            self.queue.extend(deliveries)
            self.not_empty.notify(len(deliveries))
            return True

    def take(self, holder: Holder, most: int = 1) -> Sequence[Delivery]:
        """Wait for the next deliveries and put them into the holder's hand; none once the buffer is closed.

        Args:
            holder: the worker.
            most: how many it can use; it gets its share of what is there at most, so that no other one idles.
        """
        with self.not_empty:
            self._idle += 1
            while not self._closed and not self._qsize():
                self.not_empty.wait()
            self._idle -= 1
            if self._closed:
                return ()
            if most > 1:
                most = min(most, -(-self._qsize() // max(self._takers, self._idle + 1)))
            # Under the lock: a stop finds them here or there.
            holder.hand = hand = [self._get() for _ in range(most)]
            if (self._full and most == 1) or 2 * self._qsize() <= self.maxsize:
                self._full = False
                self.not_full.notify()
            return hand

    def put_back(self, deliveries: Sequence[Delivery]) -> bool:
        """Put deliveries that were taken, and not begun, back in front; False once the buffer is closed."""
        with self.not_empty:
            if self._closed:
                return False
            self.queue.extendleft(reversed(deliveries))
            self.not_empty.notify(len(deliveries))
            return True

    def close(self) -> list[Delivery]:
        """Let everybody go who waits, and return what nobody has taken, in order. Idempotent."""
        with self.mutex:
            self._closed = True
            left = list(self.queue)
            self.queue.clear()
            self.not_empty.notify_all()
            self.not_full.notify_all()
            return left
