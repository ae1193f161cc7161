"""Calls of ten for what many threads ask for, and the threads that make them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from tests.support import DEADLINE, eventually
from wippy_queue.drivers.sqs.batches import Batches, Item
from wippy_queue.drivers.sqs.pool import Pool
from wippy_queue.errors import Canceled, Invalid, RateLimited, Timeout, Unavailable, WippyQueueError

PASSING = RateLimited("slow down")


@pytest.fixture
def calls() -> Iterator[Pool]:
    pool = Pool(4, "test")
    yield pool
    pool.close()
    assert pool.wait_quiet(time.monotonic() + DEADLINE)


class Told:
    """Collects what items are told."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.results: dict[int, WippyQueueError | None] = {}
        self.times = 0

    def item(self, number: int, within: float = DEADLINE, size: int = 0) -> Item:
        until = time.monotonic() + within

        def done(error: WippyQueueError | None) -> None:
            with self._changed:
                self.results[number] = error
                self.times += 1
                self._changed.notify_all()

        return Item(entry={"n": number}, until=lambda: until, done=done, size=size)

    def wait(self, count: int) -> dict[int, WippyQueueError | None]:
        with self._changed:
            assert self._changed.wait_for(lambda: self.times >= count, DEADLINE), self.results
            assert self.times == count, "nobody is told twice"
            return dict(self.results)


class Service:
    """Takes batches; `answers` says what it does with one after the other, and well is what it does then."""

    def __init__(self, *answers: Any) -> None:
        self.batches: list[list[int]] = []
        self.answers = list(answers)
        self.open = threading.Event()
        self.open.set()

    def send(self, entries: Sequence[Mapping[str, Any]]) -> Mapping[int, WippyQueueError]:
        self.batches.append([entry["n"] for entry in entries])
        assert self.open.wait(DEADLINE)
        answer = self.answers.pop(0) if self.answers else {}
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


def test_a_batch_forms_while_the_last_one_is_under_way(calls: Pool) -> None:
    service, told = Service(), Told()
    service.open.clear()
    batches = Batches(service.send, calls, width=1)
    batches.add([told.item(0)])
    while not service.batches:
        time.sleep(0.001)
    for number in range(1, 26):
        batches.add([told.item(number)])
    service.open.set()
    assert told.wait(26) == dict.fromkeys(range(26))
    assert [len(batch) for batch in service.batches] == [1, 10, 10, 5]


def test_a_batch_is_no_larger_than_it_may_be(calls: Pool) -> None:
    service, told = Service(), Told()
    Batches(service.send, calls, width=1, largest=100).add([told.item(n, size=40) for n in range(5)])
    told.wait(5)
    assert service.batches == [[0, 1], [2, 3], [4]]


def test_every_entry_that_failed_is_looked_at(calls: Pool) -> None:
    """One is repeated alone, one is hopeless, and the others are through."""
    hopeless = Invalid("no")
    service, told = Service({1: PASSING, 2: hopeless}), Told()
    Batches(service.send, calls, width=1).add([told.item(n) for n in range(4)])
    assert told.wait(4) == {0: None, 1: None, 2: hopeless, 3: None}
    assert service.batches == [[0, 1, 2, 3], [1]]


def test_a_call_that_failed_as_a_whole_is_repeated_in_order(calls: Pool) -> None:
    service, told = Service(PASSING, Unavailable("away")), Told()
    batches = Batches(service.send, calls, width=1)
    batches.add([told.item(n) for n in range(12)])
    assert told.wait(12) == dict.fromkeys(range(12))
    assert service.batches == [list(range(10))] * 3 + [[10, 11]]


def test_what_is_not_taken_in_time_is_told_why(calls: Pool) -> None:
    service, told = Service(*[PASSING] * 100), Told()
    Batches(service.send, calls, width=1).add([told.item(0, within=0.1)])
    assert told.wait(1) == {0: PASSING}


