"""The Python API, from declared entries to handled messages, on the memory driver."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.support import DEADLINE, eventually
from wippy_queue import (
    ConfigurationError,
    Conflict,
    Engine,
    Invalid,
    Kind,
    NotFound,
    QueueFull,
    ShutdownTimeout,
    State,
    StopReport,
    Timeout,
    Unavailable,
    WippyQueueError,
    current_message,
)
from wippy_queue.events import Event, MessageFailed, ServiceStateChanged

AUTO = {"auto_start": True}
MEMORY = {"name": "memory", "kind": "queue.driver.memory"}
TASKS = {"name": "tasks", "kind": "queue.queue", "driver": "memory", "retry": {"initial_delay": "1ms"}}


def lua(name: str, source: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "kind": "function.lua", "source": source, **fields}


def consumer(func: str = "handler", queue: str = "tasks", **fields: Any) -> dict[str, Any]:
    return {
        "name": f"{func}-worker",
        "kind": "queue.consumer",
        "queue": queue,
        "func": func,
        "lifecycle": AUTO,
        **fields,
    }


def engine_of(*entries: Mapping[str, Any], **options: Any) -> Engine:
    return Engine.from_entries([MEMORY, TASKS, *entries], **options)


def with_function(function: Callable[..., Any], **fields: Any) -> Engine:
    engine = engine_of(consumer(**fields))
    engine.function("app:handler")(function)
    return engine


class Gate:
    """A handler that tells when it begins, and goes on when it may."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()

    def __call__(self, body: object) -> None:
        self.begun.release()
        assert self.go_on.wait(DEADLINE)

    def await_begun(self) -> None:
        assert self.begun.acquire(timeout=DEADLINE)


# life


def test_the_block_starts_and_stops_everything() -> None:
    engine = engine_of(lua("handler", "return function() end"), consumer())
    assert {status.state for status in engine.services().values()} == {State.UNKNOWN}
    with engine:
        assert {status.state for status in engine.services().values()} == {State.RUNNING}
    assert {status.state for status in engine.services().values()} == {State.STOPPED}


def test_publishing_before_the_start_and_after_the_stop_is_unavailable() -> None:
    engine = engine_of()
    with pytest.raises(Unavailable):
        engine.publish("app:tasks", {"n": 1})
    with engine:
        engine.start_service("app:memory")
        engine.publish("app:tasks", {"n": 1})
    with pytest.raises(Unavailable):
        engine.publish("app:tasks", {"n": 1})


def test_a_second_start_and_a_second_stop_are_harmless() -> None:
    engine = with_function(lambda _: None)
    engine.stop()
    engine.start()
    engine.start()
    assert engine.stop() == StopReport()
    assert engine.stop() == StopReport()


def test_the_memory_driver_keeps_its_messages_across_a_stop_and_a_start() -> None:
    seen: list[int] = []
    engine = with_function(seen.append)
    with engine:
        engine.stop_service("app:handler-worker")
        engine.publish_many("app:tasks", [1, 2, 3])
    with engine:
        engine.join("app:tasks", timeout=DEADLINE)
    assert seen == [1, 2, 3]


def test_a_process_that_only_publishes_starts_no_consumer() -> None:
    engine = with_function(lambda _: None)
    engine.start(consumers=False)
    engine.publish("app:tasks", {"n": 1})
    assert engine.services()["app:handler-worker"].state is State.UNKNOWN  # type: ignore[index]
    assert engine.info("app:tasks").ready == 1
    engine.stop()


def test_start_without_waiting_leaves_it_to_supervision() -> None:
    engine = with_function(lambda _: None)
    engine.start(wait=False)
    eventually(lambda: {s.state for s in engine.services().values()} == {State.RUNNING}, "running")
    engine.stop()


def test_a_handler_that_does_not_load_fails_its_consumer_and_messages_stay() -> None:
    engine = engine_of(lua("handler", "error('no database')"), consumer())
    engine.start(consumers=False)
    engine.publish("app:tasks", {"n": 1})
    with pytest.raises(Unavailable, match="app:handler-worker is not up.*no database"):
        engine.start()
    engine.start(consumers=False)
    assert engine.info("app:tasks").ready == 1
    engine.stop()


def test_a_handler_that_cannot_run_makes_its_consumer_failed_and_it_is_tried_again() -> None:
    engine = engine_of(
        lua("handler", "error('no database')"), consumer(lifecycle={**AUTO, "restart": {"initial_delay": 0}})
    )
    engine.start(wait=False)
    eventually(lambda: engine.services()["app:handler-worker"].restarts > 1, "tried again")  # type: ignore[index]
    seen = {engine.services()["app:handler-worker"].state for _ in range(2000)}  # type: ignore[index]
    assert seen <= {State.FAILED, State.STARTING}
    assert not engine.health().ready
    engine.stop()


