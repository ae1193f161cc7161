"""Step 5: what an outcome means for its message. Every ack, retry, release and dead letter is decided here."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import attrs
import msgspec

from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.driver import Subscription
from wippy_queue.durations import LONGEST
from wippy_queue.errors import Kind, WippyQueueError
from wippy_queue.events import Event, MessageFailed, SettleLost
from wippy_queue.flow.burial import Burial
from wippy_queue.handler import Outcome
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import Queue, RetryPolicy

_log = logging.getLogger(__name__)

Verdict = Literal["ack", "release", "requeue", "bury"]
_BURIAL_RETRY: Final = 1.0  # seconds a message waits at least when its dead letter could not be written


@attrs.frozen
class Decision:
    """What becomes of a message: ``delay`` belongs to a requeue, ``reason`` to a burial."""

    verdict: Verdict
    delay: float = 0.0
    reason: str = ""


_ACK: Final = Decision("ack")
_RELEASE: Final = Decision("release")


def decide(outcome: Outcome, message: Message, queue: Queue, retry: RetryPolicy, stopping: bool) -> Decision:
    """Apply the failure policy; nothing but the arguments counts, and every driver gets the same.

    Args:
        outcome: what the handler gave back.
        message: the message, with the attempts before this one.
        queue: where it came from.
        retry: the consumer's policy, the queue's merged in.
        stopping: whether the consumer's workers have been cancelled.
    """
    error = outcome.error
    if error is None:
        return _ACK
    if outcome.canceled and stopping:
        return _RELEASE
    if outcome.undecodable:
        return Decision("bury", reason="undecodable")
    if queue.dead_letter is not None and error.retryable is False:
        return Decision("bury", reason="not_retryable")
    attempts = message.attempts + 1
    if attempts >= max_attempts(queue, retry):
        return Decision("bury", reason="attempts")
    wanted = _retry_after(error.details)
    return Decision("requeue", delay=retry.delay(attempts) if wanted is None else wanted)


def max_attempts(queue: Queue, retry: RetryPolicy) -> float:
    """Return how often a message may be tried."""
    if queue.dead_letter is not None:
        return queue.dead_letter.max_attempts
    return retry.max_attempts or math.inf


def _retry_after(details: dict[str, Any]) -> float | None:
    wanted = details.get("retry_after")
    if isinstance(wanted, (int, float)) and not isinstance(wanted, bool) and wanted >= 0:
        return float(min(wanted, LONGEST))
    return None


class _Settlement(Settlement, kw_only=True, eq=False, gc=False):
    """One of ours: there is one for each message, so it carries no callback of its own."""

    settler: Settler

    def finish(self, error: Exception | None = None) -> None:
        if error is not None:
            self.settler.lost(self.delivery, error)


class Settler:
    """Settles the deliveries of one consumer, each of them once.

    Thread safety: every method may be called from any thread.
    """

    def __init__(
        self,
        *,
        consumer: EntryId,
        function: EntryId,
        queue: Queue,
        retry: RetryPolicy,
        subscription: Subscription,
        burial: Burial,
        cancel: threading.Event,
        emit: Callable[[Event], None],
    ) -> None:
        self._consumer = consumer
        self._function = function
        self._queue = queue
        self._retry = retry
        self._subscription = subscription
        self._burial = burial
        self._cancel = cancel
        self._emit = emit
        self._max_attempts = max_attempts(queue, retry)
        self.handed_back: list[Delivery] = []  # untouched, or by handlers that a stop has cancelled
        self.burying: set[Delivery] = set()  # on their way to where dead letters are kept

    def give_up_if_spent(self, delivery: Delivery) -> bool:
        """Give up a message whose last attempt was a crash, so that no handler has said so; say whether it was one."""
        message = delivery.message
        if message.attempts < self._max_attempts:
            return False
        if delivery.claim():
            error = WippyQueueError(
                f"given up after {message.attempts} attempts: the last one ended with a crash, or its dead letter could"
                " not be written then"
            )
            if self._bury(delivery, message, "attempts", error).verdict == "requeue":
                self._requeue(delivery, message, max(_BURIAL_RETRY, self._retry.delay(message.attempts)))
        return True

    def ack(self, delivery: Delivery) -> bool:
        """Remove the message; False when it was settled already."""
        if not delivery.claim():
            return False
        self._subscription.settle([_Settlement(delivery, settler=self)])
        return True

    def ack_many(self, deliveries: Sequence[Delivery]) -> None:
        """Remove those messages that are not settled already."""
        settlements = [_Settlement(delivery, settler=self) for delivery in Delivery.claim_all(deliveries)]
        if settlements:
            self._subscription.settle(settlements)

    def release(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Hand messages back as if they had never come, in order; return those that were not settled already."""
        mine = Delivery.claim_all(deliveries)
        if mine:
            self.handed_back += mine
            self._subscription.settle([_Settlement(delivery, "release", settler=self) for delivery in mine])
        return mine

    def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        """Do what the outcome means; False when the message was settled already."""
        if outcome.error is None:
            return self.ack(delivery)
        stopping = self._cancel.is_set()
        mine = delivery.claim()
        ended = stopping and outcome.error.kind is Kind.CANCELED  # by the stop: it has not failed
        if not ended and (mine or not outcome.by_hand):
            self._warn(delivery, outcome, outcome.error)
        if not mine:
            return False
        message = delivery.message
        decision = decide(outcome, message, self._queue, self._retry, stopping)
        if decision.verdict == "release":
            self.handed_back.append(delivery)
            self._subscription.settle([_Settlement(delivery, "release", settler=self)])
            return True
        started = 0 if outcome.undecodable else 1
        failed = msgspec.structs.replace(message, attempts=message.attempts + started, delay=0.0)
        if decision.verdict == "bury":
            decision = self._bury(delivery, failed, decision.reason, outcome.error)
        if decision.verdict == "requeue":
            self._requeue(delivery, failed, decision.delay)
        self._emit(
            MessageFailed(
                consumer=self._consumer,
                queue=self._queue.id,
                message_id=message.id,
                attempts=failed.attempts,
                error=str(outcome.error),
                kind=outcome.error.kind,
                delay=decision.delay if decision.verdict == "requeue" else None,
            )
        )
        return True

    def _bury(self, delivery: Delivery, failed: Message, reason: str, error: WippyQueueError) -> Decision:
        """Publish first, remove second: a crash in between gives a second copy, never a loss."""
        self.burying.add(delivery)
        try:
            self._burial.bury(self._queue, failed, reason, error=str(error), function=self._function)
        except WippyQueueError as trouble:
            _log.warning(
                "a message could not be dead-lettered; it is retried",
                extra={"fields": {"queue": self._queue.id, "message_id": failed.id, "error": str(trouble)}},
            )
            return Decision("requeue", delay=max(_BURIAL_RETRY, self._retry.delay(failed.attempts)))
        finally:
            self.burying.discard(delivery)
        self._subscription.settle([_Settlement(delivery, settler=self)])
        return Decision("bury", reason=reason)

    def _requeue(self, delivery: Delivery, message: Message, delay: float) -> None:
        self._subscription.settle([_Settlement(delivery, "requeue", message, delay, settler=self)])

    def lost(self, delivery: Delivery, error: Exception) -> None:
        """A settlement never reached the driver's backend."""
        self._emit(
            SettleLost(consumer=self._consumer, queue=self._queue.id, message_id=delivery.message.id, error=str(error))
        )

    def _warn(self, delivery: Delivery, outcome: Outcome, error: WippyQueueError) -> None:
        if not _log.isEnabledFor(logging.WARNING):
            return
        fields = {
            "consumer": self._consumer,
            "queue": self._queue.id,
            "message_id": delivery.message.id,
            "attempts": delivery.message.attempts + 1,
            "kind": error.kind.value,
            "error": str(error),
        }
        if outcome.trace:
            fields["trace"] = outcome.trace
        _log.warning("handler failed", extra={"fields": fields})
