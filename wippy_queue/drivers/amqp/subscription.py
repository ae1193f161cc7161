"""A consumer's share of a queue: deliveries to its feeder, its settlements to the broker."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
from pika import BasicProperties

from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.driver import Sink
from wippy_queue.drivers.amqp.copier import Copier
from wippy_queue.drivers.amqp.dropper import Drop, Dropper
from wippy_queue.drivers.amqp.flusher import Flusher, tell
from wippy_queue.drivers.amqp.inbox import Inbox
from wippy_queue.drivers.amqp.intake import GivenBack, Intake, Receipt
from wippy_queue.drivers.amqp.link import Link
from wippy_queue.drivers.amqp.options import AmqpConsumerOptions
from wippy_queue.drivers.amqp.topology import Declared
from wippy_queue.drivers.amqp.wire import from_wire
from wippy_queue.errors import Unavailable, WippyQueueError
from wippy_queue.message import Message

_DEAF_AFTER: Final = 15.0  # seconds without a channel; then the consumer fails, and says why
_CANCEL_WAIT: Final = 0.25  # seconds for the broker to bring what is on its way
_GOODBYE: Final = 1.0  # seconds of a close for the broker's answer, where nothing is left to settle
_HANDOVER: Final = 1.0  # seconds for the link's thread, which never waits


class AmqpSubscription:
    """One consumer of one queue.

    Thread safety: as the contract says. Methods marked so run on the consuming link's thread.
    """

    def __init__(
        self,
        link: Link,
        declared: Declared,
        given_back: GivenBack,
        copier: Copier,
        dropper: Dropper,
        *,
        window: int,
        options: AmqpConsumerOptions,
        on_settled: Callable[[bool], None],
        on_close: Callable[[AmqpSubscription], None],
    ) -> None:
        self.declared = declared
        self._link = link
        self._given_back = given_back
        self._dropper = dropper
        self._on_close = on_close
        self._inbox = Inbox()
        self._arrivals: list[Delivery] = []  # of what is being read; the link's thread
        self._state = threading.Condition()  # guards what follows
        self._pending: deque[Settlement] = deque()
        self._scheduled = False
        self._cancelled = False
        self._closed = False
        self._done = False  # closed, and everything that was to be settled is
        self._quiet = threading.Event()  # cancelled, and no more deliveries will come
        self._canceled = threading.Event()  # cancel() or close() has done what it does
        self.intake = Intake(
            link,
            f"queue {declared.queue.id}",
            declared.consumed,
            window=window,
            # Two queues on one channel have one window together; quorum queues know no such thing.
            shared_window=declared.options.queue_type == "classic" and not declared.as_it_is,
            prepare=declared.declare,
            on_message=self._arrived,
            on_change=self._changed,
            on_lost=self._lost,
            consumer_tag=options.consumer_tag,
            exclusive=options.exclusive,
        )
        self._flusher = Flusher(
            link, declared, self.intake, given_back, copier, on_settled=on_settled, on_closed=self._ended
        )

    def wait_attached(self, timeout: float) -> None:
        """Wait until the broker has agreed; raises what it says instead."""
        with self._state:
            agreed = self._state.wait_for(lambda: self.intake.attached or self.intake.error is not None, timeout)
            error = self.intake.error
        if not agreed:
            raise Unavailable(
                f"queue {self.declared.queue.id}: RabbitMQ has not agreed to a subscription in {timeout:g} s"
            )
        if error is not None:
            raise error

    # receiving

    def _arrived(self, epoch: int, tag: int, redelivered: bool, properties: BasicProperties, body: bytes) -> Receipt:
        """A message was delivered. The link's thread."""
        arrival = from_wire(properties, body, self.declared.queue)
        message, returns = arrival.message, arrival.returns
        name = self.declared.name
        if arrival.counted:
            returns += max(0, arrival.counted - self._given_back.count(name, message.id))
        elif redelivered and not self._given_back.forget(name, message.id):
            # It was in the hands of a connection that was lost. The broker remembers that it was, not how often, so a
            # copy that counts takes its place; or else a message that kills its process would do so for ever.
            receipt = Receipt(tag, message)
            self._flusher.replace(epoch, receipt, returns + 1, lambda _: self._uncounted(epoch, receipt, returns + 1))
            return receipt
        if returns:
            message = msgspec.structs.replace(message, attempts=self._attempts(message, returns))
        receipt = Receipt(tag, message)
        self._hand_out(Delivery(message, receipt, epoch))
        return receipt

    def _attempts(self, message: Message, returns: int) -> int:
        """Return the attempts of a message that has come back from lost connections.

        Whether its handler had begun there, nobody knows; so it counts. Once alone is no reason to give a message up.
        """
        attempts = message.attempts + returns
        limit = self.declared.max_attempts
        return message.attempts if returns == 1 and message.attempts < limit <= attempts else attempts

    def _uncounted(self, epoch: int, receipt: Receipt, returns: int) -> None:
        """No copy could be made, so the message itself is handled: better uncounted than never. The link's thread."""
        message = receipt.message
        receipt.message = msgspec.structs.replace(message, attempts=self._attempts(message, returns))
        self._hand_out(Delivery(receipt.message, receipt, epoch))

    def _hand_out(self, delivery: Delivery) -> None:
        message, epoch = delivery.message, delivery.epoch
        if message.expires_at is None or message.expires_at > time.time():
            self._arrivals.append(delivery)
            if len(self._arrivals) == 1:
                self._link.after_read(self._hand_over)
            return
        self._dropper.put(
            Drop(
                self.declared.queue,
                message,
                "expired",
                lambda: epoch == self.intake.epoch,
                lambda: self._link.call(lambda: self._forget(delivery)),
            )
        )

    def _hand_over(self) -> None:
        arrivals, self._arrivals = self._arrivals, []
        self._inbox.put(arrivals)

    def _forget(self, delivery: Delivery) -> None:
        if delivery.epoch == self.intake.epoch:
            self.intake.settle([delivery.receipt], [])

    def receive(self, limit: int, timeout: float) -> list[Delivery]:
        return self._receive(limit, timeout, None)

    def receive_into(self, sink: Sink, limit: int, timeout: float) -> list[Delivery]:
        return self._receive(limit, timeout, sink)

    def _receive(self, limit: int, timeout: float, sink: Sink | None) -> list[Delivery]:
        deadline = time.monotonic() + timeout
        left = timeout
        while not self._cancelled:
            taken, fed = self._inbox.take(limit, left, sink)
            received = [delivery for delivery in taken if delivery.epoch == self.intake.epoch]
            if received or fed:
                return received
            self._check()
            left = deadline - time.monotonic()
            if left <= 0:
                return []
        self._canceled.wait(max(0.0, left))  # the feeder would ask again and again while cancel() waits for the broker
        return []

    def _check(self) -> None:
        """Raise when nothing will come any more, or has not been able to come for long."""
        error = self.intake.error
        if error is None or self._cancelled:
            return
        if error.retryable is False or self._closed:
            raise error
        down = self._link.why_down()
        if down is not None and (down.retryable is False or self._link.down_for >= _DEAF_AFTER):
            raise down

    def begin(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        return [] if self._closed else self.intake.begin(deliveries)

    def retract(self, deliveries: Sequence[Delivery]) -> None:
        self.intake.retract(deliveries)

    # settling

    def settle(self, settlements: Sequence[Settlement]) -> None:
        with self._state:
            closed, wake = self._closed, not self._scheduled
            if not closed:
                self._pending.extend(settlements)
                self._scheduled = True
        if closed:
            tell(settlements, self._flusher.too_late())
        elif wake:
            self._link.call(self._flush)

    def _flush(self) -> None:
        """Send everything that was settled meanwhile. The link's thread."""
        with self._state:
            batch = list(self._pending)
            self._pending.clear()
            self._scheduled = False
        self._flusher.flush(batch)

    # what the intake tells, on the link's thread

    def _changed(self) -> None:
        with self._state:
            self._state.notify_all()
        self._inbox.nudge()

    def _lost(self, receipts: Iterable[Receipt], error: WippyQueueError) -> None:
        self._flusher.lost(receipts, error)

    # the end

    def cancel(self) -> list[Delivery]:
        quiet = self._begin_cancel()
        if self._link.why_down() is None:
            quiet.wait(_CANCEL_WAIT)
        waiting = [delivery for delivery in self._inbox.drain() if delivery.epoch == self.intake.epoch]
        self._canceled.set()
        self._inbox.nudge()
        return waiting

    def _begin_cancel(self) -> threading.Event:
        """Ask for no more deliveries; the event tells that none will come."""
        with self._state:
            first, self._cancelled = not self._cancelled, True
        if first:
            # What was read together with the broker's answer comes first.
            self._link.call(lambda: self.intake.cancel(lambda: self._link.after_read(self._quiet.set)))
            self._inbox.nudge()
        return self._quiet

    def close(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self.begin_close()
        self.wait_closed(deadline)

    def begin_close(self) -> None:
        """Settle no more than was asked for, then close."""
        self._begin_cancel()
        self._canceled.set()
        with self._state:
            if self._closed:
                return
            self._closed = True
        self._link.call(self._close)

    def wait_closed(self, deadline: float) -> None:
        """Wait until the broker has taken everything; at ``deadline`` (monotonic seconds) the rest is given up."""
        now = time.monotonic()
        with self._state:
            self._state.wait_for(lambda: self._done, max(0.0, min(_GOODBYE, deadline - now)))
            if self._pending or self._flusher.busy:
                self._state.wait_for(lambda: self._done, max(0.0, deadline - time.monotonic()))
            if not self._done:
                self._link.call(self._flusher.give_up)
                self._state.wait_for(lambda: self._done, _HANDOVER)
        self._on_close(self)

    def _close(self) -> None:
        self._flush()
        self.intake.cancel(self._flusher.close)  # what is on its way is handed back too

    def _ended(self) -> None:
        with self._state:
            self._done = True
            self._state.notify_all()
