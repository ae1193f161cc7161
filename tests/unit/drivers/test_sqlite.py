"""The sqlite driver inside one process: the contract, limits, dropping, leases, and what its errors say."""

from __future__ import annotations

import functools
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support import DEADLINE, eventually
from wippy_queue.delivery import Action, Delivery, Settlement
from wippy_queue.drivers.sqlite import KIND, statements
from wippy_queue.drivers.sqlite.database import SCHEMA_VERSION
from wippy_queue.drivers.sqlite.driver import SqliteDriver
from wippy_queue.drivers.sqlite.options import SqliteConfig, SqliteQueueOptions
from wippy_queue.drivers.sqlite.writer import Writer
from wippy_queue.errors import Conflict, Invalid, QueueFull, Timeout, Unavailable
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import DropReason, Queue

DRIVER = EntryId("app:disk")
SLACK = 3.0  # seconds by which a deadline may be missed on a slow machine
Opener = Callable[..., SqliteDriver]


def a_queue(name: str = "tasks", on_drop: Any = None, **options: Any) -> Queue:
    return Queue(
        id=EntryId(f"app:{name}"), name=name, driver=DRIVER, options=SqliteQueueOptions(**options), on_drop=on_drop
    )


def declared(*drivers: SqliteDriver, **options: Any) -> Queue:
    queue = a_queue(**options)
    for driver in drivers:
        driver.declare(queue)
    return queue


def a_message(name: str, **fields: Any) -> Message:
    return Message(**{"id": name, "body": name.encode(), "timestamp": time.time(), **fields})


def ids(found: Sequence[Delivery] | Sequence[Message]) -> list[str]:
    return [one.message.id if isinstance(one, Delivery) else one.id for one in found]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
def opener(file: Path) -> Iterator[Opener]:
    opened: list[SqliteDriver] = []

    def start(**config: Any) -> SqliteDriver:
        driver = SqliteDriver(DRIVER, SqliteConfig(**{"file": str(file), **config}))
        driver.start()
        opened.append(driver)
        for name in ("tasks", "other", "dead"):
            driver.declare(a_queue(name))
        return driver

    yield start
    for driver in opened:
        driver.stop(5.0)


@pytest.fixture
def driver(opener: Opener) -> SqliteDriver:
    return opener()


class Settled:
    """Collects what a settlement's callback was told."""

    def __init__(self) -> None:
        self.errors: list[Exception | None] = []
        self._told = threading.Semaphore(0)

    def __call__(self, error: Exception | None) -> None:
        self.errors.append(error)
        self._told.release()

    def wait(self) -> Exception | None:
        assert self._told.acquire(timeout=10), "the callback never came"
        return self.errors[-1]


def assert_totals_are_right(file: Path) -> None:
    """The counter beside each queue is what counting its rows would give."""
    with sqlite3.connect(file) as db:
        wrong = db.execute(
            "SELECT name, total, (SELECT count(*) FROM message WHERE queue = q.id AND state <= 2) AS counted"
            " FROM queue q WHERE total <> counted"
        ).fetchall()
        assert wrong == []
        lonely = "SELECT count(*) FROM payload WHERE id NOT IN (SELECT id FROM message)"
        assert db.execute(lonely).fetchone() == (0,), "bodies without a message"
    db.close()


# what a message is


def test_a_message_comes_back_as_it_was_published(driver: SqliteDriver) -> None:
    queue = a_queue()
    sent = Message(
        id="m-1",
        body=b"\x00\xff",
        encoding="binary",
        headers={"text": "é", "int": 7, "float": 1.5, "flag": True, "huge": float("inf")},
        timestamp=1234.5,
        attempts=3,
        priority=4,
        expires_at=4102444800.25,
    )
    driver.publish(queue, [sent], DEADLINE)
    delivery = driver.subscribe(queue, 5).receive(5, 1)[0]
    assert delivery.message == sent
    assert [type(value) for value in delivery.message.headers.values()] == [str, int, float, bool, float]


def test_messages_outlive_a_stop_and_a_start(driver: SqliteDriver, opener: Opener) -> None:
    driver.publish(a_queue(), [a_message("1"), a_message("2")], DEADLINE)
    driver.stop(5.0)
    driver.stop(5.0)
    with pytest.raises(Unavailable, match="not running"):
        driver.publish(a_queue(), [a_message("3")], DEADLINE)
    driver.start()
    driver.start()
    assert ids(driver.peek(a_queue(), 10)) == ["1", "2"]
    driver.stop(5.0)
    assert ids(opener().subscribe(a_queue(), 9).receive(9, 1)) == ["1", "2"]


