"""The messages of one queue that are ready, in the order in which they are taken."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from wippy_queue.clock import Clock
from wippy_queue.delivery import Delivery
from wippy_queue.message import Message

_LANES: Final = 10  # priorities 0..9


class Ready:
    """Lanes by priority, and what will expire of what is in them.

    Args:
        clock: what messages expire by.
        wake_at: called with the monotonic time when `expire` has something to do.

    Thread safety: none; whoever calls holds the queue's lock.
    """

    def __init__(self, clock: Clock, wake_at: Callable[[float], None]) -> None:
        self._clock = clock
        self._wake_at = wake_at
        self.count = 0
        self._lanes: list[deque[Message]] = [deque() for _ in range(_LANES)]
        self._used: list[int] = []  # lanes in which there ever was a message, highest priority first
        # Given back, by priority: heaps of (receipt, message); they go before the lane, in the order of their first pop
        self._returned: list[list[tuple[int, Message]]] = [[] for _ in range(_LANES)]
        self._order = itertools.count()
        self._mortal: dict[int, tuple[int, Message]] = {}  # by id(): messages that will expire, and their order
        self._expiries: list[tuple[float, int, int]] = []  # heap of (due, order, id()), stale ones included
        self._dead: set[int] = set()  # by id(): expired, but still somewhere in a lane or in _returned

    def append(self, message: Message) -> None:
        """Put a message at the tail of its priority."""
        priority = message.priority
        if priority not in self._used:
            self._used = sorted((*self._used, priority), reverse=True)
        self._lanes[priority].append(message)
        self.count += 1
        if message.expires_at is not None:
            self._watch(message, message.expires_at)

    def give_back(self, delivery: Delivery) -> None:
        """Put what was taken back in front, among others that were given back in their old order."""
        message = delivery.message
        heapq.heappush(self._returned[message.priority], (delivery.receipt, message))
        self.count += 1
        if message.expires_at is not None:
            self._watch(message, message.expires_at)

    def take(self, limit: int) -> list[Delivery]:
        """Take up to ``limit`` messages, next first."""
        taken: list[Delivery] = []
        while len(taken) < limit and self.count:
            priority = self._priority(self._used)
            if self._returned[priority] or self._dead or self._mortal:
                taken.append(self._pop(self._used))
            else:  # nothing comes before what is in this lane
                lane, order = self._lanes[priority], self._order
                several = min(limit - len(taken), len(lane))
                taken += [Delivery(lane.popleft(), next(order)) for _ in range(several)]
                self.count -= several
        return taken

    def take_last(self, limit: int) -> list[Message]:
        """Take up to ``limit`` messages: of the lowest priority, the oldest first."""
        return [self._pop(self._used[::-1]).message for _ in range(min(limit, self.count))]

    def expire(self) -> list[Message]:
        """Take out what has expired."""
        expired: list[Message] = []
        if not self._expiries:
            return expired
        now = self._clock.monotonic()
        while self._expiries and self._expiries[0][0] <= now:
            _, order, key = heapq.heappop(self._expiries)
            if key in self._mortal and self._mortal[key][0] == order:
                _, message = self._mortal.pop(key)
                self._dead.add(key)  # where it is, is not known: it is skipped there later
                self.count -= 1
                expired.append(message)
        return expired

    def next_expiry(self) -> float:
        """Return when (monotonic seconds) `expire` may have something to do."""
        return self._expiries[0][0] if self._expiries else math.inf

    def clear(self) -> None:
        for priority in self._used:
            self._lanes[priority].clear()
            self._returned[priority].clear()
        self._expiries.clear()
        self._mortal.clear()
        self._dead.clear()
        self.count = 0

    def __iter__(self) -> Iterator[Message]:
        """Yield the messages, next first."""
        for priority in self._used:
            returned = (message for _, message in sorted(self._returned[priority]))
            for message in itertools.chain(returned, self._lanes[priority]):
                if id(message) not in self._dead:
                    yield message

    def _watch(self, message: Message, ends_at: float) -> None:
        order = next(self._order)
        self._mortal[id(message)] = (order, message)
        due = self._clock.monotonic() + max(0.0, ends_at - self._clock.time())
        heapq.heappush(self._expiries, (due, order, id(message)))
        if len(self._expiries) > 2 * len(self._mortal) + 1000:  # most are stale: they were handled long before
            alive = {order for order, _ in self._mortal.values()}
            self._expiries = [entry for entry in self._expiries if entry[1] in alive]
            heapq.heapify(self._expiries)
        self._wake_at(due)

    def _pop(self, priorities: list[int]) -> Delivery:
        """Take one message of the first of these priorities that has any; there is one."""
        while True:
            priority = self._priority(priorities)
            if self._returned[priority]:
                receipt, message = heapq.heappop(self._returned[priority])
            else:
                message = self._lanes[priority].popleft()
                receipt = next(self._order)
            if self._dead and id(message) in self._dead:
                self._dead.discard(id(message))
                continue
            if self._mortal:
                self._mortal.pop(id(message), None)
            self.count -= 1
            return Delivery(message, receipt)

    def _priority(self, priorities: list[int]) -> int:
        for priority in priorities:
            if self._lanes[priority] or self._returned[priority]:
                return priority
        raise AssertionError("the count of ready messages is wrong")
