"""What a review of the hot path found: slow settles and loads, kills, odd exceptions, other messages of a hand."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.test_engine import AUTO, MEMORY, consumer, engine_of, lua
from tests.support import DEADLINE, eventually, message, queue
from tests.unit.lua.support import Published, make_delivery, make_function, make_host, make_worker
from wippy_queue import Engine, ShutdownTimeout, Timeout, Unavailable
from wippy_queue.drivers.memory import MemoryDriver, MemoryQueueOptions
from wippy_queue.events import Event, WorkerDied, WorkerStuck
from wippy_queue.flow.burial import Burial
from wippy_queue.flow.pool import WorkerPool
from wippy_queue.handler import ACK
from wippy_queue.ids import EntryId
from wippy_queue.lua.limits import Deadline

DEAD = {"name": "dead", "kind": "queue.queue", "driver": "memory"}
DYING = {**DEAD, "name": "tasks", "dead_letter": {"queue": "dead", "max_attempts": 1}}
PARKED = {**DEAD, "name": "tasks", "retry": {"max_attempts": 1}}


@pytest.fixture
def slow_burial(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """An event for which every dead letter waits."""
    go_on = threading.Event()
    bury = Burial.bury

    def wait_and_bury(self: Burial, *arguments: Any, **options: Any) -> None:
        assert go_on.wait(DEADLINE)
        bury(self, *arguments, **options)

    monkeypatch.setattr(Burial, "bury", wait_and_bury)
    yield go_on
    go_on.set()


def test_a_dead_letter_that_takes_its_time_keeps_no_other_message_waiting(slow_burial: threading.Event) -> None:
    """The rest of the hand went back only when the failed message was settled, and nobody was woken for the buffer."""
    source = """
    local test = require("test")
    return function(body)
        if body == "fail" then error("no") end
        if body ~= "fast" then test.note(body) end
    end"""
    seen: list[int] = []
    engine = Engine.from_entries(
        [MEMORY, DEAD, DYING, lua("handler", source, modules=["test"]), consumer(concurrency=4, prefetch=200)]
    )
    engine.module("test", {"note": seen.append})
    with engine:
        engine.publish_many("app:tasks", ["fast"] * 2000)
        engine.join("app:tasks", timeout=DEADLINE)
        engine.publish_many("app:tasks", ["fail", *range(10)])
        eventually(lambda: len(seen) == 10, "those behind are handled")
        slow_burial.set()


def test_a_dead_letter_that_takes_its_time_keeps_no_other_time_limit_waiting(slow_burial: threading.Event) -> None:
    """The timekeeper wrote the first one itself, and looked at nothing else meanwhile."""
    stuck: list[Event] = []
    go_on = threading.Event()
    engine = Engine.from_entries([MEMORY, DEAD, DYING, consumer(concurrency=2, timeout="100ms")])
    engine.function("app:handler")(lambda body: go_on.wait(DEADLINE))
    engine.subscribe(lambda event: stuck.append(event) if isinstance(event, WorkerStuck) else None)
    with engine:
        engine.publish_many("app:tasks", [1, 2])
        eventually(lambda: len(stuck) == 2, "both are found")
        slow_burial.set()
        go_on.set()


def test_a_stop_waits_for_the_dead_letter_of_a_stuck_worker(
    slow_burial: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It closed the subscription under it, and the message would have come again beside its dead letter."""
    stuck: list[Event] = []
    stopped: list[object] = []
    waited, go_on = threading.Event(), threading.Event()
    wait = WorkerPool.wait

    def wait_and_tell(self: WorkerPool, deadline: float) -> bool:
        try:
            return wait(self, deadline)
        finally:
            waited.set()

    monkeypatch.setattr(WorkerPool, "wait", wait_and_tell)
    engine = Engine.from_entries([MEMORY, DEAD, DYING, consumer(concurrency=2, timeout="100ms")])
    engine.function("app:handler")(lambda body: go_on.wait(DEADLINE))
    engine.subscribe(lambda event: stuck.append(event) if isinstance(event, WorkerStuck) else None)

    def stop() -> None:
        try:
            stopped.append(engine.stop().abandoned)
        except ShutdownTimeout as error:
            stopped.append(error)

    engine.start()
    engine.publish("app:tasks", 1)
    eventually(lambda: stuck, "it is found")
    go_on.set()
    stopping = threading.Thread(target=stop, daemon=True)
    stopping.start()
    eventually(waited.is_set, "its workers are gone")
    slow_burial.set()
    stopping.join(DEADLINE)
    assert stopped == [()]


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()])
def test_what_is_no_exception_fails_its_message_and_not_its_worker(error: BaseException) -> None:
    """As `asyncio.CancelledError` or `sys.exit()` in a function that a handler in Lua calls."""

    def fail() -> None:
        raise error

    source = "local test = require('test') return function(body) if body == 'bad' then test.fail() end end"
    events: list[Event] = []
    engine = Engine.from_entries([MEMORY, PARKED, lua("handler", source, modules=["test"]), consumer()])
    engine.module("test", {"fail": fail})
    engine.subscribe(events.append)
    with engine:
        engine.publish_many("app:tasks", ["bad", "good"])
        engine.join("app:tasks", timeout=DEADLINE)
        assert engine.info("app:tasks").parked == 1
    assert not [event for event in events if isinstance(event, WorkerDied)]