def test_a_repeated_id_is_a_second_message(driver: SqliteDriver) -> None:
    driver.publish(a_queue(), [a_message("same"), a_message("same")], DEADLINE)
    assert driver.info(a_queue()).ready == 2


# order


def test_higher_priorities_come_first_and_equal_ones_in_order(driver: SqliteDriver) -> None:
    driver.publish(
        a_queue(), [a_message("a"), a_message("b", priority=9), a_message("c"), a_message("d", priority=9)], DEADLINE
    )
    assert ids(driver.subscribe(a_queue(), 9).receive(9, 1)) == ["b", "d", "a", "c"]


def test_a_release_goes_to_the_head_and_a_requeue_to_the_tail_with_what_it_was_given(driver: SqliteDriver) -> None:
    queue = a_queue()
    driver.publish(queue, [a_message("1"), a_message("2"), a_message("3")], DEADLINE)
    subscription = driver.subscribe(queue, 9)
    first, second = subscription.receive(2, 1)
    again = msgspec.structs.replace(second.message, attempts=1, headers={"why": "retry"})
    done = Settled()
    subscription.settle([Settlement(second, "requeue", again), Settlement(first, "release", done=done)])
    assert done.wait() is None
    deliveries = subscription.receive(9, 1)
    assert ids(deliveries) == ["1", "3", "2"]
    assert [delivery.message.attempts for delivery in deliveries] == [0, 0, 1]
    assert deliveries[2].message.headers == {"why": "retry"}


def test_a_delayed_message_wakes_a_waiting_consumer_when_it_is_due(driver: SqliteDriver) -> None:
    queue = a_queue()
    subscription = driver.subscribe(queue, 9)
    began = time.time()
    driver.publish(queue, [a_message("late", delay=2.0), a_message("now")], DEADLINE)
    info = driver.info(queue)
    assert (info.ready, info.delayed) == (1, 1)
    assert ids(subscription.receive(9, DEADLINE)) == ["now"]
    assert ids(subscription.receive(9, DEADLINE)) == ["late"]
    assert 1.99 < time.time() - began < 10


def test_a_requeue_with_a_delay_waits_in_the_file(driver: SqliteDriver) -> None:
    queue = a_queue()
    driver.publish(queue, [a_message("1")], DEADLINE)
    subscription = driver.subscribe(queue, 9)
    [delivery] = subscription.receive(9, 1)
    done = Settled()
    subscription.settle([Settlement(delivery, "requeue", delivery.message, 60, done)])
    assert done.wait() is None
    assert driver.info(queue).delayed == 1
    assert subscription.receive(9, 0) == []


# window, waking, stopping


def test_never_more_than_the_window_is_unsettled(driver: SqliteDriver) -> None:
    queue = a_queue()
    driver.publish(queue, [a_message(str(number)) for number in range(10)], DEADLINE)
    subscription = driver.subscribe(queue, 3)
    held = subscription.receive(2, 1)
    held += subscription.receive(9, 1)
    assert len(held) == 3
    assert subscription.receive(9, 0) == []
    threading.Timer(0.1, lambda: subscription.settle([Settlement(held[0])])).start()
    began = time.monotonic()
    assert ids(subscription.receive(9, 10)) == ["3"]
    assert time.monotonic() - began < 5


def test_a_publish_wakes_a_consumer_at_once(driver: SqliteDriver) -> None:
    subscription = driver.subscribe(a_queue(), 9)
    threading.Timer(0.1, lambda: driver.publish(a_queue(), [a_message("1")], DEADLINE)).start()
    began = time.monotonic()
    assert ids(subscription.receive(9, 10)) == ["1"]
    assert time.monotonic() - began < 2


def test_another_connection_s_publish_wakes_a_consumer(driver: SqliteDriver, opener: Opener) -> None:
    subscription = driver.subscribe(a_queue(), 9)
    threading.Timer(0.1, lambda: opener().publish(a_queue(), [a_message("1")], DEADLINE)).start()
    began = time.monotonic()
    assert ids(subscription.receive(9, 10)) == ["1"]
    assert time.monotonic() - began < 2


