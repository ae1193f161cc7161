"""A consumer on the memory driver: backpressure, failures, and above all its stop."""

from __future__ import annotations

import collections
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.support import DEADLINE, eventually, message, queue
from wippy_queue.consumer import Consumer, ConsumerSpec
from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.driver import GRACE, Subscription
from wippy_queue.drivers.memory import MemoryDriver
from wippy_queue.drivers.memory.subscription import Subscription as MemorySubscription
from wippy_queue.errors import Invalid, StopReport, Unavailable, WippyQueueError
from wippy_queue.events import Event, WorkerStuck
from wippy_queue.flow.burial import Burial, Route
from wippy_queue.handler import ACK, Handler, Outcome, Session, WorkerContext
from wippy_queue.handlers import PythonFunction, current_message
from wippy_queue.ids import EntryId
from wippy_queue.queues import Queue, RetryPolicy

TASKS = queue(retry=RetryPolicy(initial_delay=0.001, max_delay=0.005))
FUNCTION = EntryId("app:handler")


class Setup:
    def __init__(self) -> None:
        self.driver = MemoryDriver(EntryId("app:memory"))
        self.driver.start()
        self.driver.declare(TASKS)
        self.events: list[Event] = []
        self.failures: list[Exception] = []
        self.consumers: list[Consumer] = []
        self.published = 0

    def publish(self, count: int) -> None:
        start, self.published = self.published, self.published + count
        self.driver.publish(TASKS, [message(f"m-{n}", b"%d" % n) for n in range(start, start + count)], 1.0)

    def consumer(self, handler: Handler | Callable[[Any], Any], **fields: Any) -> Consumer:
        made: Handler = handler if hasattr(handler, "open") else PythonFunction(FUNCTION, handler)
        spec = ConsumerSpec(
            id=EntryId("app:worker"),
            queue=TASKS,
            driver=self.driver,
            function=FUNCTION,
            make_handler=lambda: made,
            **{"retry": TASKS.retry, **fields},
        )
        burial = Burial({TASKS.id: Route(TASKS, self.driver)}, self.events.append)
        consumer = Consumer(spec, burial, self.events.append)
        self.consumers.append(consumer)
        return consumer

    def start(self, handler: Handler | Callable[[Any], Any], **fields: Any) -> Consumer:
        made = self.consumer(handler, **fields)
        made.start(self.failures.append)
        return made

    def waiting(self) -> list[str]:
        return [waiting.id for waiting in self.driver.peek(TASKS, 10_000)]


@pytest.fixture
def setup() -> Iterator[Setup]:
    made = Setup()
    yield made
    for consumer in made.consumers:
        consumer.stop(0.0)
    made.driver.stop(DEADLINE)


