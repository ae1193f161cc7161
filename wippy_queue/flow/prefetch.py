"""Step 3: the bounded buffer between the feeder and the workers."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import Protocol

from wippy_queue.delivery import Delivery


class Holder(Protocol):
    """Who takes deliveries out, one at a time."""

    current: Delivery | None


class PrefetchBuffer(queue.Queue[Delivery]):
    """A ``queue.Queue`` of ``prefetch`` deliveries that can be closed, and gives back what it holds then.

    Thread safety: ``wait_room`` and ``put_many`` for the one feeder; ``take`` for any worker; ``close`` for anyone.
    """

    def __init__(self, prefetch: int) -> None:
        super().__init__(prefetch)
        self._closed = False

    def wait_room(self) -> int:
        """Wait until there is room and return how much; 0 once the buffer is closed."""
        with self.not_full:
            while not self._closed and self._qsize() >= self.maxsize:
                self.not_full.wait()
            return 0 if self._closed else self.maxsize - self._qsize()

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

    def take(self, holder: Holder) -> Delivery | None:
        """Wait for the next delivery and put it into the holder's hand; None once the buffer is closed."""
        with self.not_empty:
            while not self._closed and not self._qsize():
                self.not_empty.wait()
            if self._closed:
                return None
            holder.current = delivery = self._get()  # under the lock: a stop finds it here or there
            self.not_full.notify()
            return delivery

    def close(self) -> list[Delivery]:
        """Let everybody go who waits, and return what nobody has taken, in order. Idempotent."""
        with self.mutex:
            self._closed = True
            left = list(self.queue)
            self.queue.clear()
            self.not_empty.notify_all()
            self.not_full.notify_all()
            return left
