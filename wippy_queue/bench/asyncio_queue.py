"""The asyncio variant's queue in memory: what the memory driver does, for one thread, so without a lock.

Left out, for no workload has them: ``overflow`` but for ``block``, and the expiry of messages that nobody takes.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.drivers.memory import MemoryQueueOptions
from wippy_queue.errors import QueueFull
from wippy_queue.message import Message
from wippy_queue.queues import Queue, QueueInfo

_LANES = 10  # priorities 0..9


class LoopDelivery(Delivery, eq=False, gc=False):
    """A delivery whose gate only one thread ever looks at, so it is no lock."""

    _gate: Any = None

    def claim(self) -> bool:
        if self._gate:
            return False
        self._gate = True
        return True

    @property
    def claimed(self) -> bool:
        return self._gate is not None


class LoopQueue:
    """The messages of one queue: lanes by priority, what was released, a heap of what waits, what is unsettled.

    Thread safety: the loop's thread alone.
    """

    def __init__(
        self, queue: Queue, loop: asyncio.AbstractEventLoop, delivery: Callable[[Message, int], Delivery]
    ) -> None:
        self.queue = queue
        self.on_change: Callable[[], None] | None = None  # called when something may be taken
        self.unsettled: dict[int, Delivery] = {}
        options = queue.options
        self._max_length = options.max_length if isinstance(options, MemoryQueueOptions) else 0
        self._loop = loop
        self._delivery = delivery
        self._lanes: list[deque[Message]] = [deque() for _ in range(_LANES)]
        self._returned: list[list[tuple[int, Message]]] = [[] for _ in range(_LANES)]  # heaps, before the lanes
        self._delayed: list[tuple[float, int, Message]] = []
        self._order = itertools.count()
        self._ready = 0
        self._timer: asyncio.TimerHandle | None = None
        self._idle: list[asyncio.Future[None]] = []
        self._room: deque[asyncio.Future[None]] = deque()

    def publish(self, messages: Sequence[Message]) -> None:
        """Store the messages, all or none. Raises QueueFull when there is no room; `room` waits for some."""
        if self._max_length and len(self) + len(messages) > self._max_length:
            raise QueueFull(f"queue {self.queue.id} is full", details={"room": str(self.queue.id)})
        for message in messages:
            if message.delay > 0:
                self._push_delayed(message, message.delay)
            else:
                self._lanes[message.priority].append(message)
                self._ready += 1
        self._tell()

    @property
    def bounded(self) -> bool:
        return self._max_length > 0

    async def publish_when_there_is_room(self, messages: Sequence[Message]) -> None:
        """Store the messages, one by one where there is no room for all at once."""
        for message in messages:
            while True:
                try:
                    self.publish([message])
                    break
                except QueueFull:
                    await self.room()

    async def room(self) -> None:
        """Wait until a message has left."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._room.append(waiter)
        await waiter

    def take(self, limit: int) -> list[Delivery]:
        """Hand out up to ``limit`` messages, in order."""
        taken: list[Delivery] = []
        while len(taken) < limit and self._ready:
            priority = next(p for p in range(_LANES - 1, -1, -1) if self._lanes[p] or self._returned[p])
            returned, lane, order = self._returned[priority], self._lanes[priority], self._order
            if returned:
                receipt, message = heapq.heappop(returned)
                taken.append(self._delivery(message, receipt))
                self._ready -= 1
                continue
            several = min(limit - len(taken), len(lane))
            taken += [self._delivery(lane.popleft(), next(order)) for _ in range(several)]
            self._ready -= several
        self.unsettled.update((delivery.receipt, delivery) for delivery in taken)
        return taken

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Remove claimed deliveries."""
        for delivery in deliveries:
            self.unsettled.pop(delivery.receipt, None)
        self._left()
        self._tell()

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """What `Subscription.settle` is for drivers."""
        for settlement in settlements:
            delivery = settlement.delivery
            if self.unsettled.pop(delivery.receipt, None) is None:
                continue
            message = settlement.message or delivery.message
            if settlement.action == "release":
                heapq.heappush(self._returned[message.priority], (delivery.receipt, message))
                self._ready += 1
            elif settlement.action == "requeue" and settlement.delay > 0:
                self._push_delayed(message, settlement.delay)
            elif settlement.action == "requeue":
                self._lanes[message.priority].append(message)
                self._ready += 1
            settlement.finish()
        self._left()
        self._tell()

    async def wait_idle(self) -> None:
        """Return when nothing is ready, delayed or in flight."""
        while len(self):
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(waiter)
            await waiter

    def info(self) -> QueueInfo:
        return QueueInfo(
            message_count=len(self), ready=self._ready, in_flight=len(self.unsettled), delayed=len(self._delayed)
        )

    def peek(self) -> list[Message]:
        """Return the waiting messages, next first."""
        lanes = range(_LANES - 1, -1, -1)
        ready = [message for p in lanes for message in [*(m for _, m in sorted(self._returned[p])), *self._lanes[p]]]
        return ready + [message for _, _, message in sorted(self._delayed)]

    def __len__(self) -> int:
        return self._ready + len(self._delayed) + len(self.unsettled)

    def _push_delayed(self, message: Message, delay: float) -> None:
        heapq.heappush(self._delayed, (self._loop.time() + delay, next(self._order), message))
        self._set_timer()

    def _set_timer(self) -> None:
        due = self._delayed[0][0] if self._delayed else math.inf
        if self._timer is not None and self._timer.when() <= due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if due == math.inf else self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._delayed and self._delayed[0][0] <= now:
            message = heapq.heappop(self._delayed)[2]
            self._lanes[message.priority].append(message)
            self._ready += 1
        self._set_timer()
        self._tell()

    def _tell(self) -> None:
        if self._ready and self.on_change is not None:
            self.on_change()

    def _left(self) -> None:
        while self._room:
            _resolve(self._room.popleft())
        if self._idle and not len(self):
            idle, self._idle = self._idle, []
            for waiter in idle:
                _resolve(waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
