"""A worker with several messages in hand: which it begins with together, and what it says of those it gives back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import attrs

from tests.support import FakeSubscription, message, queue
from wippy_queue.delivery import Delivery
from wippy_queue.flow.burial import Burial
from wippy_queue.flow.prefetch import PrefetchBuffer
from wippy_queue.flow.settle import Settler
from wippy_queue.flow.tempo import Tempo
from wippy_queue.flow.worker import Worker
from wippy_queue.handler import ACK, Outcome, WorkerContext
from wippy_queue.ids import EntryId

CONSUMER = EntryId("app:worker")


class Subscription(FakeSubscription):
    tempo: Tempo  # of its worker

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[list[str]] = []
        self.retracted: list[str] = []
        self.on_begin: Callable[[], None] = lambda: None
        self.alone: list[tuple[int, bool]] = []  # what the handler was told of each hand

    def begin(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        self.begun.append(names(deliveries))
        self.on_begin()
        return deliveries

    def retract(self, deliveries: Sequence[Delivery]) -> None:
        self.retracted += names(deliveries)


@attrs.define
class Handler:
    """Handles with ``handle``; ends the worker when the last message has been handled."""

    buffer: PrefetchBuffer
    subscription: Subscription
    left: int
    handle_first: Callable[[Sequence[Delivery]], Sequence[Outcome]] | None = None

    def open(self, context: WorkerContext) -> Handler:
        return self

    def handle(self, deliveries: Sequence[Delivery], *, alone: bool = False) -> Sequence[Outcome]:
        self.subscription.alone.append((len(deliveries), alone))
        first, self.handle_first = self.handle_first, None
        outcomes = first(deliveries) if first else [ACK] * len(deliveries)
        self.left -= len(outcomes)
        if self.left == 0:
            self.buffer.close()
        return outcomes

    def kill(self) -> None: ...

    def renew(self) -> None: ...
    def close(self) -> None: ...


def names(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.message.id for delivery in deliveries]


def run(
    attempts: Sequence[int],
    handle: Callable[[WorkerContext, Sequence[Delivery]], Sequence[Outcome]] | None = None,
    *,
    most: int = 16,
    word_of_the_watchdog: bool = False,
) -> Subscription:
    """Let a worker take up to ``most`` messages at once, and return once each has been handled."""
    subscription, tempo, cancel = Subscription(), Tempo(most), threading.Event()
    tempo.most = most
    subscription.tempo = tempo
    buffer = PrefetchBuffer(100, tempo)
    buffer.put_many([Delivery(message(f"m-{n}", attempts=tried), n) for n, tried in enumerate(attempts)])
    where = queue()
    settler = Settler(
        consumer=CONSUMER,
        function=EntryId("app:handler"),
        queue=where,
        retry=where.retry,
        subscription=subscription,
        burial=Burial({}, lambda _: None),
        cancel=cancel,
        emit=lambda _: None,
    )
    context = WorkerContext(consumer=CONSUMER, queue=where.id, worker=0, settle=settler.settle, cancel=cancel)
    first = None if handle is None else lambda hand: handle(context, hand)
    handler = Handler(buffer, subscription, len(attempts), first)
    worker = Worker(handler, context, buffer, subscription, settler, tempo)
    context.part = worker.part
    if word_of_the_watchdog:
        subscription.on_begin = worker.late
    failures: list[Exception] = []
    worker.run(lambda: None, failures.append)
    assert failures == []
    assert sorted(names([settlement.delivery for settlement in subscription.settled])) == [
        f"m-{n}" for n in range(len(attempts))
    ]
    return subscription


def test_a_message_that_was_tried_before_is_handled_alone() -> None:
    """A crash counts an attempt for the whole hand, so a message is in one with others once in its life."""
    assert run([0, 0, 1, 2, 0, 0]).begun == [["m-0", "m-1"], ["m-2"], ["m-3"], ["m-4", "m-5"]]


def test_what_was_not_begun_with_after_all_is_retracted_before_it_goes_back() -> None:
    def stop_after_two(context: WorkerContext, hand: Sequence[Delivery]) -> Sequence[Outcome]:
        return [ACK] * 2

    subscription = run([0] * 4, stop_after_two)
    assert subscription.retracted == ["m-2", "m-3"]
    assert subscription.begun == [["m-0", "m-1", "m-2", "m-3"], ["m-2", "m-3"]]


def test_so_is_what_lies_behind_a_message_that_takes_its_time() -> None:
    def part_at_the_second(context: WorkerContext, hand: Sequence[Delivery]) -> Sequence[Outcome]:
        context.part(2)
        return [ACK] * 2

    subscription = run([0] * 4, part_at_the_second)
    assert subscription.retracted == ["m-2", "m-3"]
    assert names([settlement.delivery for settlement in subscription.settled])[:2] == ["m-0", "m-1"]


def test_one_that_takes_its_time_has_fewer_come_together_although_it_was_alone() -> None:
    def part(context: WorkerContext, hand: Sequence[Delivery]) -> Sequence[Outcome]:
        context.part(1)
        return [ACK]

    assert run([0], part).tempo.most == 8


def test_while_handlers_are_slow_each_message_is_alone() -> None:
    assert run([0] * 3, most=1).alone == [(1, True)] * 3


def test_several_are_watched_even_if_the_watchdog_was_late_with_a_word_about_those_before_them() -> None:
    assert run([0] * 4).alone == [(4, False)]
    assert run([0] * 4, word_of_the_watchdog=True).alone == [(4, False)]