class Gate:
    """A handler that tells when it begins, and goes on when it may."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()

    def __call__(self, body: object) -> None:
        self.begun.release()
        assert self.go_on.wait(DEADLINE)

    def await_begun(self, count: int) -> None:
        for _ in range(count):
            assert self.begun.acquire(timeout=DEADLINE)


def test_messages_are_handled_in_order_by_one_worker(setup: Setup) -> None:
    seen: list[int] = []
    setup.publish(50)
    setup.start(seen.append, prefetch=7)
    assert setup.driver.wait_idle(TASKS, DEADLINE)
    assert seen == list(range(50))


def test_no_more_is_out_of_the_driver_than_prefetch_and_concurrency(setup: Setup) -> None:
    gate = Gate()
    setup.publish(50)
    setup.start(gate, concurrency=3, prefetch=5)
    gate.await_begun(3)
    eventually(lambda: setup.driver.info(TASKS).in_flight == 8, "buffer full")
    assert setup.driver.info(TASKS).ready == 42
    gate.go_on.set()


def test_the_driver_is_told_the_options_of_the_consumer(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    subscribe = setup.driver.subscribe

    def spy(queue: Queue, window: int, options: object = None) -> Subscription:
        told.append((window, options))
        return subscribe(queue, window)

    monkeypatch.setattr(setup.driver, "subscribe", spy)
    mine = object()
    setup.start(lambda _: None, concurrency=2, prefetch=3, options=mine)
    assert told == [(5, mine)]


def test_every_worker_has_a_session_of_its_own_on_its_own_thread(setup: Setup) -> None:
    names: set[str] = set()
    everyone = threading.Barrier(4, timeout=DEADLINE)

    def handler(_: object) -> None:
        names.add(threading.current_thread().name)
        everyone.wait()

    setup.publish(4)
    setup.start(handler, concurrency=4)
    assert setup.driver.wait_idle(TASKS, DEADLINE)
    assert names == {f"app:worker-worker-{index}" for index in range(4)}


def test_a_nack_comes_back_with_attempts_raised(setup: Setup) -> None:
    attempts: list[int] = []

    def handler(_: object) -> bool:
        attempts.append(current_message().attempts)
        return len(attempts) == 3

    setup.publish(1)
    setup.start(handler)
    assert setup.driver.wait_idle(TASKS, DEADLINE)
    assert attempts == [0, 1, 2]


def test_auto_ack_settles_before_the_handler_starts(setup: Setup) -> None:
    counts: list[int | None] = []

    def handler(_: object) -> None:
        counts.append(setup.driver.info(TASKS).message_count)
        raise ValueError("too late")

    setup.publish(1)
    consumer = setup.start(handler, auto_ack=True)
    eventually(lambda: counts, "handled")
    assert counts == [0]
    consumer.stop(DEADLINE)
    assert setup.waiting() == []


def test_a_stop_lets_running_handlers_finish_and_hands_the_buffer_back_in_order(setup: Setup) -> None:
    gate, reports = Gate(), []
    setup.publish(10)
    consumer = setup.start(gate, concurrency=2, prefetch=4)
    gate.await_begun(2)
    eventually(lambda: setup.driver.info(TASKS).in_flight == 6, "buffer full")
    stopping = threading.Thread(target=lambda: reports.append(consumer.stop(DEADLINE)))
    stopping.start()
    eventually(lambda: setup.driver.info(TASKS).ready == 8, "handed back while the handlers run")
    assert setup.waiting() == [f"m-{n}" for n in range(2, 10)]
    assert stopping.is_alive()
    gate.go_on.set()
    stopping.join(DEADLINE)
    [report] = reports
    assert sorted(report.finished) == ["m-0", "m-1"]
    assert report.handed_back == ("m-2", "m-3", "m-4", "m-5")
    assert report.abandoned == ()
    assert setup.driver.info(TASKS).message_count == 8


def test_a_handler_past_the_deadline_is_abandoned_its_message_goes_back_and_its_late_settle_is_refused(
    setup: Setup,
) -> None:
    gate = Gate()
    setup.publish(1)
    consumer = setup.start(gate)
    gate.await_begun(1)
    assert consumer.stop(0.0) == StopReport(abandoned=("m-0",))
    assert setup.waiting() == ["m-0"]
    gate.go_on.set()
    seen: list[int] = []
    setup.start(seen.append)
    assert setup.driver.wait_idle(TASKS, DEADLINE)
    assert seen == [0]


def test_what_was_handled_and_could_not_be_settled_is_reported_as_abandoned(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver keeps every settlement until the close, and then its backend does not answer."""
    kept: list[Settlement] = []
    gate = Gate()
    close = MemorySubscription.close

    def close_late(subscription: MemorySubscription, timeout: float) -> None:
        for settlement in kept:
            settlement.finish(Unavailable("no answer"))
        close(subscription, timeout)

    monkeypatch.setattr(MemorySubscription, "settle", lambda _, settlements: kept.extend(settlements))
    monkeypatch.setattr(MemorySubscription, "close", close_late)
    setup.publish(4)
    consumer = setup.start(gate, prefetch=2)
    gate.await_begun(1)
    eventually(lambda: setup.driver.info(TASKS).in_flight == 3, "buffer full")
    threading.Timer(0.05, gate.go_on.set).start()
    assert consumer.stop(DEADLINE) == StopReport(handed_back=("m-1", "m-2"), abandoned=("m-0",))
    assert setup.waiting() == ["m-0", "m-1", "m-2", "m-3"]


