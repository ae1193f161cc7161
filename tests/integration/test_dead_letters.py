"""Dead letters as users meet them: they arrive with their story, can be found, and go back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import DEADLINE, eventually, message
from wippy_queue import Engine, Invalid, NotFound, WippyQueueError
from wippy_queue.deadletters import Selection

ENTRIES: list[dict[str, Any]] = [
    {"name": "memory", "kind": "queue.driver.memory"},
    {"name": "dead", "kind": "queue.queue", "driver": "memory"},
    {
        "name": "tasks",
        "kind": "queue.queue",
        "driver": "memory",
        "retry": {"initial_delay": 0},
        "dead_letter": {"queue": "dead", "max_attempts": 2},
    },
    {"name": "plain", "kind": "queue.queue", "driver": "memory", "retry": {"initial_delay": 0, "max_attempts": 1}},
    {
        "name": "worker",
        "kind": "queue.consumer",
        "queue": "tasks",
        "func": "handler",
        "lifecycle": {"auto_start": True},
    },
    {"name": "other", "kind": "queue.consumer", "queue": "plain", "func": "handler", "lifecycle": {"auto_start": True}},
]


class Handler:
    """Fails as the message says, until it is mended."""

    def __init__(self) -> None:
        self.mended = False
        self.handled: list[Any] = []

    def __call__(self, body: Any) -> None:
        if not self.mended and body.get("fail"):
            raise WippyQueueError(body["fail"], retryable=body.get("retryable"))
        self.handled.append(body["n"])


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def engine(handler: Handler) -> Iterator[Engine]:
    made = Engine.from_entries(ENTRIES)
    made.function("app:handler")(handler)
    with made:
        yield made


def fail(engine: Engine, *numbers: int, queue: str = "app:tasks", **fields: Any) -> list[str]:
    headers = {"correlation_id": "c-1"}
    ids = [engine.publish(queue, {"n": n, "fail": "no account", **fields}, headers) for n in numbers]
    engine.join(queue, timeout=DEADLINE)
    return ids


def test_a_message_that_keeps_failing_is_found_with_its_story(engine: Engine) -> None:
    before = time.time()
    [message_id] = fail(engine, 1)
    [dead] = engine.dead_letters("app:dead").list()
    assert (dead.id, dead.queue, dead.reason, dead.error, dead.function, dead.attempts) == (
        message_id,
        "app:tasks",
        "attempts",
        "no account",
        "app:handler",
        2,
    )
    assert dead.time is not None
    assert before <= dead.time <= time.time()
    assert dead.headers["correlation_id"] == "c-1"
    assert dead.body() == {"n": 1, "fail": "no account"}
    assert engine.dead_letters("app:tasks").show(message_id).id == message_id
    with pytest.raises(NotFound, match="no dead letter 'nothing' in app:dead"):
        engine.dead_letters("app:dead").show("nothing")


def test_a_non_retryable_error_is_dead_at_the_first_attempt(engine: Engine) -> None:
    fail(engine, 1, retryable=False)
    [dead] = engine.dead_letters("app:dead").list()
    assert (dead.reason, dead.attempts) == ("not_retryable", 1)


def test_a_replayed_message_has_its_id_and_headers_and_a_clean_slate(engine: Engine, handler: Handler) -> None:
    [message_id] = fail(engine, 1)
    engine.stop_service("app:worker")
    report = engine.dead_letters("app:dead").replay()
    assert report.replayed == (message_id,)
    [message] = engine.peek("app:tasks")
    headers = message.all_headers()
    headers.pop("timestamp")
    assert headers == {"correlation_id": "c-1", "attempts": 0}
    handler.mended = True
    engine.start_service("app:worker")
    engine.join("app:tasks", "app:dead", timeout=DEADLINE)
    assert handler.handled == [1]


def test_only_what_is_selected_is_replayed_and_the_rest_keeps_its_order(engine: Engine) -> None:
    ids = fail(engine, *range(6))
    engine.stop_service("app:worker")
    box = engine.dead_letters("app:dead")
    assert box.replay(Selection(ids=[ids[1], ids[4]])).replayed == (ids[1], ids[4])
    assert [dead.id for dead in box.list()] == [ids[0], ids[2], ids[3], ids[5]]


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        (Selection(reason="attempts"), 2),
        (Selection(reason="expired"), 0),
        (Selection(function="app:handler"), 2),
        (Selection(function="app:other"), 0),
        (Selection(queue="app:tasks"), 2),
        (Selection(older_than=3600), 0),
        (Selection(newer_than=3600), 2),
    ],
)
def test_filters(engine: Engine, selection: Selection, count: int) -> None:
    fail(engine, 1, 2)
    box = engine.dead_letters("app:dead")
    assert len(box.list(selection)) == count
    assert len(box.replay(selection, dry_run=True).replayed) == count
    assert len(box.list()) == 2
    assert box.purge(selection) == count
    assert len(box.list()) == 2 - count


def test_a_filter_looks_beyond_the_first_ones(engine: Engine) -> None:
    ids = fail(engine, *range(30))
    box = engine.dead_letters("app:dead")
    assert [dead.id for dead in box.list(Selection(ids=ids[-1:]), limit=1)] == ids[-1:]


def test_a_replay_keeps_to_its_rate_and_tells_its_progress(engine: Engine) -> None:
    fail(engine, *range(5))
    engine.stop_service("app:worker")
    progress: list[int] = []
    begin = time.monotonic()
    engine.dead_letters("app:dead").replay(rate=50, progress=progress.append)
    assert time.monotonic() - begin >= 5 / 50
    assert progress == [1, 2, 3, 4, 5]


def test_a_replay_can_be_ended_early_and_loses_nothing(engine: Engine) -> None:
    ids = fail(engine, *range(5))
    engine.stop_service("app:worker")
    cancel = threading.Event()
    report = engine.dead_letters("app:dead").replay(rate=1, cancel=cancel, progress=lambda _: cancel.set())
    assert report.replayed == (ids[0],)
    assert [dead.id for dead in engine.dead_letters("app:dead").list()] == ids[1:]


def test_a_message_without_an_origin_stays_and_is_reported(engine: Engine) -> None:
    stray = engine.publish("app:dead", {"n": 1})
    report = engine.dead_letters("app:dead").replay()
    assert report.replayed == ()
    assert "x_original_queue" in report.failed[stray]
    assert engine.info("app:dead").ready == 1
    assert engine.dead_letters("app:dead").replay(to="app:plain").replayed == (stray,)


def test_a_target_that_refuses_keeps_the_message_where_it_is() -> None:
    entries = [dict(entry) for entry in ENTRIES if entry["kind"] != "queue.consumer"]
    entries[2]["options"] = {"max_length": 1, "overflow": "reject"}
    engine = Engine.from_entries(entries)
    engine.start_service("app:memory")
    engine.publish("app:tasks", {"n": 0})
    stray = engine.publish("app:dead", {"n": 1})
    report = engine.dead_letters("app:dead").replay(to="app:tasks")
    assert "is full" in report.failed[stray]
    assert engine.info("app:dead").ready == 1
    engine.stop()


def test_parked_messages_are_counted_listed_and_replayed(engine: Engine, handler: Handler) -> None:
    [message_id] = fail(engine, 7, queue="app:plain")
    assert engine.info("app:plain").parked == 1
    box = engine.dead_letters("app:plain")
    assert [(dead.id, dead.queue, dead.reason) for dead in box.list()] == [(message_id, "app:plain", "attempts")]
    handler.mended = True
    box.replay()
    eventually(lambda: handler.handled == [7], "handled again")
    assert engine.info("app:plain").parked == 0


def test_a_body_that_cannot_be_decoded_is_dead_at_once_and_shown_as_it_is(engine: Engine) -> None:
    wiring = engine._wiring
    route = wiring.publisher.route("app:tasks")
    route.driver.publish(route.queue, [message("broken", b'{"n":')], 1.0)
    engine.join("app:tasks", timeout=DEADLINE)
    dead = engine.dead_letters("app:dead").show("broken")
    assert (dead.reason, dead.attempts, dead.body()) == ("undecodable", 0, b'{"n":')


def test_an_expired_message_is_dead_lettered_and_never_handled(engine: Engine, handler: Handler) -> None:
    engine.stop_service("app:worker")
    message_id = engine.publish("app:tasks", {"n": 1}, ttl=0.01)
    eventually(lambda: engine.dead_letters("app:dead").list(), "expired")
    engine.start_service("app:worker")
    [dead] = engine.dead_letters("app:dead").list()
    assert (dead.id, dead.reason, dead.attempts) == (message_id, "expired", 0)
    assert handler.handled == []


@pytest.mark.parametrize("arguments", [{"rate": 0}, {"rate": -1}, {"rate": float("nan")}])
def test_a_rate_that_makes_no_sense_is_refused(engine: Engine, arguments: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="rate: expected messages per second"):
        engine.dead_letters("app:dead").replay(**arguments)


def test_a_paused_consumer_hands_back_its_buffer_and_goes_on_after_resume(engine: Engine, handler: Handler) -> None:
    engine.pause("app:worker")
    engine.publish("app:tasks", {"n": 1})
    assert engine.info("app:tasks").ready == 1
    assert engine.health().ready
    engine.resume("app:worker")
    engine.join("app:tasks", timeout=DEADLINE)
    assert handler.handled == [1]
    with pytest.raises(NotFound, match="there is no consumer app:memory"):
        engine.pause("app:memory")


def test_what_goes_wrong_is_counted(engine: Engine) -> None:
    fail(engine, 1)
    fail(engine, 2, queue="app:plain")
    engine.stop_service("app:other")
    engine.publish("app:plain", {"n": 3}, ttl=0)
    eventually(lambda: engine.counters("app:plain")["dropped_expired"] == 1, "expired")
    counted = engine.counters("app:tasks")
    assert (counted["failed"], counted["dead_lettered"], counted["parked"]) == (2, 1, 0)
    counted = engine.counters("app:plain")
    assert (counted["failed"], counted["dead_lettered"], counted["parked"]) == (1, 0, 1)
