"""From a body and headers to messages that a driver has."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import DEADLINE, queue
from wippy_queue.driver import Capabilities
from wippy_queue.drivers.memory import MemoryDriver, MemoryQueueOptions
from wippy_queue.errors import Canceled, Invalid, NotFound, QueueFull
from wippy_queue.flow.burial import Route
from wippy_queue.flow.publisher import Publisher, PublishOptions
from wippy_queue.ids import EntryId
from wippy_queue.message import Message

NONE = PublishOptions()
QUEUE = "app:tasks"
PACKED = "app:packed"
SMALL = "app:small"


class Setup:
    def __init__(self, driver: MemoryDriver, capabilities: Capabilities | None = None) -> None:
        self.driver = driver
        small = MemoryQueueOptions(max_length=1)
        queues = [queue(), queue("packed", encoding="msgpack"), queue("small", options=small)]
        for declared in queues:
            driver.declare(declared)
        self.routes = {declared.id: Route(declared, driver) for declared in queues}
        self.publisher = Publisher(self.routes, {driver.id: capabilities or Capabilities()})

    def publish(self, *bodies: Any, to: str = QUEUE, headers: Any = None, **options: Any) -> list[str]:
        return self.publisher.publish(to, bodies, headers, PublishOptions(**options), 0.0)

    def waiting(self, of: str = QUEUE) -> list[Message]:
        return self.driver.peek(self.routes[EntryId(of)].queue, 100)


@pytest.fixture
def setup() -> Iterator[Setup]:
    driver = MemoryDriver(EntryId("app:memory"))
    driver.start()
    yield Setup(driver)
    driver.stop(DEADLINE)


def test_bodies_are_encoded_with_the_codec_of_their_queue(setup: Setup) -> None:
    setup.publish({"n": 1})
    setup.publish(b"\x00\xff")
    setup.publish({"n": b"\x00"}, to=PACKED)
    assert [(m.encoding, m.body) for m in setup.waiting()] == [("json", b'{"n":1}'), ("binary", b"\x00\xff")]
    assert [m.encoding for m in setup.waiting(PACKED)] == ["msgpack"]


def test_ids_come_back_in_order_and_are_kept(setup: Setup) -> None:
    ids = setup.publish({"n": 1}, {"n": 2})
    assert [m.id for m in setup.waiting()] == ids
    assert setup.publish({"n": 3}, message_id="mine") == ["mine"]


def test_ids_are_random_uuids(setup: Setup) -> None:
    ids = setup.publish(*([1] * 2000))
    assert len(set(ids)) == 2000
    parsed = [uuid.UUID(message_id) for message_id in ids]
    assert all(
        (one.version, one.variant, str(one)) == (4, uuid.RFC_4122, text) for one, text in zip(parsed, ids, strict=True)
    )
    assert 900 < sum(one.int & 1 for one in parsed) < 1100


def test_a_message_knows_when_it_was_published(setup: Setup) -> None:
    before = time.time()
    setup.publish("hello")
    [message] = setup.waiting()
    assert before <= message.timestamp <= time.time()
    assert message.all_headers() == {"timestamp": message.timestamp, "attempts": 0}


@pytest.mark.parametrize(
    ("headers", "what"),
    [
        ({"attempts": 3}, "'attempts' is written by the engine"),
        ({"x_mine": 1}, "'x_mine' is written by the engine"),
        ({"": 1}, "keys must be text"),
        ({1: 1}, "keys must be text"),
        ({"list": [1]}, "'list' must be text, a finite number"),
        ({"nan": float("nan")}, "'nan' must be text, a finite number"),
        ({"big": 2**63}, "'big' must be text, a finite number"),
        ({"surrogate": "\ud800"}, "'surrogate' must be text"),
        ({"wippy.delai": 1}, "did you mean 'wippy.delay'"),
        ({"\udcff": 1}, "keys must be text"),
        ({"wippy.delay": "soon"}, "wippy.delay: expected a duration like"),
    ],
)
def test_a_header_that_cannot_travel_is_refused_and_nothing_is_published(setup: Setup, headers: Any, what: str) -> None:
    with pytest.raises(Invalid) as caught:
        setup.publish({"n": 1}, headers=headers)
    assert what in str(caught.value)
    assert setup.waiting() == []


def test_headers_arrive_as_published_with_their_types(setup: Setup) -> None:
    headers = {"correlation_id": "c-1", "n": 9, "f": 9.0, "yes": True, "amqp.priority": 3, "sqs.message_group_id": "g"}
    setup.publish({"n": 1}, headers=headers)
    [message] = setup.waiting()
    assert dict(message.headers) == headers
    assert type(message.headers["n"]) is int
    assert type(message.headers["f"]) is float


def test_options_may_be_headers_and_are_not_delivered(setup: Setup) -> None:
    setup.publish({"n": 1}, headers={"wippy.delay": "1h", "wippy.priority": 7, "wippy.message_id": "m", "k": "v"})
    [message] = setup.waiting()
    assert (message.delay, message.priority, message.id) == (3600.0, 7, "m")
    assert dict(message.headers) == {"k": "v"}


def test_an_explicit_option_wins_over_a_header(setup: Setup) -> None:
    setup.publish({"n": 1}, headers={"wippy.delay": 5}, delay=9)
    assert setup.waiting()[0].delay == 9


@pytest.mark.parametrize(("value", "priority"), [(4, 4), (0, 0), (12, 0), ("high", 0), (True, 0), (3.0, 0)])
def test_a_priority_header_passes_and_counts_where_it_is_one(setup: Setup, value: Any, priority: int) -> None:
    setup.publish({"n": 1}, headers={"priority": value})
    [message] = setup.waiting()
    assert message.headers["priority"] == value
    assert message.priority == priority


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"delay": -1}, "delay: expected seconds"),
        ({"delay": "1s"}, "delay: expected seconds"),
        ({"delay": 1e10}, "delay: expected seconds from 0 to 1000000000"),
        ({"ttl": 10**400}, "ttl: expected seconds from 0 to 1000000000"),
        ({"message_id": "\udcff"}, "message_id: expected text"),
        ({"ttl": float("inf")}, "ttl: expected seconds"),
        ({"priority": 10}, "priority: expected an integer from 0 to 9"),
        ({"priority": True}, "priority: expected an integer from 0 to 9"),
        ({"message_id": ""}, "message_id: expected text"),
    ],
)
def test_options_out_of_range_are_refused(setup: Setup, options: Any, what: str) -> None:
    with pytest.raises(Invalid, match=what):
        setup.publish({"n": 1}, **options)


@pytest.mark.parametrize("option", [{"delay": 1}, {"ttl": 1}, {"priority": 1}])
def test_an_option_that_the_driver_cannot_honour_names_the_driver(option: Any) -> None:
    driver = MemoryDriver(EntryId("app:memory"))
    driver.start()
    setup = Setup(driver, Capabilities(delay=False, ttl=False, priority=False))
    with pytest.raises(Invalid, match="driver app:memory of queue app:tasks cannot honour it"):
        setup.publish({"n": 1}, **option)
    driver.stop(DEADLINE)


def test_an_unknown_queue_is_not_found_with_a_suggestion(setup: Setup) -> None:
    with pytest.raises(NotFound, match="did you mean 'app:tasks'"):
        setup.publish({"n": 1}, to="app:task")


def test_the_fault_in_a_batch_is_named_and_nothing_is_published(setup: Setup) -> None:
    with pytest.raises(Invalid, match=r"bodies\[1\]: body\.price: expected a JSON value"):
        setup.publish({"n": 1}, {"price": object()})
    assert setup.waiting() == []


def publish_from_handler(setup: Setup, cancel: threading.Event, timeout: float) -> str:
    return setup.publisher.publish_encoded(SMALL, b"1", "json", None, cancel, timeout)


def test_a_publish_in_a_handler_that_waits_for_room_ends_when_its_consumer_stops(setup: Setup) -> None:
    publish_from_handler(setup, threading.Event(), 0.0)
    cancel, errors = threading.Event(), []

    def handler() -> None:
        try:
            publish_from_handler(setup, cancel, DEADLINE)
        except Canceled as error:
            errors.append(error)

    thread = threading.Thread(target=handler)
    thread.start()
    cancel.set()
    thread.join(DEADLINE)
    assert len(errors) == 1
    assert len(setup.waiting(SMALL)) == 1


def test_a_publish_in_a_handler_gives_up_at_its_deadline(setup: Setup) -> None:
    publish_from_handler(setup, threading.Event(), 0.0)
    with pytest.raises(QueueFull):
        publish_from_handler(setup, threading.Event(), 0.12)