def test_what_a_batch_left_over_is_reported_as_handed_back(setup: Setup) -> None:
    gate = Gate()

    class FirstAlone:
        def open(self, context: WorkerContext) -> Session:
            class First:
                def handle(self, deliveries: Sequence[Delivery], *, alone: bool = False) -> Sequence[Outcome]:
                    if len(deliveries) > 1:
                        gate(None)
                    return [ACK]

                def kill(self) -> None: ...

                def renew(self) -> None: ...

                def close(self) -> None: ...

            return First()

    setup.publish(100)
    consumer = setup.start(FirstAlone(), prefetch=50, batch=16)
    gate.await_begun(1)
    threading.Timer(0.05, gate.go_on.set).start()
    report = consumer.stop(DEADLINE)
    assert len(report.finished) == 1
    assert set(report.handed_back) <= set(setup.waiting())
    assert set(report.finished).isdisjoint(setup.waiting())


def test_a_message_on_its_way_to_the_dead_letters_at_the_deadline_is_reported_as_abandoned(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    monkeypatch.setattr(Burial, "bury", lambda *_, **__: gate(None))
    setup.publish(1)

    def failing(_: object) -> None:
        raise ValueError("always")

    consumer = setup.start(failing, retry=RetryPolicy(max_attempts=1))
    gate.await_begun(1)
    assert consumer.stop(0.0) == StopReport(abandoned=("m-0",))
    gate.go_on.set()


@pytest.mark.parametrize(("timeout", "least", "most"), [(0.0, GRACE, GRACE), (5.0, 4.0, 5.0)])
def test_the_last_settles_have_what_is_left_of_the_deadline_and_a_grace_at_least(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, timeout: float, least: float, most: float
) -> None:
    given: list[float] = []
    monkeypatch.setattr(MemorySubscription, "close", lambda _, timeout: given.append(timeout))
    setup.start(lambda _: None).stop(timeout)
    [left] = given
    assert least <= left <= most


def test_what_went_back_at_a_stop_is_no_attempt(setup: Setup) -> None:
    gate = Gate()
    setup.publish(3)
    consumer = setup.start(gate, prefetch=2)
    gate.await_begun(1)
    consumer.stop(0.0)
    gate.go_on.set()
    assert [waiting.attempts for waiting in setup.driver.peek(TASKS, 10)] == [0, 0, 0]


class CancelledHandler:
    """Waits for the cancellation, as our modules do, and fails with what it was told."""

    def open(self, context: WorkerContext) -> Session:
        outer = context

        class Waiting:
            def handle(self, deliveries: Sequence[Delivery], *, alone: bool = False) -> Sequence[Outcome]:
                assert outer.cancel.wait(DEADLINE)
                return [Outcome(error=WippyQueueError("interrupted"), canceled=True)]

            def kill(self) -> None: ...

            def renew(self) -> None: ...

            def close(self) -> None: ...

        return Waiting()


def test_a_handler_that_was_cancelled_hands_its_message_back_uncounted(setup: Setup) -> None:
    setup.publish(1)
    consumer = setup.start(CancelledHandler())
    eventually(lambda: setup.driver.info(TASKS).in_flight == 1, "in flight")
    consumer.stop(DEADLINE)
    [waiting] = setup.driver.peek(TASKS, 10)
    assert waiting.attempts == 0


class Unusable:
    def open(self, context: WorkerContext) -> Session:
        raise Invalid("handler.lua:3: syntax error near 'end'")


def test_a_handler_that_cannot_run_fails_the_start_and_messages_stay(setup: Setup) -> None:
    setup.publish(2)
    consumer = setup.consumer(Unusable(), concurrency=4)
    with pytest.raises(Invalid, match=r"handler\.lua:3"):
        consumer.start(setup.failures.append)
    assert setup.waiting() == ["m-0", "m-1"]
    assert setup.driver.info(TASKS).consumer_count == 0


class Breaking:
    """A session with a bug of ours: it raises instead of giving an outcome."""

    def open(self, context: WorkerContext) -> Session:
        class Session:
            def handle(self, deliveries: Sequence[Delivery], *, alone: bool = False) -> Sequence[Outcome]:
                raise AssertionError("a bug")

            def kill(self) -> None: ...

            def renew(self) -> None: ...

            def close(self) -> None: ...

        return Session()


def test_a_worker_that_dies_fails_the_consumer_once_and_loses_nothing(setup: Setup) -> None:
    setup.publish(5)
    consumer = setup.start(Breaking(), concurrency=2)
    eventually(lambda: setup.failures, "reported")
    consumer.stop(DEADLINE)
    assert len(setup.failures) == 1
    assert type(setup.events[0]).__name__ == "WorkerDied"
    assert sorted(setup.waiting()) == [f"m-{n}" for n in range(5)]


def test_a_feeder_that_dies_fails_the_consumer(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("socket is gone")

    monkeypatch.setattr("wippy_queue.drivers.memory.subscription.Subscription.receive_into", broken)
    setup.start(lambda _: None)
    eventually(lambda: setup.failures, "reported")
    [event] = setup.events
    assert event.thread == "app:worker-feeder"  # type: ignore[attr-defined]


def test_a_feeder_that_ends_without_an_error_makes_the_consumer_deaf(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wippy_queue.flow.prefetch.PrefetchBuffer.wait_room", lambda _: 0)
    consumer = setup.start(lambda _: None)
    with pytest.raises(Unavailable, match="feeder has ended"):
        while True:  # its thread takes a moment to end
            consumer.check()


def test_a_driver_that_does_not_answer_makes_the_consumer_deaf(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def silent(*_: object) -> list[Delivery]:
        answer.wait(DEADLINE)
        return []

    monkeypatch.setattr("wippy_queue.drivers.memory.subscription.Subscription.receive_into", silent)
    monkeypatch.setattr("wippy_queue.consumer._DEAF_AFTER", 0.0)
    consumer = setup.start(lambda _: None)

    def deaf() -> bool:
        try:
            consumer.check()
        except Unavailable as error:
            return "has not answered" in str(error)
        return False

    eventually(deaf, "noticed")
    answer.set()


def test_a_stop_before_a_start_and_a_second_stop_are_harmless(setup: Setup) -> None:
    consumer = setup.consumer(lambda _: None)
    assert consumer.stop(1.0) == StopReport()
    consumer.start(setup.failures.append)
    consumer.stop(1.0)
    assert consumer.stop(1.0) == StopReport()


def test_a_handler_that_cannot_be_ended_is_replaced_and_its_message_fails(setup: Setup) -> None:
    gate, seen = Gate(), []

    def handler(body: int) -> None:
        if body == 0:
            gate(body)
        seen.append(body)

    setup.publish(3)
    consumer = setup.start(handler, stuck_after=0.05)
    gate.await_begun(1)
    eventually(lambda: seen == [1, 2], "the others are handled")
    eventually(lambda: gate.begun.acquire(blocking=False), "the first is tried again")
    eventually(lambda: any(isinstance(event, WorkerStuck) for event in setup.events), "told")
    event = next(event for event in setup.events if isinstance(event, WorkerStuck))
    assert (event.message_id, event.stuck) == ("m-0", 1)
    gate.go_on.set()
    assert setup.driver.wait_idle(TASKS, DEADLINE)
    assert setup.failures == []
    consumer.stop(DEADLINE)


def test_a_stop_does_not_wait_for_a_stuck_worker(setup: Setup) -> None:
    gate = Gate()
    setup.publish(1)
    consumer = setup.start(gate, stuck_after=0.05, retry=RetryPolicy(initial_delay=3600))
    eventually(lambda: any(isinstance(event, WorkerStuck) for event in setup.events), "stuck")
    begin = time.monotonic()
    assert consumer.stop(DEADLINE).abandoned == ()
    assert time.monotonic() - begin < DEADLINE / 4
    gate.go_on.set()


def test_too_many_stuck_workers_fail_the_consumer_and_keep_it_down(setup: Setup) -> None:
    gate = Gate()
    setup.publish(3)
    consumer = setup.start(gate, concurrency=3, stuck_after=0.05, max_stuck_workers=2)
    eventually(lambda: setup.failures, "failed")
    assert "3 workers are stuck" in str(setup.failures[0])
    consumer.stop(0.0)
    with pytest.raises(Unavailable, match="workers are stuck"):
        consumer.start(setup.failures.append)
    gate.go_on.set()
    assert len(setup.failures) == 1


def test_starting_and_stopping_at_random_moments_loses_nothing_and_repeats_no_success(setup: Setup) -> None:
    """Hundreds of lives, with slow, failing and instant handlers; every id is counted."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    print(f"seed {seed}")
    successes: collections.Counter[int] = collections.Counter()
    lock = threading.Lock()

    def handler(body: int) -> None:
        mood = random.random()
        if mood < 0.3:
            time.sleep(mood / 100)
        if mood > 0.9:
            raise ValueError("unlucky")
        with lock:
            successes[body] += 1

    for _ in range(300):
        consumer = setup.consumer(handler, concurrency=chance.randint(1, 8), prefetch=chance.randint(1, 30))
        setup.publish(chance.randint(0, 40))
        consumer.start(setup.failures.append)
        time.sleep(chance.random() / 100)
        setup.publish(chance.randint(0, 40))
        report = consumer.stop(DEADLINE)
        assert report.abandoned == ()
        info = setup.driver.info(TASKS)
        assert info.in_flight == 0
        assert info.message_count is not None
        assert info.message_count + len(successes) == setup.published
    setup.start(handler, concurrency=4)
    assert setup.driver.wait_idle(TASKS, DEADLINE)
    assert sorted(successes) == list(range(setup.published))
    assert set(successes.values()) == {1}
    assert setup.failures == []


class Batching:
    """Handles several at a time, as Lua does, and parts its batches at random."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.lock = threading.Lock()
        self.successes: collections.Counter[str] = collections.Counter()

    def open(self, context: WorkerContext) -> Session:
        outer = self

        class Batch:
            def handle(self, deliveries: Sequence[Delivery], *, alone: bool = False) -> Sequence[Outcome]:
                outcomes: list[Outcome] = []
                with outer.lock:
                    fate = [outer.chance.random() for _ in deliveries]
                for place, (delivery, mood) in enumerate(zip(deliveries, fate, strict=True), 1):
                    parts = mood < 0.05 and len(deliveries) > 1
                    if parts:
                        context.part(place)
                        time.sleep(mood / 50)
                    if mood > 0.97:
                        return [*outcomes, Outcome(error=WippyQueueError("unlucky"))]
                    with outer.lock:
                        outer.successes[delivery.message.id] += 1
                    outcomes.append(ACK)
                    if parts:
                        break
                return outcomes

            def kill(self) -> None: ...

            def renew(self) -> None: ...

            def close(self) -> None: ...

        return Batch()


def test_batches_that_are_parted_and_stopped_at_random_lose_nothing_and_repeat_no_success(setup: Setup) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    print(f"seed {seed}")
    handler = Batching(random.Random(seed))
    for _ in range(150):
        consumer = setup.consumer(handler, concurrency=chance.randint(1, 8), prefetch=chance.randint(1, 60), batch=16)
        setup.publish(chance.randint(0, 300))
        consumer.start(setup.failures.append)
        time.sleep(chance.random() / 200)
        setup.publish(chance.randint(0, 300))
        assert consumer.stop(DEADLINE).abandoned == ()
        info = setup.driver.info(TASKS)
        assert info.in_flight == 0
        assert info.message_count is not None
        assert info.message_count + len(handler.successes) == setup.published
    setup.start(handler, concurrency=4, prefetch=50, batch=16)
    assert setup.driver.wait_idle(TASKS, DEADLINE)
    assert len(handler.successes) == setup.published
    assert set(handler.successes.values()) == {1}
    assert setup.failures == []


def test_a_delivery_is_frozen_but_for_its_gate() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        message().id = "other"  # type: ignore[misc]
    assert ACK.ok