def test_a_time_limit_fails_the_message_that_has_exceeded_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the hand could not be parted before, as in a chain of calls of C, the first message was blamed."""
    monkeypatch.setattr("wippy_queue.lua.limits._SLOW", DEADLINE)
    source = "return function(body) if body.loop then while true do end end end"
    session = make_function(source, timeout=0.12).open(make_worker())
    outcomes = session.handle([make_delivery(b"{}"), make_delivery(b'{"loop": true}'), make_delivery(b"{}")])
    session.close()
    assert outcomes[0] is ACK
    assert isinstance(outcomes[1].error, Timeout)
    assert len(outcomes) == 2


def test_a_kill_that_comes_as_the_call_has_just_failed_costs_no_worker() -> None:
    """The hook was armed when the place of the message was asked for, and the error of that ended the worker."""
    session = make_function("return function(body) if body.fail then error('no') end end").open(make_worker())
    runtime = session._runtime
    assert runtime.handle(None, [b"{}", b'{"fail": true}', b"{}"]) is not None
    hook = runtime._deadline._hook
    assert hook is not None
    hook.arm()
    assert runtime.position() == 2
    session.close()


RELOADS = """
local test = require("test")
test.load()
return function(body)
    if body == "flood" then while true do body = body .. body end end
    test.note(body)
