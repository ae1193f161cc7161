"""What was delivered, between the link's thread, which brings it, and a consumer's feeder, which takes it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from wippy_queue.delivery import Delivery
from wippy_queue.driver import Sink


class Inbox:
    """Deliveries that wait for the feeder; while it waits for them they go past it, into its sink.

    Thread safety: every method may be called from any thread, ``take`` by one at a time. Lock order: this one's lock,
    then what the sink takes.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards what follows
        self._waiting: deque[Delivery] = deque()
        self._nudged = False
        self._sink: Sink | None = None  # of the feeder that waits
        self._room = 0  # deliveries that it still takes

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """Hand deliveries to the feeder that waits, or keep them."""
        with self._changed:
            if self._sink is not None and len(deliveries) <= self._room and self._sink(deliveries):
                self._room -= len(deliveries)
                if self._room:
                    return
            else:
                self._sink = None  # what comes now stays behind these
                self._waiting.extend(deliveries)
            self._changed.notify()

    def nudge(self) -> None:
        """Have the feeder come back and look around."""
        with self._changed:
            self._nudged = True
            self._changed.notify()

    def take(self, limit: int, timeout: float, sink: Sink | None = None) -> tuple[list[Delivery], bool]:
        """Return up to ``limit`` deliveries, once there are any; and whether the sink has got some in their place.

        Args:
            limit: deliveries.
            timeout: seconds to wait for the first one.
            sink: where they may go meanwhile; not called any more when this returns.
        """
        with self._changed:
            fed = False
            if not (self._waiting or self._nudged) and timeout > 0:
                self._sink, self._room = sink, limit
                self._changed.wait(timeout)
                self._sink = None
                fed = self._room < limit
            self._nudged = False
            if fed:
                return [], True
            return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))], False

    def drain(self) -> list[Delivery]:
        """Return what nobody has taken."""
        with self._changed:
            waiting = list(self._waiting)
            self._waiting.clear()
            return waiting