def test_cancel_wakes_receive_and_close_gives_back_in_order_and_uncounted(driver: SqliteDriver) -> None:
    queue = a_queue()
    subscription = driver.subscribe(queue, 9)
    threading.Timer(0.1, subscription.cancel).start()
    assert subscription.receive(9, 10) == []
    driver.publish(queue, [a_message("1"), a_message("2"), a_message("3")], DEADLINE)
    subscription = driver.subscribe(queue, 9)
    first, second, third = subscription.receive(9, 1)
    assert subscription.begin([second])
    done = Settled()
    subscription.settle([Settlement(first, done=done)])
    subscription.close(5.0)
    subscription.close(5.0)
    assert done.wait() is None
    late = Settled()
    subscription.settle([Settlement(third, done=late)])
    assert isinstance(late.wait(), Conflict)
    assert not subscription.begin([third])
    assert [(message.id, message.attempts) for message in driver.peek(queue, 9)] == [("2", 0), ("3", 0)]
    assert driver.info(queue).in_flight == 0


def test_a_stop_flushes_settles_gives_back_the_rest_and_leaves_no_boards(
    driver: SqliteDriver, opener: Opener, file: Path
) -> None:
    queue = a_queue()
    driver.publish(queue, [a_message(str(number)) for number in range(4)], DEADLINE)
    subscription = driver.subscribe(queue, 9)
    held = subscription.receive(9, 1)
    subscription.settle([Settlement(delivery) for delivery in held[:2]])
    driver.stop(5.0)
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name]
    assert ids(opener().peek(queue, 9)) == ["2", "3"]
    assert_totals_are_right(file)


def test_a_stop_frees_publishers_that_wait_for_room(driver: SqliteDriver) -> None:
    queue = declared(driver, max_length=1)
    driver.publish(queue, [a_message("1")], DEADLINE)
    threading.Timer(0.1, driver.stop, [5.0]).start()
    with pytest.raises(Unavailable, match="stopped") as caught:
        driver.publish(queue, [a_message("2")], 30)
    assert not isinstance(caught.value, QueueFull)


# limits


def test_a_full_queue_blocks_until_a_settle_makes_room_or_the_time_is_over(driver: SqliteDriver) -> None:
    queue = declared(driver, max_length=2)
    driver.publish(queue, [a_message("1"), a_message("2", delay=60)], DEADLINE)
    with pytest.raises(QueueFull, match="max_length is 2"):
        driver.publish(queue, [a_message("3")], 0.05)
    subscription = driver.subscribe(queue, 9)
    [delivery] = subscription.receive(9, 1)
    with pytest.raises(QueueFull):  # in flight counts too
        driver.publish(queue, [a_message("3")], 0)
    threading.Timer(0.1, lambda: subscription.settle([Settlement(delivery)])).start()
    driver.publish(queue, [a_message("3")], 10)
    assert driver.info(queue).message_count == 2


def test_another_connection_s_settle_makes_room(driver: SqliteDriver, opener: Opener) -> None:
    queue = declared(driver, max_length=1)
    driver.publish(queue, [a_message("1")], DEADLINE)
    threading.Timer(0.1, lambda: opener().purge(queue)).start()
    driver.publish(queue, [a_message("2")], 10)
    assert ids(driver.peek(queue, 9)) == ["2"]


def test_a_higher_limit_lets_waiting_publishers_in(driver: SqliteDriver) -> None:
    queue = declared(driver, max_length=1)
    driver.publish(queue, [a_message("1")], DEADLINE)
    threading.Timer(0.1, lambda: declared(driver, max_length=0)).start()
    began = time.monotonic()
    driver.publish(queue, [a_message("2")], 10)
    assert time.monotonic() - began < 5


def test_reject_is_full_at_once_and_all_or_nothing(driver: SqliteDriver) -> None:
    queue = declared(driver, max_length=2, overflow="reject")
    driver.publish(queue, [a_message("1")], DEADLINE)
    with pytest.raises(QueueFull) as caught:
        driver.publish(queue, [a_message("2"), a_message("3")], 30)
    assert caught.value.details["accepted"] == []
    assert ids(driver.peek(queue, 9)) == ["1"]


def test_a_batch_that_never_fits_is_refused_at_once(driver: SqliteDriver) -> None:
    with pytest.raises(QueueFull, match="never fit") as caught:
        driver.publish(declared(driver, max_length=1), [a_message("1"), a_message("2")], 30)
    assert caught.value.retryable is False


def test_a_requeue_and_a_release_are_always_admitted(driver: SqliteDriver) -> None:
    queue = declared(driver, max_length=2)
    driver.publish(queue, [a_message("1"), a_message("2")], DEADLINE)
    subscription = driver.subscribe(queue, 9)
    first, second = subscription.receive(9, 1)
    done = Settled()
    subscription.settle([Settlement(first, "requeue", first.message), Settlement(second, "release", done=done)])
    assert done.wait() is None
    assert driver.info(queue).ready == 2


