"""What the memory driver promises beyond the contract; the contract itself is in tests/conformance."""

from __future__ import annotations

import threading
import tracemalloc
import uuid
from collections.abc import Iterator

import pytest

from tests.support import DEADLINE, Receiving, eventually, message, queue
from wippy_queue.drivers.memory import MemoryDriver
from wippy_queue.drivers.memory.subscription import Subscription
from wippy_queue.ids import EntryId

TASKS = queue()


def waiting(count: int) -> int:
    """Return the bytes that so many waiting messages take, bodies left out."""
    driver = MemoryDriver(EntryId("app:memory"))
    driver.start()
    driver.declare(TASKS)
    body = b"x" * 200  # one for all: only what is beside the bodies counts
    tracemalloc.start()
    for _ in range(count):
        driver.publish(TASKS, [message(str(uuid.uuid4()), body, headers={"correlation_id": "c"})], 1.0)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    driver.stop(5.0)
    return size


def test_waiting_messages_take_linear_memory_and_less_than_600_bytes_each() -> None:
    few, many = waiting(5_000), waiting(25_000)
    assert many / 25_000 < 600
    assert many / few < 5.5


class Receiver(Receiving):
    """A thread in ``receive_into``."""

    def __init__(self, subscription: Subscription, limit: int, takes: bool = True) -> None:
        super().__init__(lambda sink: subscription.receive_into(sink, limit, DEADLINE), takes)

    def returned(self) -> list[str]:
        return [delivery.message.id for delivery in self.result()]


@pytest.fixture
def driver() -> Iterator[MemoryDriver]:
    driver = MemoryDriver(EntryId("app:memory"))
    driver.start()
    driver.declare(TASKS)
    yield driver
    driver.stop(5.0)


def wait_for_receivers(driver: MemoryDriver, count: int) -> None:
    eventually(lambda: len(driver._queues[TASKS.id]._waiting) == count, "they wait")


def publish(driver: MemoryDriver, *ids: str) -> None:
    driver.publish(TASKS, [message(name) for name in ids], 1.0)


def test_who_publishes_hands_over_to_whoever_waits_as_much_as_wanted_and_in_order(driver: MemoryDriver) -> None:
    receiver, me = Receiver(driver.subscribe(TASKS, 10), limit=3), threading.get_ident()
    wait_for_receivers(driver, 1)
    publish(driver, "a")
    publish(driver, "b", "c", "d")
    assert receiver.returned() == []
    assert receiver.given == [("a", me), ("b", me), ("c", me)]
    info = driver.info(TASKS)
    assert (info.ready, info.in_flight) == (1, 3)


def test_what_is_there_already_is_returned_and_not_handed_over(driver: MemoryDriver) -> None:
    publish(driver, "a", "b")
    receiver = Receiver(driver.subscribe(TASKS, 10), limit=3)
    assert receiver.returned() == ["a", "b"]
    assert receiver.given == []


def test_several_who_wait_all_get_a_share(driver: MemoryDriver) -> None:
    receivers = [Receiver(driver.subscribe(TASKS, 10), limit=5) for _ in range(3)]
    wait_for_receivers(driver, 3)
    publish(driver, *"abcdefg")
    assert sorted(len(receiver.given) for receiver in receivers) == [1, 3, 3]


def test_what_one_has_no_room_for_the_others_get(driver: MemoryDriver) -> None:
    small = Receiver(driver.subscribe(TASKS, 10), limit=1)
    wait_for_receivers(driver, 1)
    large = Receiver(driver.subscribe(TASKS, 10), limit=10)
    wait_for_receivers(driver, 2)
    publish(driver, *"abcdefgh")
    assert small.returned() == []
    assert sorted(name for name, _ in small.given + large.given) == list("abcdefgh")


def test_what_a_sink_refuses_stays_in_its_place_and_comes_to_somebody_else(driver: MemoryDriver) -> None:
    refusing = Receiver(driver.subscribe(TASKS, 10), limit=5, takes=False)
    wait_for_receivers(driver, 1)
    publish(driver, "a", "b")
    publish(driver, "c")
    assert refusing.returned() == []
    assert Receiver(driver.subscribe(TASKS, 10), limit=5).returned() == ["a", "b", "c"]


def test_a_message_that_a_cancelled_consumer_was_woken_for_comes_to_the_next(driver: MemoryDriver) -> None:
    first, second = driver.subscribe(TASKS, 10), driver.subscribe(TASKS, 10)
    leaving = Receiver(first, limit=5, takes=False)
    wait_for_receivers(driver, 1)
    staying = Receiver(second, limit=5)
    wait_for_receivers(driver, 2)
    publish(driver, "a")
    first.cancel()
    assert leaving.returned() == []
    assert [name for name, _ in staying.given] == ["a"]
    second.cancel()
    assert staying.returned() == []
