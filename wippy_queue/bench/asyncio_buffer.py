"""The asyncio variant's prefetch buffer: an ``asyncio.Queue`` that gives and takes many at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from wippy_queue.delivery import Delivery


class LoopBuffer(asyncio.Queue[Delivery]):
    """A queue of ``prefetch`` deliveries that asks for more when half of it is empty.

    Taking many at once needs the deque that `asyncio.Queue` lets a subclass choose, and its list of waiting getters:
    private, the same in CPython 3.11 to 3.14. One getter is woken, who wakes the next where something is left: to wake
    a thousand tasks for what one of them takes away would cost more than the handlers.

    Args:
        prefetch: how many it holds.
        fill: called when there is room for half of them or more.
    """

    def __init__(self, prefetch: int, fill: Callable[[], None]) -> None:
        super().__init__(prefetch)
        self._low = prefetch // 2
        self._fill = fill

    def _init(self, maxsize: int) -> None:
        self._queue = self._items = deque[Delivery]()

    @property
    def room(self) -> int:
        return self.maxsize - len(self._items)

    def put_many(self, deliveries: Sequence[Delivery]) -> None:
        """Put them at the end; there must be room."""
        self._items.extend(deliveries)
        self._wake_one()

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        """Put them at the head, in order."""
        self._items.extendleft(reversed(deliveries))
        self._wake_one()

    async def get_many(self, limit: int) -> list[Delivery]:
        """Wait for a delivery; return it with what else is there, ``limit`` at most."""
        items = self._items
        if not items:
            items.appendleft(await self.get())
        taken = [items.popleft() for _ in range(min(limit, len(items)))]
        if len(items) <= self._low:
            self._fill()
        if items:
            self._wake_one()
        return taken

    def drain(self) -> list[Delivery]:
        """Return everything, in order."""
        left = list(self._items)
        self._items.clear()
        return left

    def _wake_one(self) -> None:
        waiting: Any = self
        if waiting._getters:
            waiting._wakeup_next(waiting._getters)
