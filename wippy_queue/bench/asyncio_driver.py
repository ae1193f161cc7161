"""The asyncio variant's queues by name, and the way to them from other threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from wippy_queue.bench.asyncio_queue import LoopDelivery, LoopQueue
from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.errors import QueueFull
from wippy_queue.message import Message
from wippy_queue.queues import Queue


class LoopDriver:
    """What the engine's publisher and burial ask of a driver.

    Thread safety: ``publish`` and ``settle`` from any thread; the rest on the loop's, or before it runs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, shared: bool) -> None:
        self._loop = loop
        self._delivery = Delivery if shared else LoopDelivery  # shared: handlers in threads may settle by hand
        self._queues: dict[str, LoopQueue] = {}
        self._thread: int | None = None  # the loop's
        self._posted: deque[Callable[[], object]] = deque()
        self._scheduled = False

    def declare(self, queue: Queue) -> None:
        if queue.name not in self._queues:
            self._queues[queue.name] = LoopQueue(queue, self._loop, self._delivery)

    def of(self, queue: Queue) -> LoopQueue:
        return self._queues[queue.name]

    def adopt(self) -> None:
        """What the loop's thread calls first."""
        self._thread = threading.get_ident()

    def publish(self, queue: Queue, messages: Sequence[Message], timeout: float) -> None:
        """Store the messages; on the loop's thread `QueueFull` comes at once, and `LoopQueue.room` waits."""
        target = self.of(queue)
        if threading.get_ident() == self._thread:
            target.publish(messages)
        elif not target.bounded:
            self._post(partial(target.publish, messages))
        else:
            waiting = asyncio.run_coroutine_threadsafe(target.publish_when_there_is_room(messages), self._loop)
            try:
                waiting.result(timeout)
            except concurrent.futures.TimeoutError:
                if waiting.cancel() or waiting.cancelled():
                    raise QueueFull(f"queue {queue.id} is full") from None
                waiting.result()

    def settle(self, queue: Queue, settlements: Sequence[Settlement]) -> None:
        target = self.of(queue)
        if threading.get_ident() == self._thread:
            target.settle(settlements)
        else:
            self._post(partial(target.settle, settlements))

    def _post(self, action: Callable[[], object]) -> None:
        """Have the loop do it, in order; it is woken once for all that is posted until it comes to it."""
        self._posted.append(action)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon_threadsafe(self._do_posted)

    def _do_posted(self) -> None:
        self._scheduled = False  # before the first look: what is posted from now on is seen here, or scheduled again
        while self._posted:
            self._posted.popleft()()
