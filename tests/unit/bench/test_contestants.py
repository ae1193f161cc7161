"""The asyncio variant behaves as this engine does: both, and the variant's option with threads, pass the same tests.

Handlers are Lua. They tell the test what they do, and ask it whether they may go on, through a module in Python; they
wait in ``time.sleep``, which blocks a thread in one and suspends a task in the other.
"""

from __future__ import annotations

import collections
import random
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import pytest

from tests.support import DEADLINE, eventually
from wippy_queue.bench.asyncio_engine import AsyncioEngine, LoopSpec
from wippy_queue.drivers.memory import MemoryQueueOptions
from wippy_queue.engine import Engine
from wippy_queue.errors import ShutdownTimeout, StopReport
from wippy_queue.ids import EntryId
from wippy_queue.lua.host import Source
from wippy_queue.message import Message
from wippy_queue.queues import DeadLetter, Queue, QueueInfo, RetryPolicy

TASKS, OTHER = "app:tasks", "app:other"
FAST_RETRY = {"initial_delay": 0.001, "max_delay": 0.005}


class Probe:
    """What handlers reach: `note` keeps what they tell, `may_go` holds them until the test lets them go."""

    def __init__(self) -> None:
        self.notes: list[Any] = []
        self.go = threading.Event()

    def note(self, value: Any) -> None:
        self.notes.append(value)

    def may_go(self) -> bool:
        return self.go.is_set()


class System(Protocol):
    """An engine with two queues, of which the first is consumed."""

    def publish(self, bodies: Sequence[Any]) -> None: ...
    def start(self) -> None: ...
    def join(self) -> None: ...
    def stop(self, timeout: float = DEADLINE) -> StopReport: ...
    def info(self) -> QueueInfo: ...
    def waiting(self, queue: str = TASKS) -> list[Message]: ...
    def close(self) -> None: ...


class Threads:
    def __init__(
        self,
        source: str,
        probe: Probe,
        *,
        concurrency: int = 1,
        prefetch: int = 10,
        retry: dict[str, Any] | None = None,
        dead_letter: int | None = None,
        max_length: int = 0,
    ) -> None:
        tasks: dict[str, Any] = {
            "name": "tasks",
            "kind": "queue.queue",
            "driver": "memory",
            "retry": retry or FAST_RETRY,
        }
        if dead_letter is not None:
            tasks["dead_letter"] = {"queue": OTHER, "max_attempts": dead_letter}
        self._engine = Engine.from_entries(
            [
                {"name": "memory", "kind": "queue.driver.memory", "lifecycle": {"auto_start": True}},
                tasks,
                {"name": "other", "kind": "queue.queue", "driver": "memory", "options": {"max_length": max_length}},
                {"name": "handler", "kind": "function.lua", "source": source, "modules": ["probe", "queue", "time"]},
                {
                    "name": "worker",
                    "kind": "queue.consumer",
                    "queue": "tasks",
                    "func": "handler",
                    "concurrency": concurrency,
                    "prefetch": prefetch,
                    "lifecycle": {"auto_start": False},
                },
            ]
        )
        self._engine.module("probe", {"note": probe.note, "may_go": probe.may_go})
        self._engine.start()

    def publish(self, bodies: Sequence[Any]) -> None:
        self._engine.publish_many(TASKS, bodies)

    def start(self) -> None:
        self._engine.start_service("app:worker")

    def join(self) -> None:
        self._engine.join(TASKS, timeout=DEADLINE)

    def stop(self, timeout: float = DEADLINE) -> StopReport:
        try:
            return self._engine.stop_service("app:worker", timeout)
        except ShutdownTimeout as error:
            return error.report

    def info(self) -> QueueInfo:
        return self._engine.info(TASKS)

    def waiting(self, queue: str = TASKS) -> list[Message]:
        return self._engine.peek(queue, 10_000)

    def close(self) -> None:
        try:
            self._engine.stop(0.0)
        except ShutdownTimeout:
            pass


class Asyncio:
    in_threads = False

    def __init__(
        self,
        source: str,
        probe: Probe,
        *,
        retry: dict[str, Any] | None = None,
        dead_letter: int | None = None,
        max_length: int = 0,
        **fields: Any,
    ) -> None:
        driver = EntryId("app:memory")
        tasks = Queue(
            id=EntryId(TASKS),
            name="tasks",
            driver=driver,
            retry=RetryPolicy(**(retry or FAST_RETRY)),
            dead_letter=None if dead_letter is None else DeadLetter(queue=EntryId(OTHER), max_attempts=dead_letter),
        )
        options = MemoryQueueOptions(max_length=max_length)
        self._engine = AsyncioEngine(
            LoopSpec(
                queues=[tasks, Queue(id=EntryId(OTHER), name="other", driver=driver, options=options)],
                source=Source(
                    id=EntryId("app:handler"), text=source, name="handler.lua", modules=("probe", "queue", "time")
                ),
                modules={"probe": {"note": probe.note, "may_go": probe.may_go}},
                in_threads=self.in_threads,
                **fields,
            )
        )
        self.start, self.close = self._engine.start, self._engine.close

    def publish(self, bodies: Sequence[Any]) -> None:
        self._engine.publish(TASKS, bodies)

    def join(self) -> None:
        self._engine.join(DEADLINE)

    def stop(self, timeout: float = DEADLINE) -> StopReport:
        return self._engine.stop(timeout)

    def info(self) -> QueueInfo:
        return self._engine.info(TASKS)

    def waiting(self, queue: str = TASKS) -> list[Message]:
        return self._engine.waiting(queue)