# dropping


def test_drop_oldest_hands_the_oldest_over_and_keeps_them_while_that_fails(
    driver: SqliteDriver, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wippy_queue.drivers.sqlite.dropper._RETRY", 200)
    dropped: list[tuple[list[str], DropReason]] = []
    enough = threading.Event()

    def on_drop(messages: Sequence[Message], reason: DropReason) -> None:
        dropped.append((ids(messages), reason))
        if len(dropped) == 1:
            raise RuntimeError("the dead-letter queue is away")
        driver.publish(a_queue("dead"), messages, DEADLINE)  # the same driver, from inside
        enough.set()

    queue = declared(driver, max_length=2, overflow="drop_oldest", on_drop=on_drop)
    driver.publish(queue, [a_message("1", priority=1), a_message("2"), a_message("3"), a_message("4")], DEADLINE)
    assert dropped == [(["2", "3"], "maxlen")]
    assert ids(driver.peek(queue, 9)) == ["1", "4"]
    assert not driver.wait_idle(queue, 0)
    assert enough.wait(10)
    assert dropped[1:] == [(["2", "3"], "maxlen")]
    assert ids(driver.peek(a_queue("dead"), 9)) == ["2", "3"]
    driver.stop(5.0)
    assert_totals_are_right(file)


def test_drop_oldest_without_on_drop_forgets(driver: SqliteDriver, file: Path) -> None:
    queue = declared(driver, max_length=2, overflow="drop_oldest")
    for number in range(5):
        driver.publish(queue, [a_message(str(number))], DEADLINE)
    assert ids(driver.peek(queue, 9)) == ["3", "4"]
    assert driver.info(queue).message_count == 2
    driver.stop(5.0)
    assert_totals_are_right(file)


def test_expired_messages_are_dropped_and_never_delivered(driver: SqliteDriver, file: Path) -> None:
    dropped: list[str] = []
    enough = threading.Event()

    def on_drop(messages: Sequence[Message], reason: DropReason) -> None:
        assert reason == "expired"
        dropped.extend(ids(messages))
        if len(dropped) == 2:
            enough.set()

    queue = declared(driver, message_ttl=0.3, on_drop=on_drop)
    driver.publish(queue, [a_message("by the queue"), a_message("by itself", expires_at=time.time() + 0.05)], DEADLINE)
    assert enough.wait(10)
    assert sorted(dropped) == ["by itself", "by the queue"]
    assert driver.wait_idle(queue, 10)
    driver.publish(a_queue("other"), [a_message("old", expires_at=time.time() - 1)], DEADLINE)
    assert driver.subscribe(a_queue("other"), 9).receive(9, 0) == []
    driver.stop(5.0)
    assert_totals_are_right(file)


# looking


def test_info_peek_and_purge(driver: SqliteDriver, file: Path) -> None:
    queue = a_queue()
    assert driver.info(a_queue("never seen")).message_count == 0
    driver.publish(queue, [a_message("1"), a_message("2"), a_message("3", delay=60), a_message("4")], DEADLINE)
    subscription = driver.subscribe(queue, 1)
    subscription.receive(1, 1)
    info = driver.info(queue)
    assert (info.message_count, info.ready, info.in_flight, info.delayed, info.consumer_count) == (4, 2, 1, 1, 1)
    assert ids(driver.peek(queue, 9)) == ["2", "4", "3"]
    assert ids(driver.peek(queue, 1)) == ["2"]
    assert driver.purge(queue) == 3
    assert driver.info(queue).message_count == 1
    driver.stop(5.0)
    assert_totals_are_right(file)


def test_wait_idle_ends_with_the_last_settle(driver: SqliteDriver) -> None:
    queue = a_queue()
    assert driver.wait_idle(queue, 0)
    driver.publish(queue, [a_message("1")], DEADLINE)
    subscription = driver.subscribe(queue, 9)
    [delivery] = subscription.receive(9, 1)
    assert not driver.wait_idle(queue, 0.05)
    threading.Timer(0.1, lambda: subscription.settle([Settlement(delivery)])).start()
    assert driver.wait_idle(queue, 10)


# leases


def test_an_owner_that_hangs_loses_its_messages_and_can_no_longer_settle(driver: SqliteDriver, opener: Opener) -> None:
    """Its keeper stands still, as in a process that was suspended; what had begun is an attempt, the rest is not."""
    hung = opener(lease=0.4)
    driver.stop(5.0)
    queue = a_queue()
    hung.publish(queue, [a_message("begun"), a_message("buffered")], DEADLINE)
    subscription = hung.subscribe(queue, 9)
    begun, buffered = subscription.receive(9, 1)
    assert subscription.begin([begun])
    subscription.keep = lambda: None  # type: ignore[method-assign]

    rescuer = opener()
    other = rescuer.subscribe(queue, 9)
    taken = other.receive(9, 10)
    assert [(one.message.id, one.message.attempts) for one in taken] == [("begun", 1), ("buffered", 0)]
    assert not subscription.begin([buffered])
    done = Settled()
    subscription.settle([Settlement(begun, done=done)])
    assert isinstance(done.wait(), Conflict)

    settled = Settled()
    other.settle([Settlement(taken[0], done=settled), Settlement(taken[1], "release")])
    assert settled.wait() is None
    other.close(5.0)
    assert ids(subscription.receive(9, 10)) == ["buffered"]  # it consumes again, under a new lease


def test_leases_of_what_is_buffered_and_what_runs_are_extended(opener: Opener) -> None:
    queue = a_queue()
    holder, other = opener(lease=2.0), opener(lease=2.0)
    holder.publish(queue, [a_message("1"), a_message("2")], DEADLINE)
    subscription = holder.subscribe(queue, 9)
    first, second = subscription.receive(9, 1)
    assert subscription.begin([first])
    assert other.subscribe(queue, 9).receive(9, 3.5) == []  # one extension is not enough
    assert subscription.begin([second])
    done = Settled()
    subscription.settle([Settlement(first), Settlement(second, done=done)])
    assert done.wait() is None


def test_a_settle_waits_for_another_process_s_lock_to_go(driver: SqliteDriver, file: Path) -> None:
    queue = a_queue()
    driver.publish(queue, [a_message("1")], DEADLINE)
    subscription = driver.subscribe(queue, 9)
    [delivery] = subscription.receive(9, 1)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    done = Settled()
    began = time.monotonic()
    subscription.settle([Settlement(delivery, done=done)])
    assert time.monotonic() - began < 2.0, "settle must not wait for the database"
    other.execute("ROLLBACK")
    other.close()
    assert done.wait() is None


def test_who_has_little_time_is_told_in_time_though_others_wait_longer_for_the_lock(
    driver: SqliteDriver, file: Path
) -> None:
    """Whoever came first waits with the connection in hand, which holds up nobody who has less time."""
    queue = a_queue()
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    patient = threading.Thread(target=driver.publish, args=(queue, [a_message("patient")], 4), daemon=True)
    patient.start()
    assert driver._open is not None
    eventually(driver._open.writer._connection_lock.locked, "the first one waits for the file")
    began = time.monotonic()
    with pytest.raises(Timeout):
        driver.publish(queue, [a_message("hasty")], 0.2)
    assert time.monotonic() - began < 2.0
    assert patient.is_alive(), "and the first one still waits"
    other.execute("ROLLBACK")
    other.close()
    patient.join(DEADLINE)
    assert ids(driver.peek(queue, 9)) == ["patient"]


def test_who_waits_for_the_lock_first_does_not_wait_for_those_that_came_later(driver: SqliteDriver, file: Path) -> None:
    """Its time is over: those that have more are somebody else's to wait with, and lose nothing by that."""
    queue = a_queue()
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    told: list[float] = []

    def hasty() -> None:
        with pytest.raises(Timeout):
            driver.publish(queue, [a_message("hasty")], 0.5)
        told.append(time.monotonic() - began)

    first = threading.Thread(target=hasty, daemon=True)
    first.start()
    assert driver._open is not None
    eventually(driver._open.writer._connection_lock.locked, "the first one waits for the file")
    patient = threading.Thread(target=driver.publish, args=(queue, [a_message("patient")], DEADLINE), daemon=True)
    patient.start()
    first.join(4.0)
    assert told, "the first one still waits"
    assert patient.is_alive()
    other.execute("ROLLBACK")
    other.close()
    patient.join(DEADLINE)
    assert ids(driver.peek(queue, 9)) == ["patient"]


def test_a_stop_keeps_its_deadline_while_another_process_has_the_file_locked(opener: Opener, file: Path) -> None:
    """With many consumers too; what they could not settle comes again."""
    driver = opener()
    queue = a_queue()
    driver.publish(queue, [a_message(str(number)) for number in range(20)], DEADLINE)
    subscriptions = [driver.subscribe(queue, 1) for _ in range(20)]
    held = [delivery for subscription in subscriptions for delivery in subscription.receive(1, 1)]
    done = Settled()
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    refused: list[Exception] = []

    def publish() -> None:
        try:
            driver.publish(queue, [a_message("late")], 30)
        except (Unavailable, Timeout) as error:
            refused.append(error)

    publisher = threading.Thread(target=publish, daemon=True)
    publisher.start()
    for subscription, delivery in zip(subscriptions, held, strict=True):
        assert delivery.claim()
        subscription.settle([Settlement(delivery, done=done)])
    began = time.monotonic()
    subscriptions[0].close(0.2)
    assert time.monotonic() - began < 0.2 + SLACK
    assert [type(error) for error in done.errors] == [Conflict]
    driver.stop(0.3)
    assert time.monotonic() - began < 0.5 + SLACK
    assert [type(error) for error in done.errors] == [Conflict] * 20
    publisher.join(DEADLINE)
    assert refused
    other.execute("ROLLBACK")
    other.close()
    again = opener().subscribe(queue, 20)
    received: list[str] = []
    while len(received) < 20 and (deliveries := again.receive(20, 5.0)):
        received += ids(deliveries)
    assert sorted(received, key=int) == [str(number) for number in range(20)]


def test_a_close_does_not_wait_for_a_commit_that_takes_long_and_tells_no_settlement_twice(
    driver: SqliteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = a_queue()
    driver.publish(queue, [a_message("1")], DEADLINE)
    subscription = driver.subscribe(queue, 1)
    [delivery] = subscription.receive(1, 1)
    settle, slow, go_on = statements.settle, threading.Event(), threading.Event()

    def settle_slowly(*arguments: Any, **fields: Any) -> None:
        slow.set()
        assert go_on.wait(10)
        settle(*arguments, **fields)

    monkeypatch.setattr(statements, "settle", settle_slowly)
    done = Settled()
    assert delivery.claim()
    subscription.settle([Settlement(delivery, done=done)])
    assert slow.wait(10)
    subscription.close(0.1)
    assert [type(error) for error in done.errors] == [Conflict]
    go_on.set()
    driver.stop(5.0)
    assert len(done.errors) == 1


# group commit


def test_threads_share_commits_and_every_confirmed_message_is_there(driver: SqliteDriver, file: Path) -> None:
    commits = _count_commits(driver)
    queue = a_queue()
    barrier = threading.Barrier(16)

    def publish(thread: int) -> None:
        barrier.wait()
        for number in range(20):
            driver.publish(queue, [a_message(f"{thread}-{number}")], 10)

    threads = [threading.Thread(target=publish, args=(thread,)) for thread in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = ids(driver.peek(queue, 1000))
    assert sorted(stored) == sorted(f"{thread}-{number}" for thread in range(16) for number in range(20))
    for thread_number in range(16):  # each thread's own order holds
        mine = [name for name in stored if name.startswith(f"{thread_number}-")]
        assert mine == [f"{thread_number}-{number}" for number in range(20)]
    assert commits() < 320
    driver.stop(5.0)
    assert_totals_are_right(file)


def _count_commits(driver: SqliteDriver) -> Callable[[], int]:
    assert driver._open is not None
    seen: list[str] = []
    driver._open.writer._connection.set_trace_callback(seen.append)
    return lambda: seen.count("COMMIT")


def test_one_call_that_fails_does_not_undo_the_others_of_its_batch(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "plain.db", isolation_level=None, check_same_thread=False)
    connection.execute("CREATE TABLE t (n INTEGER)")
    writer = Writer(connection, "plain.db", full_sync=False, name="test-writer")
    told = [Settled() for _ in range(3)]

    def insert_and_raise(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO t VALUES (2)")
        raise RuntimeError("mine alone")

    with writer._connection_lock:  # so that the three form one batch
        writer.post(lambda db: db.execute("INSERT INTO t VALUES (1)"), lambda _, error: told[0](error), timeout=1)
        writer.post(insert_and_raise, lambda _, error: told[1](error), timeout=1)
        writer.post(lambda db: db.execute("INSERT INTO t VALUES (3)"), lambda _, error: told[2](error), timeout=1)
    assert [one.wait() is None for one in told] == [True, False, True]
    assert writer.run(lambda db: db.execute("SELECT n FROM t ORDER BY n").fetchall(), timeout=1) == [(1,), (3,)]
    writer.close()


# everything at once


def test_a_graceful_life_loses_nothing_and_delivers_nothing_twice(opener: Opener, file: Path) -> None:
    """Two drivers on one file, publishers, and consumers that come and go, settle out of order, release and retry."""
    drivers = [opener(durability="normal"), opener(durability="normal")]
    queue = declared(*drivers, max_length=40)
    published: set[str] = set()
    acked: list[str] = []
    lost: list[Exception] = []
    over = threading.Event()

    def publish(seed: int) -> None:
        dice = random.Random(seed)
        for number in range(40):
            batch = [
                a_message(f"{seed}-{number}-{part}", priority=dice.randint(0, 9), delay=dice.choice([0, 0, 0.02]))
                for part in range(dice.randint(1, 5))
            ]
            drivers[seed % 2].publish(queue, batch, 30)
            published.update(ids(batch))

    def done(delivery: Delivery, action: str, error: Exception | None) -> None:
        if error is not None:
            lost.append(error)
        elif action == "ack":
            acked.append(delivery.message.id)

    def consume(seed: int) -> None:
        dice = random.Random(seed)
        while not over.is_set():
            subscription = drivers[seed % 2].subscribe(queue, dice.randint(1, 15))
            held: list[Delivery] = []
            for _ in range(dice.randint(1, 10)):
                held += subscription.receive(dice.randint(1, 10), 0.02)
                dice.shuffle(held)
                while len(held) > 3:
                    one = held.pop()
                    subscription.begin([one])
                    action: Action = dice.choice(["ack", "ack", "release", "requeue"])
                    told = functools.partial(done, one, action)
                    subscription.settle([Settlement(one, action, one.message, dice.choice([0, 0.02]), told)])
            subscription.settle([Settlement(one, done=functools.partial(done, one, "ack")) for one in held[:2]])
            subscription.close(5.0)  # and gives back the others

    publishers = [threading.Thread(target=publish, args=(seed,)) for seed in range(3)]
    consumers = [threading.Thread(target=consume, args=(seed,)) for seed in range(3)]
    for thread in publishers + consumers:
        thread.start()
    for thread in publishers:
        thread.join()
    idle = drivers[0].wait_idle(queue, 30)
    over.set()
    for thread in consumers:
        thread.join()
    for driver in drivers:
        driver.stop(5.0)
    assert idle
    assert lost == []
    assert sorted(acked) == sorted(published)
    assert_totals_are_right(file)


def test_a_lone_caller_never_overtakes_what_was_handed_in_before(tmp_path: Path) -> None:
    """Else the close of a subscription could release rows whose ack still waits for the writer's thread."""
    connection = sqlite3.connect(tmp_path / "plain.db", isolation_level=None, check_same_thread=False)
    writer = Writer(connection, "plain.db", full_sync=False, name="test-writer")
    busy, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def hold_the_thread(_result: object, _error: Exception | None) -> None:
        busy.set()
        assert go_on.wait(10)

    writer.post(lambda _: order.append("held"), hold_the_thread, timeout=1)
    assert busy.wait(10)
    writer.post(lambda _: order.append("first"), lambda _, __: None, timeout=1)
    threading.Timer(0.1, go_on.set).start()
    writer.run(lambda _: order.append("second"), timeout=1)
    writer.close()
    assert order == ["held", "first", "second"]


# what can go wrong with the file


def test_a_full_disk_fails_publishers_confirms_nothing_and_is_survived(driver: SqliteDriver) -> None:
    """The file may not grow for a while: the commit fails, the message is not there, and the driver goes on."""
    queue = a_queue()
    driver.publish(queue, [a_message("before")], DEADLINE)
    subscription = driver.subscribe(queue, 9)
    assert driver._open is not None
    writer = driver._open.writer
    with writer._connection_lock:
        pages = writer._connection.execute("PRAGMA page_count").fetchone()[0]
        writer._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(Unavailable, match="disk is full"):
        driver.publish(queue, [a_message("too much", body=bytes(100_000))], DEADLINE)
    with writer._connection_lock:
        writer._connection.execute("PRAGMA max_page_count = 1000000")
    driver.publish(queue, [a_message("after")], DEADLINE)
    assert ids(subscription.receive(9, 1)) == ["before", "after"]


@pytest.mark.parametrize(
    ("trouble", "cure"),
    [
        ("PRAGMA query_only = 1", "PRAGMA query_only = 0"),  # the transaction does not even begin
        (
            "PRAGMA max_page_count = 1",
            "PRAGMA max_page_count = 1000000",
        ),  # it fails half-way; 1 means: no more than now
    ],
)
def test_a_settle_that_the_disk_refuses_is_repeated(
    opener: Opener, trouble: str, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wippy_queue.drivers.sqlite.keeper._ROUND", 0.1)
    driver, queue = opener(), a_queue()
    driver.publish(queue, [a_message("1")], DEADLINE)
    subscription = driver.subscribe(queue, 9)
    [delivery] = subscription.receive(9, 1)
    assert driver._open is not None
    writer = driver._open.writer
    with writer._connection_lock:
        writer._connection.execute(trouble)
    done = Settled()
    bigger = msgspec.structs.replace(delivery.message, attempts=1, body=bytes(100_000))
    subscription.settle([Settlement(delivery, "requeue", bigger, done=done)])
    with pytest.raises(Unavailable):
        driver.publish(queue, [a_message("2", body=bytes(100_000))], DEADLINE)
    assert done.errors == []
    with writer._connection_lock:
        writer._connection.execute(cure)
    assert done.wait() is None
    assert [message.attempts for message in driver.peek(queue, 9)] == [1]


def test_a_missing_folder_is_named_with_its_cure(tmp_path: Path) -> None:
    driver = SqliteDriver(DRIVER, SqliteConfig(file=str(tmp_path / "none" / "queue.db")))
    with pytest.raises(Unavailable, match=rf"{tmp_path}/none/queue.db.*make the folder {tmp_path}/none"):
        driver.start()
    (tmp_path / "none").mkdir()
    driver.start()
    driver.stop(5.0)


def test_a_file_that_is_no_database_is_refused_and_left_alone(file: Path) -> None:
    file.write_text("precious text, long enough to be taken for a header " * 20)
    before = file.read_bytes()
    with pytest.raises(Invalid, match="not an SQLite database"):
        SqliteDriver(DRIVER, SqliteConfig(file=str(file))).start()
    assert file.read_bytes() == before


def test_another_program_s_database_and_a_newer_schema_are_refused(tmp_path: Path) -> None:
    for name, statement in (("other", "CREATE TABLE t (x)"), ("newer", f"PRAGMA user_version = {SCHEMA_VERSION + 1}")):
        with sqlite3.connect(tmp_path / name) as db:
            db.execute(statement)
        db.close()
    with sqlite3.connect(tmp_path / "versioned") as db:
        db.executescript("CREATE TABLE t (x); PRAGMA user_version = 1")
    db.close()
    for name in ("other", "versioned"):
        with pytest.raises(Invalid, match="another program"):
            SqliteDriver(DRIVER, SqliteConfig(file=str(tmp_path / name))).start()
        with sqlite3.connect(tmp_path / name) as db:
            assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",), "nothing was changed in it"
        db.close()
    with pytest.raises(Invalid, match="newer wippy_queue"):
        SqliteDriver(DRIVER, SqliteConfig(file=str(tmp_path / "newer"))).start()
    with pytest.raises(Invalid, match=r"queue\.driver\.memory"):
        SqliteDriver(DRIVER, SqliteConfig(file=":memory:")).start()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_read_only_file_is_said_so(driver: SqliteDriver, file: Path) -> None:
    driver.stop(5.0)
    file.chmod(0o444)
    with pytest.raises(Unavailable, match="cannot be written"):
        driver.start()


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_durability_is_sqlite_s_synchronous(opener: Opener, durability: str) -> None:
    driver = opener(durability=durability)
    assert driver._open is not None
    setting = driver._open.writer.run(lambda db: db.execute("PRAGMA synchronous").fetchone()[0], timeout=1)
    assert setting == {"full": 2, "normal": 1}[durability]


def test_a_forked_child_is_told_to_be_spawned_instead(driver: SqliteDriver) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # no assertion may escape from here
        answer = b"no error"
        try:
            driver.publish(a_queue(), [a_message("1")], DEADLINE)
        except Conflict as error:
            answer = str(error).encode()
        finally:
            os.write(writing, answer)
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        assert b"method spawn" in pipe.read()


def test_the_kind_says_what_it_can() -> None:
    assert KIND.short_name == "sqlite"
    assert KIND.capabilities.durable
    assert KIND.capabilities.shared
    assert KIND.capabilities.leases
    assert KIND.capabilities.exact_attempts
    assert not KIND.capabilities.idempotent_publish


def test_waiting_costs_next_to_no_cpu(driver: SqliteDriver) -> None:
    subscription = driver.subscribe(a_queue(), 9)
    before = time.process_time()
    assert subscription.receive(9, 1) == []
    assert time.process_time() - before < 0.1
