"""A consumer's share of a queue: polls for the room that is free, keeps what it holds invisible, settles in batches."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.drivers.sqs import messages
from wippy_queue.drivers.sqs.batches import BATCH, Item
from wippy_queue.drivers.sqs.lease import Lease
from wippy_queue.drivers.sqs.options import LONGEST_VISIBILITY
from wippy_queue.drivers.sqs.pool import Pool
from wippy_queue.drivers.sqs.queue import SqsQueue, delete_item, hide_item, send_item
from wippy_queue.errors import Conflict, Invalid, Unavailable, WippyQueueError
from wippy_queue.message import Message

_log = logging.getLogger(__name__)

_POLLS: Final = 3  # under way for one subscription at most, while the queue gives all that is asked for
_FIFO_POLLS: Final = 8  # the same, where each brings one message
_CROWDED_WAIT: Final = 1.0  # seconds of a long poll while other queues wait for a thread
_LEAST_PAUSE: Final = 0.2  # seconds between polls that bring nothing: some endpoints do not wait as they are asked to
_LONGEST_PAUSE: Final = 5.0  # seconds between polls that fail
_DEAF_AFTER: Final = 30.0  # seconds of failures until the consumer is told
_MARGIN: Final = 60.0  # seconds before SQS's twelve hours end


class SqsSubscription:
    """One consumer.

    Thread safety: as the contract says. ``_changed`` guards the state; batches and callbacks are called without it.
    """

    def __init__(
        self,
        queue: SqsQueue,
        *,
        window: int,
        wait_time: float,
        polls: Pool,
        calls: Pool,
        on_close: Callable[[SqsSubscription], None],
    ) -> None:
        self._queue = queue
        self._window = window
        self._wait_time = wait_time
        self._polls = polls
        self._calls = calls
        self._on_close = on_close
        self._visibility = float(queue.visibility)
        # Of a FIFO group one message is out at a time: with more of them, what follows a failed one would have to go
        # back, and each time that is a receive that counts as an attempt.
        self._batch, self._most_polls = (1, _FIFO_POLLS) if queue.fifo else (BATCH, _POLLS)
        self._changed = threading.Condition()  # guards everything below
        self._held: set[Lease] = set()  # what is in the inbox, with the consumer, or being settled
        self._inbox: deque[Delivery] = deque()
        self._wanted = 0  # what the receive that waits now asks for
        self._asked = 0  # what the polls under way may bring
        self._polling = 0
        self._plenty = False  # the last poll brought all that it asked for
        self._cancelled = False
        self._closed = False
        self._failures = 0  # polls in a row
        self._failing_since = 0.0  # monotonic
        self._deaf: WippyQueueError | None = None
        self._calls.run(self._beat, self._visibility / 3)

    # receiving

    def receive(self, limit: int, timeout: float) -> list[Delivery]:
        deadline = time.monotonic() + timeout
        with self._changed:
            try:
                while not self._cancelled:
                    if self._deaf is not None:
                        deaf, self._deaf = self._deaf, None
                        raise deaf
                    if self._inbox:
                        return [self._inbox.popleft() for _ in range(min(limit, len(self._inbox)))]
                    self._wanted = limit
                    self._poll()
                    left = deadline - time.monotonic()
                    if left <= 0:
                        break
                    self._changed.wait(left)
                return []
            finally:
                self._wanted = 0

    def _poll(self, pause: float = 0.0) -> None:
        """Ask for what is wanted and has room, unless that is asked for already. Caller holds the lock."""
        while self._polling < (self._most_polls if self._plenty else 1):
            count = min(self._wanted, self._window - len(self._held)) - self._asked
            if count <= 0 or self._cancelled:
                return
            count = min(self._batch, count)
            # One poll waits for what may come; the others only look whether there is more.
            wait = self._wait_time if self._polling == 0 else 0.0
            self._asked += count
            self._polling += 1
            self._polls.run(partial(self._ask, count, wait), pause)

    def _ask(self, count: int, wait: float) -> None:
        """One poll, on a thread of the pool."""
        began = time.monotonic()
        raws: list[dict[str, Any]] = []
        deliveries: list[Delivery] = []
        error: Exception | None = None
        if not self._cancelled:
            try:
                raws = self._queue.receive(count, min(wait, _CROWDED_WAIT) if self._polls.crowded else wait)
                deliveries = [delivery for raw in raws if (delivery := self._delivery(raw)) is not None]
            except Exception as failed:
                error = failed
        with self._changed:
            self._asked -= count
            self._polling -= 1
            given_up = self._cancelled
            if not given_up:
                self._held.update(delivery.receipt for delivery in deliveries)
                self._inbox.extend(deliveries)
                self._plenty = len(raws) == count
                self._poll(self._pause(error, bool(raws), began))
            self._changed.notify_all()
        if given_up and deliveries:  # they came too late for us
            self._queue.hand_back([{"ReceiptHandle": delivery.receipt.handle} for delivery in deliveries])

    def _pause(self, error: Exception | None, came: bool, began: float) -> float:
        """Return the seconds until the next poll. Caller holds the lock."""
        now = time.monotonic()
        if error is None:
            self._failures = 0
            return 0.0 if came else max(0.0, began + _LEAST_PAUSE - now)
        if self._failures == 0:
            self._failing_since = now
            fields = {"queue": self._queue.queue.id, "error": str(error)}
            _log.warning("receiving from SQS fails, and is tried again", extra={"fields": fields})
        self._failures += 1
        passing = isinstance(error, WippyQueueError) and error.retryable
        if not passing or now - self._failing_since >= _DEAF_AFTER:
            self._failures = 0
            self._deaf = Unavailable(f"queue {self._queue.queue.id}: nothing can be received: {error}")
            self._deaf.__cause__ = error
        return min(_LONGEST_PAUSE, 0.05 * 2.0 ** min(self._failures, 10)) * random.uniform(0.75, 1.25)

    def _delivery(self, raw: Mapping[str, Any]) -> Delivery | None:
        """Return a delivery; None for what cannot be one now."""
        if not self._queue.client.intact(raw):
            fields = {"queue": self._queue.queue.id, "message": raw.get("MessageId")}
            _log.error("a body came with another checksum; the message comes again", extra={"fields": fields})
            return None
        received = messages.from_received(raw)
        now = time.monotonic()
        lease = Lease(
            handle=raw["ReceiptHandle"],
            received=now,
            until=now + self._visibility,
            renewed=now,
            sent=received.sent,
        )
        if received.due is not None and (left := received.due - time.time()) > 0:
            self._send_on(received.message, left, lease)
            return None
        return Delivery(received.message, lease)

    def _send_on(self, message: Message, left: float, lease: Lease) -> None:
        """The next hop of a delay that is longer than SQS's own: a copy, then the old one away."""

        def sent(error: WippyQueueError | None) -> None:
            if error is None:
                self._queue.deletes.add([delete_item(lease.handle, lease.end, lambda _: None)])

        self._queue.sends.add([send_item(self._queue.copy_of(message, left), lease.end, sent)])

    def begin(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        now = time.monotonic()
        return [delivery for delivery in deliveries if delivery.receipt.live and delivery.receipt.until > now]

    def retract(self, deliveries: Sequence[Delivery]) -> None:
        """Nothing is noted of a handler that starts: the service counts what it hands out."""

    # settling

    def settle(self, settlements: Sequence[Settlement]) -> None:
        late: list[Settlement] = []
        deletes: list[Item] = []
        hides: list[Item] = []
        sends: list[Item] = []
        now = time.monotonic()
        with self._changed:
            for settlement in settlements:
                lease: Lease = settlement.delivery.receipt
                if not lease.live or lease.until <= now:
                    late.append(settlement)
                    continue
                lease.live = False
                lease.settlement = settlement
                done = partial(self._settled, lease)
                if settlement.action == "ack":
                    deletes.append(delete_item(lease.handle, lease.end, done))
                    continue
                if (copy := self._replacement(settlement, lease, now)) is not None:
                    sends.append(copy)
                else:
                    seconds = min(settlement.delay, self._longest(lease, now))
                    hides += self._hide(lease, seconds, done)
        self._queue.deletes.add(deletes)
        self._queue.hides.add(hides)
        self._queue.sends.add(sends)
        for settlement in late:
            settlement.finish(self._too_late("it was not held any more"))

    def _may_hide(self, settlement: Settlement, lease: Lease, now: float) -> bool:
        """Return whether a requeue may leave the message where it is and hide it for the delay.

        The next receive counts the attempt then. What else has changed needs a copy; so does a long delay, and a
        message that SQS would soon delete for its age. On a FIFO queue a copy would lose its place.
        """
        counted = msgspec.structs.replace(
            settlement.delivery.message, attempts=settlement.delivery.message.attempts + 1
        )
        if settlement.message != msgspec.structs.replace(
            counted, delay=settlement.message.delay if settlement.message else 0.0
        ):
            return False
        young = not self._queue.retention or time.time() - lease.sent < self._queue.retention / 2
        return self._queue.fifo or (young and settlement.delay <= self._longest(lease, now))

    def _longest(self, lease: Lease, now: float) -> float:
        return max(0.0, lease.received + LONGEST_VISIBILITY - _MARGIN - now)

    def _hide(self, lease: Lease, seconds: float, done: Callable[[WippyQueueError | None], None]) -> list[Item]:
        """Return what is to be sent now; an extension under way must not come after it. Caller holds the lock."""
        item = hide_item(lease.handle, seconds, lease.end, done)
        lease.leaving = True
        if lease.renewal is None:
            return [item]
        lease.renewal.withdrawn = True
        lease.after_renewal = item
        return []

    def _replacement(self, settlement: Settlement, lease: Lease, now: float) -> Item | None:
        """Return a copy that takes the message's place, None where that can be hidden instead.

        A receive counts as an attempt, and a copy begins anew, so what is released comes back as one. On a FIFO queue
        a copy would lose its place in its group.
        """
        released = settlement.action == "release"
        if (released and self._queue.fifo) or (not released and self._may_hide(settlement, lease, now)):
            return None
        message = settlement.message or settlement.delivery.message
        try:
            entry = self._queue.copy_of(message, settlement.delay)
        except Invalid:  # what has changed makes it too large: without that it can still be tried again
            return None

        def sent(error: WippyQueueError | None) -> None:
            if error is not None:
                self._settled(lease, error)
            else:
                done = partial(self._settled, lease)
                self._queue.deletes.add([delete_item(lease.handle, lease.end, done)])

        return send_item(entry, lease.end, sent)

    def _settled(self, lease: Lease, error: WippyQueueError | None) -> None:
        """A message is through, or what was to become of it is lost; what nobody has settled is back either way."""
        with self._changed:
            settlement = lease.take()
        try:
            if settlement is not None:
                settlement.finish(None if error is None else self._too_late(str(error)))
        finally:
            with self._changed:
                self._held.discard(lease)
                self._poll()
                self._changed.notify_all()

    def _too_late(self, why: str) -> Conflict:
        return Conflict(f"queue {self._queue.queue.id}: not settled, the message will come again: {why}")

    # leases

    def _beat(self) -> None:
        try:
            self._extend()
        finally:
            if self._held or not self._closed:
                self._calls.run(self._beat, self._visibility / 3)

    def _extend(self) -> None:
        """Extend every lease of which a third has passed, up to twelve hours from its receive."""
        now = time.monotonic()
        items: list[Item] = []
        with self._changed:
            for lease in [one for one in self._held if one.until <= now]:
                self._lose(lease)
            for lease in self._held:
                if lease.leaving or lease.renewal is not None or now - lease.renewed < 0.9 * self._visibility / 3:
                    continue
                seconds = min(self._visibility, self._longest(lease, now))
                if seconds >= 1:
                    lease.renewal = hide_item(
                        lease.handle, seconds, lease.end, partial(self._renewed, lease, now, seconds)
                    )
                    items.append(lease.renewal)
        for batches in (self._queue.deletes, self._queue.sends, self._queue.hides):
            batches.sweep()
        self._queue.hides.add(items)

    def _renewed(self, lease: Lease, asked: float, seconds: float, error: WippyQueueError | None) -> None:
        with self._changed:
            lease.renewal = None
            then, lease.after_renewal = lease.after_renewal, None
            if error is None:
                lease.renewed, lease.until = asked, max(lease.until, asked + seconds)
            elif lease.live and not error.retryable:
                self._lose(lease)
        if then is not None:
            self._queue.hides.add([then])

    def _lose(self, lease: Lease) -> None:
        """Somebody else may have the message now. Caller holds the lock."""
        fields = {"queue": self._queue.queue.id}
        if lease.live:
            _log.warning("a message was held until SQS gave it to others", extra={"fields": fields})
        lease.live = False
        lease.until = 0.0
        self._held.discard(lease)
        self._inbox = deque(delivery for delivery in self._inbox if delivery.receipt is not lease)
        self._changed.notify_all()

    # the end

    def cancel(self) -> list[Delivery]:
        """Return what came in; a poll that is under way hands back by itself what it brings."""
        with self._changed:
            self._cancelled = True
            waiting = list(self._inbox)
            self._inbox.clear()
            self._changed.notify_all()
        return waiting

    def close(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self.begin_close()
        self.wait_closed(deadline)

    def begin_close(self) -> None:
        """Hand back what was never settled."""
        self.cancel()
        items: list[Item] = []
        with self._changed:
            self._closed = True
            for lease in self._held:
                if lease.live:
                    lease.live = False
                    items += self._hide(lease, 0.0, partial(self._settled, lease))
        self._queue.hides.add(items)

    def wait_closed(self, deadline: float) -> None:
        """Wait until all is settled; at ``deadline`` (monotonic seconds) the rest is given up, and told so."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held, max(0.0, deadline - time.monotonic()))
            late = [settlement for lease in self._held if (settlement := lease.take()) is not None]
            for lease in self._held:
                lease.until = 0.0
            self._held.clear()
        for settlement in late:
            settlement.finish(self._too_late("SQS has not answered in time"))
        for batches in (self._queue.deletes, self._queue.sends, self._queue.hides):
            batches.sweep()
        self._on_close(self)