class AsyncioThreads(Asyncio):
    in_threads = True


class Maker:
    """Makes the system under test, and closes it."""

    def __init__(self, kind: Any) -> None:
        self.probe = Probe()
        self._kind = kind
        self._made: list[System] = []

    def __call__(self, body: str, **fields: Any) -> System:
        source = f"""
            local probe, queue, time = require("probe"), require("queue"), require("time")
            local note = probe.note
            local function wait_for_the_test() while not probe.may_go() do time.sleep("1ms") end end
            return function(body) {body} end"""
        made: System = self._kind(source, self.probe, **fields)
        self._made.append(made)
        return made

    def close(self) -> None:
        self.probe.go.set()
        for system in self._made:
            system.close()


@pytest.fixture(params=[Threads, Asyncio, AsyncioThreads], ids=["threads", "asyncio", "asyncio-threads"])
def make(request: pytest.FixtureRequest) -> Iterator[Maker]:
    maker = Maker(request.param)
    yield maker
    maker.close()


def bodies(count: int, start: int = 0) -> list[dict[str, int]]:
    return [{"n": number} for number in range(start, start + count)]


def numbers(messages: Sequence[Message]) -> list[int]:
    return [int(message.body.decode().removeprefix('{"n":').removesuffix("}")) for message in messages]


def test_messages_are_handled_in_order_by_one_worker(make: Maker) -> None:
    system = make("note(body.n)", prefetch=7)
    system.publish(bodies(100))
    system.start()
    system.join()
    assert make.probe.notes == list(range(100))
    assert system.info().message_count == 0


def test_messages_that_come_while_it_runs_are_handled(make: Maker) -> None:
    system = make("note(body.n)", concurrency=3)
    system.start()
    for number in range(20):
        system.publish(bodies(1, number))
    system.join()
    assert sorted(make.probe.notes) == list(range(20))


def test_handlers_that_wait_run_at_the_same_time(make: Maker) -> None:
    system = make("note(body.n) wait_for_the_test()", concurrency=5)
    system.publish(bodies(5))
    system.start()
    eventually(lambda: len(make.probe.notes) == 5, "all five have begun")
    make.probe.go.set()
    system.join()


def test_a_message_never_waits_behind_a_slow_one_while_a_worker_idles(make: Maker) -> None:
    system = make("if body.n == 200 then wait_for_the_test() end note(body.n)", concurrency=2, prefetch=100)
    system.publish(bodies(400))
    system.start()
    eventually(lambda: len(make.probe.notes) == 399, "all but the slow one")
    make.probe.go.set()
    system.join()
    assert sorted(make.probe.notes) == list(range(400))


def test_no_more_is_out_of_the_queue_than_prefetch_and_concurrency(make: Maker) -> None:
    system = make("note(body.n) wait_for_the_test()", concurrency=3, prefetch=5)
    system.publish(bodies(50))
    system.start()
    eventually(lambda: system.info().in_flight == 8, "all workers and the buffer are full")
    assert system.info().ready == 42
    make.probe.go.set()
    system.join()


@pytest.mark.parametrize("failing", ["return false", "return nil, 'no'", "error('no')", "queue.message():nack()"])
def test_a_nack_comes_back_with_attempts_raised(make: Maker, failing: str) -> None:
    system = make(f"local a = queue.message():header('attempts') note(a) if a < 2 then {failing} end")
    system.publish(bodies(1))
    system.start()
    system.join()
    assert make.probe.notes == [0, 1, 2]


def test_a_nack_waits_before_the_next_attempt_and_keeps_no_worker(make: Maker) -> None:
    system = make("note(body.n) if body.n == 0 then return false end", retry={"initial_delay": 3600, "max_delay": 3600})
    system.publish(bodies(3))
    system.start()
    eventually(lambda: make.probe.notes == [0, 1, 2], "the others are handled")
    eventually(lambda: system.info().delayed == 1, "the first one waits")
    assert system.info().message_count == 1


def test_a_failure_in_the_middle_of_a_batch_is_that_messages_alone(make: Maker) -> None:
    system = make("if body.n % 10 == 3 then return false end note(queue.message():header('attempts'))", dead_letter=1)
    system.publish(bodies(200))
    system.start()
    system.join()
    assert make.probe.notes == [0] * 180
    assert numbers(system.waiting(OTHER)) == list(range(3, 200, 10))


def test_a_handler_that_takes_too_much_memory_fails_alone(make: Maker) -> None:
    system = make("note(body.n) if body.n == 5 then local t = {} while true do t[#t + 1] = {} end end", dead_letter=1)
    system.publish(bodies(20))
    system.start()
    system.join()
    assert make.probe.notes == list(range(20))
    [dead] = system.waiting(OTHER)
    assert "memory limit" in str(dead.headers["x_dead_letter_error"])


