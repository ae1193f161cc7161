"""Dead letters, parked messages, and what drivers drop."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support import message, queue
from wippy_queue.drivers.memory import MemoryDriver
from wippy_queue.errors import NotFound
from wippy_queue.events import Event, MessageDeadLettered, MessageDropped
from wippy_queue.flow.burial import Burial, Route, parked_queue
from wippy_queue.ids import EntryId
from wippy_queue.queues import DeadLetter

DEAD = queue("dead")
TASKS = queue(dead_letter=DeadLetter(queue=DEAD.id))
PLAIN = queue("plain")


@pytest.fixture
def driver() -> Iterator[MemoryDriver]:
    driver = MemoryDriver(EntryId("app:memory"))
    driver.start()
    for declared in (TASKS, DEAD, PLAIN):
        driver.declare(declared)
    yield driver
    driver.stop(5.0)


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def burial(driver: MemoryDriver, events: list[Event]) -> Burial:
    return Burial({declared.id: Route(declared, driver) for declared in (TASKS, DEAD, PLAIN)}, events.append)


def test_a_dead_letter_keeps_id_body_and_headers_and_tells_why(
    burial: Burial, driver: MemoryDriver, events: list[Event]
) -> None:
    before = time.time()
    dying = message("m-1", headers={"correlation_id": "c-1"}, attempts=3, priority=4, expires_at=before + 1)
    burial.bury(TASKS, dying, "attempts", error="no such account", function=EntryId("app:pay"))
    [dead] = driver.peek(DEAD, 10)
    assert (dead.id, dead.body, dead.priority, dead.expires_at) == ("m-1", dying.body, 4, None)
    headers = dead.all_headers()
    assert before <= headers.pop("x_dead_letter_time") <= time.time()  # type: ignore[operator]
    assert headers == {
        "timestamp": dying.timestamp,
        "attempts": 3,
        "correlation_id": "c-1",
        "x_original_queue": "app:tasks",
        "x_dead_letter_reason": "attempts",
        "x_dead_letter_error": "no such account",
        "x_dead_letter_function": "app:pay",
    }
    assert dead.attempts == 0  # in its new queue it has not failed yet
    assert events == [
        MessageDeadLettered(
            queue=TASKS.id, target="app:dead", message_id="m-1", reason="attempts", attempts=3, parked=False
        )
    ]


def test_without_a_dead_letter_queue_messages_are_parked_beside_their_queue(
    burial: Burial, driver: MemoryDriver, events: list[Event]
) -> None:
    burial.bury(PLAIN, message("m-1"), "undecodable")
    burial.bury(PLAIN, message("m-2"), "undecodable")
    assert [parked.id for parked in driver.peek(parked_queue(PLAIN), 10)] == ["m-1", "m-2"]
    assert all(isinstance(event, MessageDeadLettered) and event.parked for event in events)


def test_a_very_long_error_is_cut_to_what_a_header_can_carry(burial: Burial, driver: MemoryDriver) -> None:
    burial.bury(TASKS, message(), "attempts", error="x" * 100_000)
    [dead] = driver.peek(DEAD, 1)
    assert len(str(dead.headers["x_dead_letter_error"])) == 2000


def test_what_a_driver_drops_is_dead_lettered_or_told(
    burial: Burial, driver: MemoryDriver, events: list[Event]
) -> None:
    burial.drop(TASKS, [message("m-1")], "expired")
    burial.drop(PLAIN, [message("m-2")], "maxlen")
    assert [dead.headers["x_dead_letter_reason"] for dead in driver.peek(DEAD, 10)] == ["expired"]
    assert events[-1] == MessageDropped(queue=PLAIN.id, message_id="m-2", reason="maxlen")


def test_a_grave_that_is_not_there_raises_so_that_the_message_stays(driver: MemoryDriver) -> None:
    with pytest.raises(NotFound):
        Burial({}, lambda _: None).bury(TASKS, message(), "attempts")