def test_a_stop_from_inside_a_handler_begins_it_and_does_not_wait_for_itself() -> None:
    reports: list[StopReport] = []
    holder: list[Engine] = []
    engine = with_function(lambda _: reports.append(holder[0].stop()))
    holder.append(engine)
    engine.start()
    engine.publish("app:tasks", {"n": 1})
    eventually(lambda: {s.state for s in engine.services().values()} == {State.STOPPED}, "stopped")
    assert reports == [StopReport()]
    engine.start(consumers=False)
    assert engine.info("app:tasks").message_count == 0
    engine.stop()


def test_a_stop_past_its_deadline_raises_with_the_report_and_tears_down() -> None:
    gate = Gate()
    engine = with_function(gate)
    engine.start()
    message_id = engine.publish("app:tasks", {"n": 1})
    gate.await_begun()
    begin = time.monotonic()
    with pytest.raises(ShutdownTimeout) as caught:
        engine.stop(timeout=0.1)
    assert time.monotonic() - begin < 5
    assert caught.value.kind is Kind.TIMEOUT
    assert caught.value.report.abandoned == (message_id,)
    assert {s.state for s in engine.services().values()} == {State.STOPPED}
    gate.go_on.set()


def test_leaving_the_block_by_an_error_does_not_hide_it_behind_the_stop() -> None:
    gate = Gate()
    engine = with_function(gate)
    with pytest.raises(KeyError), engine:
        engine.publish("app:tasks", {"n": 1})
        gate.await_begun()
        engine_stop = engine.stop
        engine.stop = lambda timeout=None: engine_stop(0.0)  # type: ignore[method-assign]
        raise KeyError("mine")
    gate.go_on.set()


def test_a_handler_in_lua_that_never_ends_is_killed_at_the_deadline() -> None:
    source = 'return function() require("probe").begun() while true do end end'
    engine = engine_of(lua("handler", source, modules=["probe"]), consumer())
    begun = threading.Event()
    engine.module("probe", {"begun": begun.set})
    engine.start()
    message_id = engine.publish("app:tasks", {"n": 1})
    assert begun.wait(DEADLINE)
    with pytest.raises(ShutdownTimeout) as caught:
        engine.stop(timeout=0.1)
    assert caught.value.report.abandoned == (message_id,)
    alive = "app:handler-worker-worker-0"
    eventually(lambda: alive not in {thread.name for thread in threading.enumerate()}, "its thread has ended")


def test_an_engine_in_a_forked_child_says_what_to_do() -> None:
    engine = engine_of()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            engine.publish("app:tasks", {"n": 1})
        except Conflict as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert b"make a new one" in os.read(reader, 1000)


# messages


def test_a_message_goes_through_lua_and_back_into_python() -> None:
    got: list[Any] = []
    engine = engine_of(
        {"name": "done", "kind": "queue.queue", "driver": "memory"},
        lua(
            "handler",
            """
            local queue = require("queue")
            return function(body)
                body.n = body.n + 1
                local ok, err = queue.publish("app:done", body, {source = queue.message():id()})
                if err then return nil, err end
            end
            """,
            modules=["queue"],
        ),
        consumer(),
        consumer(func="collect", queue="done"),
    )

    @engine.function("app:collect")
    def collect(body: Any) -> None:
        got.append((body, current_message().header("source")))

    body = {
        "n": 2**53 + 1,
        "empty": [],
        "object": {},
        "nulls": [1, None, 3, None],
        "deep": [[[[{"x": [1.5, -0.25, "ü"]}]]]],
        "least": -(2**63),
    }
    with engine:
        message_id = engine.publish("app:tasks", body)
        engine.join("app:tasks", "app:done", timeout=DEADLINE)
    assert got == [({**body, "n": 2**53 + 2}, message_id)]


def test_join_waits_for_handlers_that_publish_to_another_queue() -> None:
    """Whatever the order in which the queues are named."""
    seen: list[int] = []
    engine = engine_of(
        {"name": "second", "kind": "queue.queue", "driver": "memory"},
        {"name": "third", "kind": "queue.queue", "driver": "memory"},
        consumer(func="first"),
        consumer(func="forward", queue="second"),
        consumer(func="collect", queue="third"),
    )
    engine.function("app:first")(lambda n: engine.publish("app:second", n))
    engine.function("app:forward")(lambda n: engine.publish("app:third", n))
    engine.function("app:collect")(seen.append)
    with engine:
        for start in range(0, 200, 10):
            engine.publish_many("app:tasks", list(range(start, start + 10)))
            engine.join("app:third", "app:second", "app:tasks", timeout=DEADLINE)
            assert len(seen) == start + 10