def test_what_is_out_of_time_is_not_sent(calls: Pool) -> None:
    service, told = Service(), Told()
    Batches(service.send, calls, width=1).add([told.item(0, within=-1), told.item(1)])
    results = told.wait(2)
    assert isinstance(results[0], Timeout)
    assert results[1] is None
    assert service.batches == [[1]]


def test_what_is_withdrawn_is_not_sent(calls: Pool) -> None:
    service, told = Service(), Told()
    item = told.item(0)
    item.withdrawn = True
    Batches(service.send, calls, width=1).add([item])
    assert isinstance(told.wait(1)[0], Canceled)
    assert service.batches == []


def test_a_sweep_tells_at_once_what_waits_for_better_times(calls: Pool) -> None:
    service, told = Service(), Told()
    service.open.clear()
    batches = Batches(service.send, calls, width=1)
    batches.add([told.item(0)])
    while not service.batches:
        time.sleep(0.001)
    item = told.item(1)
    batches.add([item])
    item.withdrawn = True
    batches.sweep()
    assert set(told.wait(1)) == {1}
    service.open.set()
    told.wait(2)


def test_a_close_tells_what_waits_and_what_comes_later(calls: Pool) -> None:
    service, told = Service(PASSING), Told()
    service.open.clear()
    batches = Batches(service.send, calls, width=1)
    batches.add([told.item(n) for n in range(11)])
    while not service.batches:
        time.sleep(0.001)
    stopped = Unavailable("stopped")
    batches.close(stopped)
    assert told.wait(1) == {10: stopped}
    service.open.set()
    assert set(told.wait(11).values()) == {stopped, PASSING}, "no repetition after a close"
    batches.add([told.item(11)])
    assert told.wait(12)[11] is stopped


def test_an_error_of_ours_leaves_nobody_waiting(calls: Pool, caplog: pytest.LogCaptureFixture) -> None:
    service, told = Service(KeyError("oops")), Told()
    Batches(service.send, calls, width=1).add([told.item(0)])
    error = told.wait(1)[0]
    assert "oops" in str(error)


# the pool


def test_jobs_run_when_they_are_due() -> None:
    pool = Pool(1, "test")  # two threads might run two jobs that are late in any order
    order: list[str] = []
    done = threading.Event()
    pool.run(done.set, 1.5)
    pool.run(lambda: order.append("late"), 1.0)
    pool.run(lambda: order.append("soon"), 0.5)
    pool.run(lambda: order.append("now"))
    assert done.wait(DEADLINE)
    assert order == ["now", "soon", "late"]
    pool.close()


def test_a_job_that_is_due_is_not_missed_while_other_threads_are_busy() -> None:
    pool = Pool(2, "test")
    release, ran = threading.Event(), threading.Event()
    pool.run(ran.set, 0.3)
    eventually(lambda: pool._idle, "a thread waits for that")

    def block() -> None:
        release.wait(2 * DEADLINE)

    pool.run(block)
    assert ran.wait(DEADLINE)
    release.set()
    pool.close()


def test_threads_are_few_and_who_comes_last_waits() -> None:
    pool = Pool(2, "few")
    release, finished = threading.Event(), threading.Semaphore(0)

    def job() -> None:
        release.wait(DEADLINE)
        finished.release()

    for _ in range(6):
        pool.run(job)
    while not pool.crowded:
        time.sleep(0.001)
    assert sum(thread.name.startswith("few-") for thread in threading.enumerate()) == 2
    release.set()
    for _ in range(6):
        assert finished.acquire(timeout=DEADLINE)
    assert pool.wait_quiet(time.monotonic() + DEADLINE)
    pool.close()


def test_a_job_that_raises_is_logged_and_the_thread_goes_on(calls: Pool, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    done = threading.Event()
    pool = Pool(1, "one")
    pool.run(fail)
    pool.run(done.set)
    assert done.wait(DEADLINE)
    assert "ZeroDivisionError" in caplog.text
    pool.close()
