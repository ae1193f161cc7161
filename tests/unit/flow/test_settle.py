"""The failure policy: what becomes of a message is decided in one place."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from tests.support import FakeSubscription, message, queue
from wippy_queue.delivery import Delivery
from wippy_queue.errors import Internal, Invalid, Unavailable, WippyQueueError
from wippy_queue.events import Event, MessageFailed, SettleLost
from wippy_queue.flow.settle import Decision, Settler, decide
from wippy_queue.handler import ACK, Outcome
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import DeadLetter, Queue, RetryPolicy

STEADY = RetryPolicy(initial_delay=1.0, max_delay=8.0, backoff_factor=2.0, jitter=0.0)
WITH_DEAD_LETTERS = queue(dead_letter=DeadLetter(queue=EntryId("app:dead"), max_attempts=3))


def failed(error: WippyQueueError | None = None, **fields: Any) -> Outcome:
    return Outcome(error=error or WippyQueueError("boom"), **fields)


@pytest.mark.parametrize(
    ("story", "outcome", "attempts", "where", "retry", "stopping", "expected"),
    [
        ("success acks", ACK, 0, queue(), STEADY, False, Decision("ack")),
        ("the first failure waits", failed(), 0, queue(), STEADY, False, Decision("requeue", 1.0)),
        ("each failure waits longer", failed(), 2, queue(), STEADY, False, Decision("requeue", 4.0)),
        ("up to a limit", failed(), 50, queue(), STEADY, False, Decision("requeue", 8.0)),
        ("never overflowing", failed(), 100_000, queue(), STEADY, False, Decision("requeue", 8.0)),
        ("initial_delay 0 is at once", failed(), 9, queue(), RetryPolicy(initial_delay=0), False, Decision("requeue")),
        ("retried before the last attempt", failed(), 1, WITH_DEAD_LETTERS, STEADY, False, Decision("requeue", 2.0)),
        ("dead at the last", failed(), 2, WITH_DEAD_LETTERS, STEADY, False, Decision("bury", reason="attempts")),
        (
            "not retryable is dead at once",
            failed(Invalid("bad order")),
            0,
            WITH_DEAD_LETTERS,
            STEADY,
            False,
            Decision("bury", reason="not_retryable"),
        ),
        (
            "but retried where there is no dead-letter queue",
            failed(Invalid("bad order")),
            0,
            queue(),
            STEADY,
            False,
            Decision("requeue", 1.0),
        ),
        (
            "parked after retry.max_attempts",
            failed(),
            1,
            queue(),
            RetryPolicy(max_attempts=2),
            False,
            Decision("bury", reason="attempts"),
        ),
        (
            "undecodable is buried at once, everywhere",
            failed(Invalid("no JSON"), undecodable=True),
            0,
            queue(),
            STEADY,
            False,
            Decision("bury", reason="undecodable"),
        ),
        (
            "retry_after wins over the backoff",
            failed(WippyQueueError("later", details={"retry_after": 7})),
            0,
            queue(),
            STEADY,
            False,
            Decision("requeue", 7.0),
        ),
        (
            "a retry_after beyond what timers take is as long as they do",
            failed(WippyQueueError("later", details={"retry_after": 1e300})),
            0,
            queue(),
            STEADY,
            False,
            Decision("requeue", 1e9),
        ),
        (
            "a retry_after that makes no sense is ignored",
            failed(WippyQueueError("later", details={"retry_after": float("nan")})),
            0,
            queue(),
            STEADY,
            False,
            Decision("requeue", 1.0),
        ),
        (
            "cancelled at a stop is no attempt",
            failed(canceled=True),
            0,
            WITH_DEAD_LETTERS,
            STEADY,
            True,
            Decision("release"),
        ),
        ("cancelled without a stop is one", failed(canceled=True), 0, queue(), STEADY, False, Decision("requeue", 1.0)),
        ("a failure at a stop is one", failed(), 0, queue(), STEADY, True, Decision("requeue", 1.0)),
    ],
)
def test_the_policy(
    story: str,
    outcome: Outcome,
    attempts: int,
    where: Queue,
    retry: RetryPolicy,
    stopping: bool,
    expected: Decision,
) -> None:
    assert decide(outcome, message(attempts=attempts), where, retry, stopping) == expected, story


def test_jitter_stays_within_its_share_and_is_not_constant() -> None:
    policy = RetryPolicy(initial_delay=10.0, jitter=0.1)
    delays = {policy.delay(1) for _ in range(200)}
    assert len(delays) > 1
    assert all(9.0 <= delay <= 11.0 for delay in delays)


class Grave:
    """Takes what is buried, or refuses."""

    def __init__(self, error: WippyQueueError | None = None) -> None:
        self.error = error
        self.buried: list[tuple[Message, str]] = []

    def bury(self, queue: Queue, message: Message, reason: str, **_: object) -> None:
        if self.error is not None:
            raise self.error
        self.buried.append((message, reason))


def settler(
    subscription: FakeSubscription, grave: Grave, where: Queue = WITH_DEAD_LETTERS
) -> tuple[Settler, list[Event]]:
    events: list[Event] = []
    made = Settler(
        consumer=EntryId("app:worker"),
        function=EntryId("app:handler"),
        queue=where,
        retry=STEADY,
        subscription=subscription,
        burial=grave,  # type: ignore[arg-type]  # all that it needs of a Burial
        cancel=threading.Event(),
        emit=events.append,
    )
    return made, events


def test_only_the_first_settle_counts() -> None:
    subscription = FakeSubscription()
    made, _ = settler(subscription, Grave())
    delivery = Delivery(message(), 1)
    assert made.ack(delivery)
    assert not made.ack(delivery)
    assert not made.settle(delivery, failed())
    assert made.release([delivery]) == []
    assert [settlement.action for settlement in subscription.settled] == ["ack"]


def test_racing_threads_settle_once() -> None:
    subscription = FakeSubscription()
    made, _ = settler(subscription, Grave())
    delivery = Delivery(message(), 1)
    start, wins = threading.Barrier(8), []

    def race() -> None:
        start.wait()
        wins.append(made.ack(delivery))

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wins) == [False] * 7 + [True]
    assert len(subscription.settled) == 1


def test_a_requeue_carries_one_attempt_more_and_the_same_id() -> None:
    subscription = FakeSubscription()
    made, events = settler(subscription, Grave())
    made.settle(Delivery(message("m-7", attempts=1), 1), failed())
    [settlement] = subscription.settled
    assert settlement.action == "requeue"
    assert settlement.delay == 2.0
    assert settlement.message is not None
    assert (settlement.message.id, settlement.message.attempts) == ("m-7", 2)
    [event] = events
    assert isinstance(event, MessageFailed)
    assert (event.message_id, event.attempts, event.delay) == ("m-7", 2, 2.0)


def test_a_dead_letter_is_published_first_and_removed_second() -> None:
    subscription, grave = FakeSubscription(), Grave()
    made, _ = settler(subscription, grave)
    made.settle(Delivery(message(attempts=2), 1), failed())
    assert [(buried.attempts, reason) for buried, reason in grave.buried] == [(3, "attempts")]
    assert [settlement.action for settlement in subscription.settled] == ["ack"]


def test_a_dead_letter_that_cannot_be_written_is_retried_never_lost() -> None:
    subscription, grave = FakeSubscription(), Grave(Unavailable("away"))
    made, _ = settler(subscription, grave)
    made.settle(Delivery(message(attempts=2), 1), failed())
    [settlement] = subscription.settled
    assert settlement.action == "requeue"
    assert settlement.delay >= 1.0
    assert settlement.message is not None
    assert settlement.message.attempts == 3


@pytest.mark.parametrize("attempts", [3, 7])
def test_a_message_that_crashed_its_last_attempt_is_given_up_before_the_handler_sees_it(attempts: int) -> None:
    subscription, grave = FakeSubscription(), Grave()
    made, _ = settler(subscription, grave)
    fresh, spent, again = (Delivery(message(attempts=n), n) for n in (2, attempts, 0))
    assert [made.give_up_if_spent(delivery) for delivery in (fresh, spent, again)] == [False, True, False]
    assert [(buried.attempts, reason) for buried, reason in grave.buried] == [(attempts, "attempts")]
    assert [settlement.action for settlement in subscription.settled] == ["ack"]


def test_one_that_was_given_up_and_cannot_be_buried_stays_and_waits() -> None:
    subscription = FakeSubscription()
    made, _ = settler(subscription, Grave(Unavailable("away")))
    assert made.give_up_if_spent(Delivery(message(attempts=3), 1))
    [settlement] = subscription.settled
    assert (settlement.action, settlement.message and settlement.message.attempts) == ("requeue", 3)
    assert settlement.delay >= 1.0


def test_a_lost_settle_becomes_an_event() -> None:
    class Losing(FakeSubscription):
        def settle(self, settlements: Any) -> None:
            for settlement in settlements:
                settlement.finish(Internal("the lease ran out"))

    made, events = settler(Losing(), Grave())
    made.ack(Delivery(message("m-9"), 1))
    [event] = events
    assert isinstance(event, SettleLost)
    assert (event.message_id, event.error) == ("m-9", "the lease ran out")


def test_a_failed_handler_logs_one_warning_with_error_and_trace(caplog: pytest.LogCaptureFixture) -> None:
    made, _ = settler(FakeSubscription(), Grave())
    with caplog.at_level(logging.WARNING, "wippy_queue"):
        made.settle(Delivery(message("m-3"), 1), failed(trace="handler.lua:7: in function 'pay'"))
    [record] = caplog.records
    fields = record.__dict__["fields"]
    assert fields["message_id"] == "m-3"
    assert fields["error"] == "boom"
    assert fields["trace"] == "handler.lua:7: in function 'pay'"
