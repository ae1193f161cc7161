"""Settlements on their way to the broker: acks in batches, copies of what comes back, and whether they arrived."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.drivers.amqp.copier import Copier
from wippy_queue.drivers.amqp.intake import GivenBack, Intake, Receipt
from wippy_queue.drivers.amqp.link import Link
from wippy_queue.drivers.amqp.topology import Declared
from wippy_queue.errors import Conflict, Timeout, WippyQueueError

_log = logging.getLogger(__name__)

_PACE: Final = 0.01  # seconds between two questions whether the broker has seen what was sent; each costs like an ack
_REPLACED: Final = 2.0  # seconds for the broker to take the copy of a message that nobody can handle meanwhile
_PAUSE: Final = 1.0  # seconds until a message comes again of which no copy can be made, at least


class Flusher:
    """Settles the deliveries of one subscription.

    Thread safety: the consuming link's thread alone.
    """

    def __init__(
        self,
        link: Link,
        declared: Declared,
        intake: Intake,
        given_back: GivenBack,
        copier: Copier,
        *,
        on_settled: Callable[[bool], None],
        on_closed: Callable[[], None],
    ) -> None:
        self._link = link
        self._declared = declared
        self._intake = intake
        self._given_back = given_back
        self._copier = copier
        self._on_settled = on_settled  # whether something went back to the queue
        self._on_closed = on_closed
        self._replacing = 0  # copies on their way that nobody has asked for
        self._copying: set[Settlement] = set()  # whose copies are on their way
        self._unseen: list[Settlement] = []  # sent; whether the broker has seen them is not known yet
        self._asked: list[Settlement] = []  # the broker has been asked about these
        self._syncing = False  # the broker has been asked, or will be soon
        self._synced_at = 0.0  # monotonic; when it was asked last
        self._closing = False
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether settlements are on their way; any thread."""
        return bool(self._copying or self._unseen or self._asked)

    def flush(self, batch: Sequence[Settlement]) -> None:
        """Send what was settled."""
        acked: list[Receipt] = []
        returned: list[Receipt] = []
        sent: list[Settlement] = []
        lost: list[Settlement] = []
        for settlement in batch:
            delivery = settlement.delivery
            if delivery.epoch != self._intake.epoch:
                lost.append(settlement)
            elif settlement.action == "ack":
                acked.append(delivery.receipt)
                sent.append(settlement)
            elif settlement.action == "release" and not self._copier.able:
                self._given_back.add(self._declared.name, delivery.message.id)
                returned.append(delivery.receipt)
                sent.append(settlement)
            else:
                delivery.receipt.moving = True
                self._copying.add(settlement)
                self._copy(settlement)
        self._send(acked, returned, sent, moved=bool(returned))
        tell(lost, self.too_late(self._intake.error))

    def _send(
        self, acked: Sequence[Receipt], returned: Sequence[Receipt], settlements: Sequence[Settlement], *, moved: bool
    ) -> None:
        if moved:
            self._on_settled(True)  # before nobody holds it any more: whoever waits for an idle queue looks again
        self._intake.settle(acked, returned)
        self._unseen += settlements
        self._on_settled(False)
        self._sync()

    def _sync(self) -> None:
        """Ask the broker whether it has seen what was sent, so that nobody is told of an ack that was lost."""
        if self._syncing:
            return
        if not self._unseen:
            self._close_if_done()
            return
        self._syncing = True
        wait = self._synced_at + _PACE - time.monotonic()
        if wait > 0 and not self._closing:
            self._link.later(wait, self._ask)
        else:
            self._ask()

    def _ask(self) -> None:
        if not self._unseen:  # lost meanwhile
            self._syncing = False
            self._close_if_done()
            return
        self._synced_at = time.monotonic()
        self._asked, self._unseen = self._unseen, []

        def answered(error: WippyQueueError | None) -> None:
            self._syncing = False
            asked, self._asked = self._asked, []
            tell(asked, None if error is None else self.too_late(error))
            self._sync()

        self._intake.sync(answered)

    def _copy(self, settlement: Settlement) -> None:
        """Publish a copy that is to come back, then ack the original."""
        delivery = settlement.delivery
        message = settlement.message or delivery.message

        def copied(error: WippyQueueError | None) -> None:
            if settlement not in self._copying:
                return  # given up meanwhile
            current = delivery.epoch == self._intake.epoch
            if current and error is not None and error.retryable is not False and not self._closing:
                self._link.later(1.0, lambda: self._copy(settlement))
                return
            self._copying.discard(settlement)
            if not current:
                tell([settlement], self.too_late(self._intake.error))
            elif error is None:
                self._given_back.forget(self._declared.name, message.id)
                self._send([delivery.receipt], [], [settlement], moved=True)
            else:
                if error.retryable is False:  # it can never be copied: back with the original, and not in a hot loop
                    fields = {"queue": self._declared.queue.id, "message_id": message.id, "error": str(error)}
                    _log.warning("a message cannot be copied; it comes again, uncounted", extra={"fields": fields})
                    pause = 0.0 if self._closing else max(_PAUSE, settlement.delay)
                    self._link.later(pause, lambda: self._give_back(delivery))
                tell([settlement], self.too_late(error))
            self._close_if_done()

        if settlement.action == "release":
            self._copier.hand_back(self._declared, message, copied)
        else:
            self._copier.retry(self._declared, message, settlement.delay, copied)

    def _give_back(self, delivery: Delivery) -> None:
        if delivery.epoch == self._intake.epoch and not self._closed:
            self._send([], [delivery.receipt], [], moved=True)

    def replace(
        self, epoch: int, receipt: Receipt, returns: int, failed: Callable[[WippyQueueError | None], None]
    ) -> None:
        """Put a copy in the place of a message of which nobody knows whether it may have been handled.

        Args:
            epoch: of the message's delivery.
            receipt: the message.
            returns: how often it came back from a lost connection, for the copy to tell.
            failed: called instead where nothing can be published, or not soon: a broker that is out of memory takes no
                copies, and consuming may be what it waits for. The copy may come as well then.
        """
        receipt.moving = True
        self._replacing += 1
        waiting = True

        def copied(error: WippyQueueError | None) -> None:
            nonlocal waiting
            if not waiting:
                return
            waiting = False
            self._replacing -= 1
            if epoch == self._intake.epoch:
                if error is None:
                    self._send([receipt], [], [], moved=True)
                else:
                    receipt.moving = False
                    failed(error)
            self._close_if_done()

        if self._copier.able:
            self._copier.hand_back(self._declared, receipt.message, copied, returns=returns)
            self._link.later(_REPLACED, lambda: copied(self.too_late()))
        else:
            self._link.later(0.0, lambda: copied(self.too_late()))

    def lost(self, receipts: Iterable[Receipt], error: WippyQueueError) -> None:
        """The channel is gone, and with it these deliveries."""
        for receipt in receipts:
            if not receipt.begun:
                self._given_back.add(self._declared.name, receipt.message.id)
        unseen, self._unseen = self._unseen, []
        tell(unseen, self.too_late(error))
        self._on_settled(True)

    def close(self) -> None:
        """Hand back what nobody has begun, and close the channel when everything has arrived."""
        self._closing = True
        if self._copier.able and not self._closed:
            epoch = self._intake.epoch
            for receipt in self._intake.held:
                if not receipt.begun and not receipt.moving:
                    self.replace(epoch, receipt, 0, lambda _: None)
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._closing and not (self._replacing or self._syncing or self.busy):
            self._close_channel()

    def give_up(self) -> None:
        """Tell that what is still on its way came too late, and close the channel; what is not settled comes again."""
        left = [*self._asked, *self._unseen, *self._copying]
        self._asked, self._unseen = [], []
        self._copying.clear()
        self._close_channel()
        tell(left, self.too_late(Timeout("RabbitMQ has not answered in time")))
        self._on_closed()

    def _close_channel(self) -> None:
        if not self._closed:
            self._closed = True
            self._intake.close(lambda _: self._on_closed())

    def too_late(self, cause: Exception | None = None) -> Conflict:
        reason = "" if cause is None else f": {cause}"
        return Conflict(f"queue {self._declared.queue.id}: too late to settle, the message will come again{reason}")


def tell(settlements: Iterable[Settlement], error: Exception | None) -> None:
    for settlement in settlements:
        try:
            settlement.finish(error)
        except Exception:
            _log.exception("the callback of a settlement failed")