def test_what_was_settled_by_hand_stands(make: Maker) -> None:
    system = make("note((queue.message():ack())) note((queue.message():ack())) error('too late')")
    system.publish(bodies(3))
    system.start()
    eventually(lambda: make.probe.notes == [True, None] * 3, "all three have settled, and could not again")
    system.join()
    assert system.stop().abandoned == ()
    assert system.waiting() == []


def test_the_message_in_hand_is_the_right_one(make: Maker) -> None:
    system = make("note({body.n, queue.message():id()}) time.sleep('1ms') note({body.n, queue.message():id()})")
    system.publish(bodies(40))
    ids = {number: message.id for number, message in enumerate(system.waiting())}
    system.start()
    system.join()
    assert len(make.probe.notes) == 80
    assert all(ids[number] == message_id for number, message_id in make.probe.notes)


def test_too_many_failures_dead_letter_with_the_reason(make: Maker) -> None:
    system = make("note(body.n) error('never')", dead_letter=3)
    system.publish(bodies(1))
    system.start()
    system.join()
    assert make.probe.notes == [0, 0, 0]
    [dead] = system.waiting(OTHER)
    assert (dead.headers["attempts"], dead.headers["x_dead_letter_reason"]) == (3, "attempts")


def test_handlers_publish_to_other_queues(make: Maker) -> None:
    system = make("assert(queue.publish('app:other', {n = body.n}))", concurrency=2)
    system.publish(bodies(50))
    system.start()
    system.join()
    eventually(lambda: sorted(numbers(system.waiting(OTHER))) == list(range(50)), "all passed on")


def test_a_publish_to_a_full_queue_waits_and_is_cancelled_by_a_stop(make: Maker) -> None:
    system = make("local ok, err = queue.publish('app:other', body) if err then note(err:kind()) end return ok, err",
        max_length=2)  # fmt: skip
    system.publish(bodies(5))
    system.start()
    eventually(lambda: system.info().message_count == 3, "two were passed on, the third waits")
    report = system.stop()
    assert make.probe.notes == ["Canceled"]
    assert numbers(system.waiting()) == [2, 3, 4]
    assert [message.attempts for message in system.waiting()] == [0, 0, 0]
    assert report.abandoned == ()


def test_a_stop_lets_running_handlers_finish_and_hands_the_buffer_back_in_order(make: Maker) -> None:
    body = "note(body.n) while not probe.may_go() do local ok = time.sleep('1ms') if not ok then break end end"
    system = make(body, concurrency=2, prefetch=4)
    system.publish(bodies(10))
    ids = [message.id for message in system.waiting()]
    system.start()
    eventually(lambda: system.info().in_flight == 6, "two in hand, four in the buffer")
    report = system.stop()
    assert sorted(report.finished) == sorted(ids[:2])
    assert list(report.handed_back) == ids[2:6]
    assert report.abandoned == ()
    assert [message.id for message in system.waiting()] == ids[2:]
    assert [message.attempts for message in system.waiting()] == [0] * 8


def test_a_handler_that_was_cancelled_hands_its_message_back_uncounted(make: Maker) -> None:
    system = make("note(body.n) local ok, err = time.sleep('1h') return ok, err")
    system.publish(bodies(2))
    system.start()
    eventually(lambda: make.probe.notes == [0], "it sleeps")
    begun = time.monotonic()
    assert system.stop().abandoned == ()
    assert time.monotonic() - begun < DEADLINE / 4
    assert numbers(system.waiting()) == [0, 1]
    assert [message.attempts for message in system.waiting()] == [0, 0]


def test_a_handler_past_the_deadline_is_abandoned_and_its_message_goes_back(make: Maker) -> None:
    system = make("note(body.n) wait_for_the_test()")
    system.publish(bodies(1))
    [message] = system.waiting()
    system.start()
    eventually(lambda: make.probe.notes, "it runs")
    assert system.stop(0.05).abandoned == (message.id,)
    assert numbers(system.waiting()) == [0]
    assert system.waiting()[0].attempts == 0


def test_starting_and_stopping_at_random_moments_loses_nothing_and_repeats_no_success(make: Maker) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    print(f"seed {seed}")
    body = """
        if math.random() < 0.2 then local ok, err = time.sleep('2ms') if err then return nil, err end end
        if math.random() < 0.1 then return false end
        note(body.n)"""
    system = make(body, concurrency=4, prefetch=8)
    published = 0
    for _ in range(40):
        count = chance.randint(0, 60)
        system.publish([{"n": number} for number in range(published, published + count)])
        published += count
        system.start()
        time.sleep(chance.random() / 200)
        assert system.stop().abandoned == ()
        info = system.info()
        assert info.in_flight == 0
        assert info.message_count is not None
        assert info.message_count + len(make.probe.notes) == published
    system.start()
    system.join()
    assert collections.Counter(make.probe.notes) == dict.fromkeys(range(published), 1)
