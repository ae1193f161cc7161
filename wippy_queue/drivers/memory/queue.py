"""One queue in memory: what is ready, a heap of what is delayed, and what is in consumers' hands."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.driver import Sink
from wippy_queue.drivers.memory.options import options_of
from wippy_queue.drivers.memory.ready import Ready
from wippy_queue.errors import Conflict, QueueFull, Unavailable
from wippy_queue.message import Message
from wippy_queue.queues import DropReason, Queue, QueueInfo

if TYPE_CHECKING:
    from wippy_queue.drivers.memory.driver import MemoryDriver
    from wippy_queue.drivers.memory.subscription import Subscription

_log = logging.getLogger(__name__)

_DROP_RETRY: Final = 1.0  # seconds until messages are offered again to an on_drop that raised


class MemoryQueue:
    """The messages of one queue.

    Thread safety: every method may be called from any thread; one lock guards all of it.
    """

    def __init__(self, driver: MemoryDriver, queue: Queue) -> None:
        self._driver = driver
        self._clock = driver.clock  # what is due; how long a caller waits is real time
        self._lock = threading.Lock()  # guards everything below
        self._waiting: deque[Subscription] = deque()  # in `receive`, each for its turn
        self._room = threading.Condition(self._lock)  # publishers wait here
        self._idle = threading.Condition(self._lock)  # join waits here
        self._ready = Ready(driver.clock, driver.wake_at)
        self._delayed: list[tuple[float, int, Message]] = []  # heap of (due, order, message)
        self._order = itertools.count()
        self._dropping: list[tuple[Message, DropReason]] = []  # dropped, not yet taken over by on_drop
        self._retry_drop_at = 0.0
        self._in_flight = 0
        self.subscriptions: set[Subscription] = set()
        self._queue = queue
        self._options = options_of(queue)

    def redeclare(self, queue: Queue) -> None:
        with self._lock:
            self._queue = queue
            self._options = options_of(queue)
            self._room.notify_all()

    # publishing

    def publish(self, messages: Sequence[Message], timeout: float) -> None:
        with self._lock:
            self._advance_locked()
            limit, overflow = self._options.max_length, self._options.overflow
            if limit == 0 or self._count() + len(messages) <= limit:
                self._admit(messages)
            elif overflow == "drop_oldest":
                self._admit(messages)
                self._drop_oldest(self._ready.count + len(self._delayed) - limit)
            elif overflow == "reject":
                raise self._full(messages, 0)
            else:
                self._admit_as_there_is_room(messages, timeout)
        if self._dropping:
            self._hand_over()

    def _admit_as_there_is_room(self, messages: Sequence[Message], timeout: float) -> None:
        """Caller holds the lock."""
        deadline = time.monotonic() + timeout
        accepted = 0
        while True:
            if not self._driver.running:
                raise Unavailable(
                    f"driver {self._driver.id} was stopped while a publish to {self._queue.id} waited for room",
                    details={"accepted": [message.id for message in messages[:accepted]]},
                )
            room = max(0, self._options.max_length - self._count())
            if room or not self._options.max_length:
                part = messages[accepted : accepted + room] if self._options.max_length else messages[accepted:]
                self._admit(part)
                accepted += len(part)
            if accepted == len(messages):
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._full(messages, accepted)
            self._room.wait(left)

    def _full(self, messages: Sequence[Message], accepted: int) -> QueueFull:
        return QueueFull(
            f"queue {self._queue.id} is full: max_length is {self._options.max_length}, overflow:"
            f" {self._options.overflow}; consume faster, or raise max_length",
            details={"accepted": [message.id for message in messages[:accepted]]},
        )

    def _admit(self, messages: Iterable[Message]) -> None:
        """Caller holds the lock."""
        arrived = 0
        ttl = self._options.message_ttl
        if ttl is not None:  # which begins now: a dead letter was first published long ago
            ends_at = self._clock.time() + ttl
            messages = [_ending(message, ends_at) for message in messages]
        for message in messages:
            if message.delay > 0:
                self._push_delayed(message, message.delay)
            else:
                self._ready.append(message)
                arrived += 1
        self._announce(arrived)

    def _push_delayed(self, message: Message, delay: float) -> None:
        due = self._clock.monotonic() + delay
        heapq.heappush(self._delayed, (due, next(self._order), message))
        self._driver.wake_at(due)

    # time

    def advance(self) -> float:
        """Bring the queue up to date; return when it wants to be looked at again."""
        with self._lock:
            self._advance_locked()
            due = min(self._delayed[0][0] if self._delayed else math.inf, self._ready.next_expiry())
        if self._dropping:
            due = min(due, self._hand_over())
        return due

    def _advance_locked(self) -> None:
        arrived = 0
        if self._delayed:
            now = self._clock.monotonic()
            while self._delayed and self._delayed[0][0] <= now:
                self._ready.append(heapq.heappop(self._delayed)[2])
                arrived += 1
        if expired := self._ready.expire():
            self._dropping += [(message, "expired") for message in expired]
            self._driver.wake_at(self._clock.monotonic())
        if arrived:
            self._announce(arrived)  # what has expired while it was delayed is for nobody

    # dropping: first a message is taken out, then handed to on_drop without the lock, then forgotten

    def _drop_oldest(self, count: int) -> None:
        """Drop ``count`` waiting messages: the lowest priority and the oldest first, delayed ones last."""
        dropped = self._ready.take_last(count)
        while len(dropped) < count and self._delayed:
            dropped.append(heapq.heappop(self._delayed)[2])
        self._dropping += [(message, "maxlen") for message in dropped]

    def _hand_over(self) -> float:
        """Give what was dropped to on_drop, without the lock; return when to try again."""
        with self._lock:
            now = self._clock.monotonic()
            if now < self._retry_drop_at:
                return self._retry_drop_at
            dropping, self._dropping = self._dropping, []
            self._in_flight += len(dropping)  # join waits for them
            on_drop = self._queue.on_drop
        failed: list[tuple[Message, DropReason]] = []
        reasons: tuple[DropReason, ...] = ("expired", "maxlen")
        for reason in reasons:
            group = [message for message, why in dropping if why == reason]
            if not group or on_drop is None:
                continue
            try:
                on_drop(group, reason)
            except Exception as error:
                _log.warning(
                    "dropped messages could not be dead-lettered; they stay and are offered again",
                    extra={"fields": {"queue": self._queue.id, "count": len(group), "error": str(error)}},
                )
                failed.extend((message, reason) for message in group)
        with self._lock:
            self._in_flight -= len(dropping)
            self._dropping = failed + self._dropping
            self._after_leaving()
            if not failed:
                return math.inf
            self._retry_drop_at = self._clock.monotonic() + _DROP_RETRY
        self._driver.wake_at(self._retry_drop_at)
        return self._retry_drop_at

    # consuming

    def receive(
        self, subscription: Subscription, limit: int, timeout: float, sink: Sink | None = None
    ) -> list[Delivery]:
        deadline: float | None = None
        with self._lock:
            subscription.limit, subscription.sink = limit, sink
            while subscription.limit and not subscription.cancelled:
                self._advance_locked()
                room = subscription.room()
                if taken := self._take_for(subscription, room):
                    return taken
                now = time.monotonic()
                if deadline is None:
                    deadline = now + timeout
                if now >= deadline:
                    break
                subscription.starved = room <= 0
                if not subscription.starved:
                    self._waiting.append(subscription)
                subscription.wake.wait(deadline - now)
                subscription.starved = False
                if subscription in self._waiting:
                    self._waiting.remove(subscription)
            return []

    def _announce(self, count: int) -> None:
        """Messages have become ready: wake those who wait for them, or hand them over. Caller holds the lock."""
        share = -(-count // max(1, len(self._waiting)))
        while count > 0 and self._waiting:
            subscription = self._waiting.popleft()
            if subscription.sink is None:
                count -= 1
            else:
                fed = self._feed(subscription, subscription.sink, share)
                count -= fed
                if subscription.room() > 0:
                    self._waiting.append(subscription)
                    if fed:
                        continue
                    return  # nothing is ready any more
            subscription.wake.notify()

    def _feed(self, subscription: Subscription, sink: Sink, share: int) -> int:
        """Put messages where the subscription wants them, in this thread; return how many. Caller holds the lock."""
        taken = self._take_for(subscription, min(share, subscription.room()))
        subscription.limit -= len(taken)
        if not taken or sink(taken):
            return len(taken)
        subscription.limit = 0  # it is being closed
        self._in_flight -= len(taken)
        for delivery in taken:
            del subscription.unsettled[delivery.receipt]
            self._ready.give_back(delivery)
        return 0

    def _take_for(self, subscription: Subscription, count: int) -> list[Delivery]:
        """Take up to ``count`` ready messages into the subscription's hands. Caller holds the lock."""
        taken = self._ready.take(count)
        self._in_flight += len(taken)
        for delivery in taken:
            subscription.unsettled[delivery.receipt] = delivery
        return taken

    def settle(self, subscription: Subscription, settlements: Sequence[Settlement]) -> None:
        done: list[Settlement] = []
        lost: list[Settlement] = []  # the subscription was closed meanwhile, and gave the message back
        with self._lock:
            arrived = 0
            for settlement in settlements:
                delivery = settlement.delivery
                if subscription.unsettled.pop(delivery.receipt, None) is None:
                    lost.append(settlement)
                    continue
                done.append(settlement)
                if settlement.action == "ack":
                    continue
                if settlement.action == "release":
                    self._ready.give_back(delivery)
                    arrived += 1
                elif settlement.delay > 0:
                    self._push_delayed(settlement.message or delivery.message, settlement.delay)
                else:
                    self._ready.append(settlement.message or delivery.message)
                    arrived += 1
            self._in_flight -= len(done)
            if arrived:
                self._advance_locked()  # what has expired in a handler's hands is for nobody
                self._announce(arrived)
            if subscription.starved:
                subscription.wake.notify()
            self._after_leaving()
        for settlement in done:
            settlement.finish()
        for settlement in lost:
            settlement.finish(self._too_late())

    def _too_late(self) -> Conflict:
        return Conflict(f"queue {self._queue.id}: settled after its subscription was closed; the message comes again")

    def _after_leaving(self) -> None:
        """Wake who waits for messages to leave. Caller holds the lock."""
        if self._options.max_length:
            self._room.notify_all()
        if not self._in_flight and self._count() == 0:
            self._idle.notify_all()

    def close_subscription(self, subscription: Subscription) -> None:
        with self._lock:
            self.subscriptions.discard(subscription)
            for delivery in subscription.unsettled.values():
                self._in_flight -= 1
                self._ready.give_back(delivery)
            arrived = len(subscription.unsettled)
            subscription.unsettled.clear()
            self._announce(arrived)

    def cancel(self, subscription: Subscription) -> None:
        with self._lock:
            subscription.cancelled = True
            if subscription in self._waiting:
                self._waiting.remove(subscription)
            subscription.wake.notify()
            self._announce(self._ready.count)  # it may have been told of what another one will have to take

    def new_wake(self) -> threading.Condition:
        return threading.Condition(self._lock)

    # looking

    def _count(self) -> int:
        return self._ready.count + len(self._delayed) + self._in_flight + len(self._dropping)

    def info(self) -> QueueInfo:
        self.advance()
        with self._lock:
            in_flight = self._in_flight + len(self._dropping)
            return QueueInfo(
                message_count=self._count(),
                ready=self._ready.count,
                in_flight=in_flight,
                delayed=len(self._delayed),
                consumer_count=len(self.subscriptions),
            )

    def peek(self, limit: int) -> list[Message]:
        with self._lock:
            self._advance_locked()
            waiting = list(itertools.islice(self._ready, limit))
            waiting.extend(message for _, _, message in heapq.nsmallest(limit - len(waiting), self._delayed))
            return waiting

    def purge(self) -> int:
        with self._lock:
            count = self._ready.count + len(self._delayed)
            self._ready.clear()
            self._delayed.clear()
            self._after_leaving()
            return count

    def wait_idle(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        with self._lock:
            while self._count():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                if not self._driver.running:
                    raise Unavailable(f"driver {self._driver.id} was stopped while a join waited for {self._queue.id}")
                self._idle.wait(left)
            return True

    def close(self) -> None:
        for subscription in list(self.subscriptions):
            subscription.close(0.0)
        with self._lock:
            self._room.notify_all()
            self._idle.notify_all()


def _ending(message: Message, ends_at: float) -> Message:
    """Return the message with an end, unless it has a sooner one."""
    if message.expires_at is not None and message.expires_at <= ends_at:
        return message
    return msgspec.structs.replace(message, expires_at=ends_at)