end"""


class Loads:
    """The functions that `RELOADS` calls; from the given load on each waits for the event."""

    def __init__(self, engine: Engine, free: int) -> None:
        self.count = 0
        self.blocked = threading.Event()
        self.go_on = threading.Event()
        self.seen: list[Any] = []
        self._free = free
        engine.module("test", {"load": self._load, "note": self.seen.append})

    def _load(self) -> None:
        self.count += 1
        if self.count > self._free:
            self.blocked.set()
            assert self.go_on.wait(DEADLINE)


def test_a_worker_that_needs_a_new_state_keeps_no_message_waiting() -> None:
    """It took the next message first, and then the time that loading takes."""
    handler = lua("handler", RELOADS, modules=["test"])
    engine = Engine.from_entries([MEMORY, PARKED, handler, consumer(concurrency=2, memory_limit="4MiB")])
    loads = Loads(engine, free=2)
    with engine:
        engine.publish("app:tasks", "flood")
        assert loads.blocked.wait(DEADLINE)
        engine.publish_many("app:tasks", list(range(5)))
        eventually(lambda: loads.seen == [0, 1, 2, 3, 4], "the other worker handles them")
        loads.go_on.set()


def test_no_handler_starts_in_a_state_that_is_made_during_a_stop() -> None:
    """The kill hit the old state, and the new one ran a message that had gone back."""
    engine = engine_of(lua("handler", RELOADS, modules=["test"]), consumer(), settings={"lua.recycle_after": 1})
    loads = Loads(engine, free=1)
    engine.start()
    engine.publish("app:tasks", 1)
    assert loads.blocked.wait(DEADLINE)
    engine.publish("app:tasks", 2)
    workers = [thread for thread in threading.enumerate() if "handler-worker-worker" in thread.name]
    try:
        engine.stop(timeout=0.1)
    except ShutdownTimeout:
        pass  # where the message was in hand already
    loads.go_on.set()
    for thread in workers:
        thread.join(DEADLINE)
    assert loads.seen == [1]


def test_an_expired_state_is_replaced_although_its_publish_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    published = Published()
    host = make_host(published, may_wait=lambda _: False)
    source = """local queue = require("queue")
    return function(body) if body.publish then queue.publish("app:tasks", 1) end end"""
    session = make_function(source, host=host, modules=("queue",), timeout=DEADLINE).open(make_worker())
    published.error = Unavailable("the driver does not run")
    stop = Deadline.stop

    def expire_and_stop(self: Deadline) -> None:
        if self.at != float("inf"):
            self.overdue(self._watched_at, self.at)
        stop(self)

    with monkeypatch.context() as patched:
        patched.setattr(Deadline, "stop", expire_and_stop)
        assert isinstance(session.handle([make_delivery(b'{"publish": true}')])[0].error, Unavailable)
    assert session.handle([make_delivery(b"{}")])[0].ok
    session.close()


def test_the_watchdog_forgets_hands_that_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each that was slow left an entry until its own time limit would have come."""
    monkeypatch.setattr("wippy_queue.lua.limits._FAR", 0.05)
    host = make_host()
    source = "return function() local t = os.clock() + 0.02 while os.clock() < t do end end"
    session = make_function(source, host=host, timeout=3600.0).open(make_worker())
    for _ in range(20):
        session.handle([make_delivery(), make_delivery()])
    session.close()
    assert len(host.watchdog._heap) < 10


@pytest.mark.parametrize("broken", ["-feeder", "_1"])
def test_a_thread_that_cannot_be_started_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """The consumer is started again, as one that has failed."""
    start = threading.Thread.start
    failed: list[str] = []

    def start_or_fail(self: threading.Thread) -> None:
        if self.name.endswith(broken) and not failed:
            failed.append(self.name)
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", start_or_fail)
    lifecycle = {**AUTO, "restart": {"initial_delay": 0}}
    engine = engine_of(consumer(concurrency=3, lifecycle=lifecycle))
    engine.function("app:handler")(lambda body: None)
    with engine:
        assert failed
        assert engine.info("app:tasks").consumer_count == 1


def test_a_start_that_is_cancelled_too_late_does_not_hide_what_fails_later() -> None:
    events: list[Event] = []
    engine = engine_of(consumer())
    engine.function("app:handler")(lambda body: None)
    engine.subscribe(events.append)
    with engine, pytest.MonkeyPatch.context() as patched:
        engine._wiring.consumers[EntryId("app:handler-worker")].cancel_start()
        patched.setattr("wippy_queue.flow.worker.Worker._process", lambda *_: sys.exit())
        engine.publish("app:tasks", 1)
        eventually(lambda: [event for event in events if isinstance(event, WorkerDied)], "it is told")


@pytest.mark.parametrize("way", ["publish", "join"])
def test_a_driver_that_stops_just_before_somebody_waits_wakes_them(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    driver, tasks = MemoryDriver(EntryId("app:memory")), queue(options=MemoryQueueOptions(max_length=1))
    driver.start()
    driver.declare(tasks)
    driver.publish(tasks, [message("1")], 0)
    state, begun = driver._state, time.monotonic()

    def found_and_stopped(asked: Any) -> Any:
        found = state(asked)
        driver.stop(DEADLINE)
        return found

    monkeypatch.setattr(driver, "_state", found_and_stopped)
    with pytest.raises(Unavailable, match="was stopped"):
        driver.publish(tasks, [message("2")], DEADLINE) if way == "publish" else driver.wait_idle(tasks, DEADLINE)
    assert time.monotonic() - begun < DEADLINE / 2
