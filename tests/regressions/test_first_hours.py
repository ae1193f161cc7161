"""What somebody met who used the engine for the first time: slips that were accepted, and hangs."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import DEADLINE, eventually
from wippy_queue import Conflict, Engine, Invalid, StopReport, Timeout, Unavailable
from wippy_queue.errors import WippyQueueError

AUTO = {"auto_start": True}
ENTRIES: list[dict[str, Any]] = [
    {"name": "memory", "kind": "queue.driver.memory", "lifecycle": AUTO},
    {
        "name": "tasks",
        "kind": "queue.queue",
        "driver": "memory",
        "retry": {"initial_delay": 0},
        "dead_letter": {"queue": "failed", "max_attempts": 1},
    },
    {"name": "failed", "kind": "queue.queue", "driver": "memory"},
]
CONSUMER = {"name": "worker", "kind": "queue.consumer", "queue": "tasks", "func": "handler", "lifecycle": AUTO}
LUA = {"name": "handler", "kind": "function.lua", "modules": ["time"]}


def engine_of(handler: Callable[[Any], Any] | None = None, *more: dict[str, Any], **consumer: Any) -> Engine:
    engine = Engine.from_entries([*ENTRIES, *more, *([{**CONSUMER, **consumer}] if handler or more else [])])
    if handler is not None:
        engine.function("app:handler")(handler)
    return engine


def fail(_: Any) -> None:
    raise ValueError("no")


# join


def test_join_of_everything_does_not_wait_for_dead_letters() -> None:
    with engine_of(fail) as engine:
        engine.publish("app:tasks", 1)
        engine.join(timeout=DEADLINE)
        assert engine.info("app:failed").ready == 1
        with pytest.raises(Timeout):
            engine.join("app:failed", timeout=0)


def test_join_of_everything_waits_for_dead_letters_that_somebody_takes() -> None:
    taken: list[Any] = []
    gate = threading.Event()

    def undertaker(body: Any) -> None:
        gate.wait(DEADLINE)
        taken.append(body)

    engine = engine_of(fail, {**CONSUMER, "name": "gravedigger", "queue": "failed", "func": "undertaker"})
    engine.function("app:undertaker")(undertaker)
    with engine:
        engine.publish("app:tasks", 1)
        eventually(lambda: engine.info("app:failed").in_flight == 1, "in the undertaker's hands")
        with pytest.raises(Timeout):
            engine.join(timeout=0)
        gate.set()
        engine.join(timeout=DEADLINE)
    assert taken == [1]


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "1", True])
def test_a_timeout_that_is_no_time_is_invalid(timeout: Any) -> None:
    with engine_of() as engine:
        for call in (
            lambda: engine.join(timeout=timeout),
            lambda: engine.call("app:handler", timeout=timeout),
            lambda: engine.stop(timeout),
            lambda: engine.publish("app:tasks", 1, timeout=timeout),
        ):
            with pytest.raises(Invalid, match="timeout: expected seconds"):
                call()


# publish


@pytest.mark.parametrize("bodies", ["text", b"bytes", {"n": 1}, None, 5])
def test_publish_many_refuses_one_body(bodies: Any) -> None:
    with engine_of() as engine:
        with pytest.raises(Invalid, match=r"expected a list of bodies.*publish\(\) is for one"):
            engine.publish_many("app:tasks", bodies)
        assert engine.info("app:tasks").message_count == 0


def test_publish_many_takes_a_generator_and_names_the_body_at_fault() -> None:
    with engine_of() as engine:
        assert len(engine.publish_many("app:tasks", (n for n in range(3)))) == 3
        with pytest.raises(Invalid, match=r"bodies\[1\]"):
            engine.publish_many("app:tasks", iter([1, None]))


@pytest.mark.parametrize("headers", ["text", [("a", 1)], 5])
def test_headers_that_are_no_mapping_are_invalid(headers: Any) -> None:
    with engine_of() as engine, pytest.raises(Invalid, match="headers: expected a mapping"):
        engine.publish("app:tasks", 1, headers)


def test_publish_without_a_timeout_is_invalid() -> None:
    nothing: Any = None
    with engine_of() as engine, pytest.raises(Invalid, match="timeout"):
        engine.publish("app:tasks", 1, timeout=nothing)


def test_looking_at_a_queue_before_the_start_is_unavailable() -> None:
    engine = engine_of()
    for look in (
        lambda: engine.info("app:tasks"),
        lambda: engine.peek("app:tasks"),
        lambda: engine.purge("app:tasks"),
        lambda: engine.join(timeout=0),
    ):
        with pytest.raises(Unavailable, match="start the engine"):
            look()


# functions and modules


async def coroutine(_: Any) -> None: ...


def generator(_: Any) -> Iterator[int]:
    yield 1


async def stream(_: Any) -> AsyncIterator[int]:
    yield 1


class Awaited:
    async def __call__(self, _: Any) -> None: ...


@pytest.mark.parametrize("function", [coroutine, generator, stream, Awaited(), 5, None])
def test_a_function_whose_call_runs_nothing_cannot_be_registered(function: Any) -> None:
    engine = engine_of()
    with pytest.raises(Invalid, match="app:handler: "):
        engine.function("app:handler")(function)
    with pytest.raises(Invalid, match="module mail: send: "):
        engine.module("mail", {"send": function})


def test_a_coroutine_named_in_the_entries_does_not_swallow_messages() -> None:
    function = {"name": "handler", "kind": "function.python", "source": f"{__name__}:coroutine"}
    engine = engine_of(None, function)
    with pytest.raises(Unavailable, match="async def"):
        engine.start()
    engine.start(consumers=False)
    engine.publish("app:tasks", 1)
    assert engine.info("app:tasks").ready == 1
    engine.stop()


def test_the_decorator_without_an_id_says_how_to_write_it() -> None:
    wrong: Any = fail
    with pytest.raises(Invalid, match=r"@engine\.function\("):
        engine_of().function(wrong)


@pytest.mark.parametrize(("name", "functions"), [("", {}), ("mail", [len]), ("mail", None)])
def test_a_module_needs_a_name_and_a_mapping(name: str, functions: Any) -> None:
    with pytest.raises(Invalid, match="a name and a mapping"):
        engine_of().module(name, functions)


# stop


@pytest.mark.parametrize("ask", ["join", "stop", "stop_service", "pause"])
def test_a_handler_that_waits_for_its_own_end_during_a_stop_is_told_so(ask: str) -> None:
    begun, stopping = threading.Event(), threading.Event()
    answers: list[Any] = []

    def handler(_: Any) -> None:
        begun.set()
        stopping.wait(DEADLINE)
        arguments = ["app:worker"] if ask in ("stop_service", "pause") else []
        try:
            answers.append(getattr(engine, ask)(*arguments))
        except Invalid as error:
            answers.append(error)

    engine = engine_of(handler)
    engine.start()
    engine.publish("app:tasks", 1)
    assert begun.wait(DEADLINE)
    stopper = threading.Thread(target=engine.stop)
    stopper.start()
    eventually(lambda: "app:worker-feeder" not in [thread.name for thread in threading.enumerate()], "stopping")
    stopping.set()
    stopper.join(DEADLINE)
    assert isinstance(answers[0], StopReport if ask == "stop" else Invalid)


def test_a_cancelled_message_is_reported_as_handed_back() -> None:
    source = "local time = require('time') return function() local _, err = time.sleep('60s') return nil, err end"
    engine = engine_of(None, {**LUA, "source": source})
    engine.start()
    message_id = engine.publish("app:tasks", 1)
    eventually(lambda: engine.info("app:tasks").in_flight == 1, "in flight")
    report = engine.stop()
    assert report == StopReport(handed_back=(message_id,))


def test_failed_starts_leave_no_threads_behind() -> None:
    before = threading.active_count()
    for _ in range(5):
        engine = engine_of(None, {"name": "handler", "kind": "function.python", "source": "no.such:thing"})
        with pytest.raises(Unavailable):
            engine.start()
    eventually(lambda: threading.active_count() <= before, "all threads have ended")


def test_a_start_that_can_never_succeed_says_so_at_once() -> None:
    engine = engine_of(None, {"name": "handler", "kind": "function.python", "source": "no.such:thing"})
    with pytest.raises(Unavailable) as raised:
        engine.start()
    assert raised.value.retryable is False
    assert "after 10 s" not in str(raised.value)


def test_stopping_every_service_and_starting_again_works() -> None:
    with engine_of(lambda _: None) as engine:
        engine.stop_service("app:memory")
        name = f"{engine._wiring.supervisor._name}-supervisor"
        eventually(lambda: name not in [thread.name for thread in threading.enumerate()], "nothing is watched")
        engine.start()
        engine.publish("app:tasks", 1)
        engine.join(timeout=DEADLINE)


# the rest


@pytest.mark.parametrize("reason", ["expired", "maxlen"])
def test_a_dropped_message_carries_every_dead_letter_header(reason: str) -> None:
    entries = [*ENTRIES]
    entries[1] = {**entries[1], "options": {"max_length": 1, "overflow": "drop_oldest"}}
    with Engine.from_entries(entries) as engine:
        engine.publish("app:tasks", 1, ttl=0.001 if reason == "expired" else None)
        if reason == "maxlen":
            engine.publish("app:tasks", 2)
        eventually(lambda: engine.info("app:failed").ready == 1, "dead-lettered")
        (dead,) = engine.dead_letters("app:tasks").list()
    assert dead.reason == reason
    assert dead.error
    assert {"attempts", "x_original_queue", "x_dead_letter_time", "x_dead_letter_error"} <= set(dead.headers)


def test_settings_that_are_all_commented_out_are_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "_index.yaml").write_text('version: "1.0"\nnamespace: app\nentries: []\n', encoding="utf-8")
    for text in ("", "# shutdown:\n#   timeout: 5s\n"):
        (tmp_path / "wippy.yaml").write_text(text, encoding="utf-8")
        Engine.load(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_told_so_by_every_method_that_looks() -> None:
    with engine_of() as engine:
        child = os.fork()
        if child == 0:  # pragma: no cover
            told = 0
            for look in (engine.services, engine.health, lambda: engine.counters("app:tasks"), engine.stop):
                try:
                    look()
                except Conflict:
                    told += 1
                except WippyQueueError:
                    pass
            os._exit(told)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 4