def test_join_raises_at_its_deadline_and_is_invalid_in_a_handler() -> None:
    gate, errors = Gate(), []
    engine = engine_of(consumer(), consumer(func="joins", queue="other"), {**TASKS, "name": "other"})
    engine.function("app:handler")(gate)

    @engine.function("app:joins")
    def joins(_: object) -> None:
        try:
            engine.join("app:tasks")
        except Invalid as error:
            errors.append(error)

    with engine:
        engine.publish("app:tasks", 1)
        with pytest.raises(Timeout, match="app:tasks still holds messages"):
            engine.join("app:tasks", timeout=0.05)
        engine.publish("app:other", 1)
        engine.join("app:other", timeout=DEADLINE)
        gate.go_on.set()
    assert len(errors) == 1


def test_publishing_from_many_threads_and_engines_at_once() -> None:
    engines, seen = [], [set[int](), set[int]()]
    for found in seen:
        engine = engine_of(consumer(concurrency=4))
        engine.function("app:handler")(found.add)
        engine.start()
        engines.append(engine)

    def publish(engine: Engine, start: int) -> None:
        for n in range(start, start + 50):
            engine.publish("app:tasks", n)

    threads = [
        threading.Thread(target=publish, args=(engine, start)) for engine in engines for start in range(0, 400, 50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    for engine, found in zip(engines, seen, strict=True):
        engine.join(timeout=DEADLINE)
        engine.stop()
        assert found == set(range(400))


def test_a_full_queue_refuses_and_says_what_was_accepted() -> None:
    engine = engine_of({"name": "small", "kind": "queue.queue", "driver": "memory", "options": {"max_length": 2}})
    engine.start()
    engine.start_service("app:memory")
    with pytest.raises(QueueFull) as caught:
        engine.publish_many("app:small", [1, 2, 3], timeout=0.05)
    assert len(caught.value.details["accepted"]) == 2
    assert [m.id for m in engine.peek("app:small")] == caught.value.details["accepted"]
    assert engine.purge("app:small") == 2
    engine.stop()


def test_a_message_that_is_never_handled_is_parked_and_counted() -> None:
    engine = engine_of(
        {**TASKS, "name": "fragile", "retry": {"initial_delay": 0, "max_attempts": 3}},
        lua("handler", "return function() return nil, 'no' end"),
        consumer(queue="fragile"),
    )
    with engine:
        engine.publish("app:fragile", 1)
        engine.join("app:fragile", timeout=DEADLINE)
        info = engine.info("app:fragile")
    assert (info.message_count, info.parked) == (0, 1)


# functions


def test_call_gives_the_first_value_or_the_error_of_its_kind() -> None:
    engine = engine_of(
        lua("add", "return function(a, b) return a + b end"),
        lua("fails", "return function() return nil, errors.new{message='gone', kind=errors.NOT_FOUND} end"),
        lua("refuses", "return function() return false end"),
        lua("raises", "return function() error('boom') end"),
        lua("slow", "return function() while true do end end"),
    )
    assert engine.call("app:add", 2, 3) == 5
    with pytest.raises(WippyQueueError, match="gone") as caught:
        engine.call("app:fails")
    assert caught.value.kind is Kind.NOT_FOUND
    with pytest.raises(WippyQueueError):
        engine.call("app:refuses")
    with pytest.raises(WippyQueueError, match="boom"):
        engine.call("app:raises")
    with pytest.raises(Timeout):
        engine.call("app:slow", timeout=0.05)
    with pytest.raises(NotFound, match="did you mean 'app:add'"):
        engine.call("app:ad")


def test_python_gives_lua_a_module() -> None:
    engine = engine_of(
        lua(
            "handler",
            """
            local mail = require("mail")
            return function(name)
                local sent, err = mail.send(name, {urgent = true})
                if err then return nil, err end
                return sent
            end
            """,
            modules=["mail"],
        )
    )

    def send(name: str, options: dict[str, Any]) -> dict[str, Any]:
        if name == "nobody":
            raise NotFound("no such address")
        return {"to": name, **options}

    engine.module("mail", {"send": send})
    assert engine.call("app:handler", "ann") == {"to": "ann", "urgent": True}
    with pytest.raises(WippyQueueError, match="no such address") as caught:
        engine.call("app:handler", "nobody")
    assert caught.value.kind is Kind.NOT_FOUND


def test_names_that_python_never_registered_are_told_at_the_start() -> None:
    engine = engine_of(lua("other", "return function() end", modules=["mial"]), consumer(func="missing"))
    engine.module("mail", {})
    with pytest.raises(ConfigurationError) as caught:
        engine.start()
    text = str(caught.value)
    assert "no function 'app:missing' is declared or registered" in text
    assert "no module 'mial' is declared or registered" in text


def test_names_can_be_taken_once() -> None:
    engine = engine_of(lua("handler", "return function() end"))
    with pytest.raises(Invalid, match="app:handler is declared already"):
        engine.function("app:handler")(lambda: None)
    with pytest.raises(Invalid, match="there is a module 'json' already"):
        engine.module("json", {})
    with pytest.raises(Invalid, match="expected a registry id"):
        engine.function("no id")(lambda: None)


# events and services


def test_events_come_in_order_on_a_thread_of_their_own_and_a_broken_subscriber_hurts_nobody() -> None:
    engine = engine_of(lua("handler", "return function() return nil, 'no' end"), consumer())
    events: list[Event] = []
    threads: set[int] = set()

    def broken(_: Event) -> None:
        raise RuntimeError("mine")

    def keep(event: Event) -> None:
        threads.add(threading.get_ident())
        events.append(event)

    engine.subscribe(broken)
    unsubscribe = engine.subscribe(keep)
    with engine:
        engine.publish("app:tasks", 1)
        eventually(lambda: any(isinstance(event, MessageFailed) for event in events), "a failure is told")
        unsubscribe()
    changes = [event for event in events if isinstance(event, ServiceStateChanged)]
    assert [(change.service, change.new) for change in changes[:2]] == [
        ("app:memory", "Starting"),
        ("app:memory", "Running"),
    ]
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_a_single_service_stops_and_starts() -> None:
    seen: list[int] = []
    engine = with_function(seen.append)
    with engine:
        engine.stop_service("app:handler-worker")
        engine.publish("app:tasks", 7)
        assert engine.info("app:tasks").ready == 1
        engine.start_service("app:handler-worker")
        engine.join("app:tasks", timeout=DEADLINE)
        with pytest.raises(NotFound, match="did you mean"):
            engine.stop_service("app:handler-workr")
    assert seen == [7]


def test_a_worker_thread_that_dies_is_an_event_and_its_consumer_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    engine = with_function(seen.append)
    restart = {"restart": {"initial_delay": 0}}
    engine = engine_of(consumer(lifecycle={**AUTO, **restart}))
    engine.function("app:handler")(seen.append)
    with engine:
        with monkeypatch.context() as patched:
            patched.setattr("wippy_queue.flow.worker.Worker._process", lambda *_: 1 / 0)
            engine.publish("app:tasks", 1)
            eventually(lambda: engine.services()["app:handler-worker"].restarts, "failed")  # type: ignore[index]
        engine.join("app:tasks", timeout=DEADLINE)
    assert seen == [1]


@pytest.mark.parametrize("queue", [None, 5, ["app:tasks"]])
def test_what_is_no_id_names_no_queue(queue: Any) -> None:
    with engine_of() as engine, pytest.raises(NotFound, match="no queue"):
        engine.info(queue)


@pytest.mark.parametrize("limit", [-1, 1.5, None, "a", True, 2**31])
def test_peek_wants_a_number_of_messages(limit: Any) -> None:
    with engine_of() as engine, pytest.raises(Invalid, match="limit: expected how many messages"):
        engine.peek("app:tasks", limit)


@pytest.mark.parametrize("way", ["stop", "join"])
def test_a_time_that_no_timer_takes_is_refused(way: str) -> None:
    with engine_of() as engine, pytest.raises(Invalid, match="timeout: expected seconds from 0 to 1000000000"):
        getattr(engine, way)(timeout=1e10)


def cpu_of_loading(consumers: int) -> float:
    """Return the least processor time of three tries."""
    declared = [lua("handler", "return function() end")]
    declared += [{**consumer(), "name": f"worker-{number}"} for number in range(consumers)]
    tries = []
    for _ in range(3):
        before = time.process_time()
        engine_of(*declared)
        tries.append(time.process_time() - before)
    return min(tries)


def test_loading_takes_time_in_proportion_to_the_entries() -> None:
    assert cpu_of_loading(400) < 10 * cpu_of_loading(100)
