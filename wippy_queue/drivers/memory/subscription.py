"""A consumer's share of a memory queue; the queue does the work."""

from __future__ import annotations

from collections.abc import Sequence

from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.driver import Sink
from wippy_queue.drivers.memory.queue import MemoryQueue


class Subscription:
    """One consumer's share of a memory queue."""

    def __init__(self, queue: MemoryQueue, window: int) -> None:
        self._queue = queue
        self.window = window
        self.cancelled = False
        self.wake = queue.new_wake()  # receive waits here. What follows is guarded by the queue's lock
        self.starved = False  # receive waits although messages may be there: the window is full
        self.limit = 0  # of the call of receive
        self.sink: Sink | None = None  # the same
        self.unsettled: dict[int, Delivery] = {}  # by receipt
        queue.subscriptions.add(self)

    def room(self) -> int:
        """Return how many more messages it may be given. Caller holds the queue's lock."""
        return min(self.limit, self.window - len(self.unsettled))

    def receive(self, limit: int, timeout: float) -> list[Delivery]:
        return self._queue.receive(self, limit, timeout)

    def receive_into(self, sink: Sink, limit: int, timeout: float) -> list[Delivery]:
        return self._queue.receive(self, limit, timeout, sink)

    def begin(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        unsettled = self.unsettled
        return [delivery for delivery in deliveries if delivery.receipt in unsettled]

    def retract(self, deliveries: Sequence[Delivery]) -> None:
        """Nothing is noted of a handler that starts: a crash takes the messages along."""

    def settle(self, settlements: Sequence[Settlement]) -> None:
        self._queue.settle(self, settlements)

    def cancel(self) -> list[Delivery]:
        self._queue.cancel(self)
        return []

    def close(self, timeout: float) -> None:
        self.cancel()
        self._queue.close_subscription(self)
