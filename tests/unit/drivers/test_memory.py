"""What the memory driver promises beyond the contract; the contract itself is in tests/conformance."""

from __future__ import annotations

import tracemalloc
import uuid

from tests.support import message, queue
from wippy_queue.drivers.memory import MemoryDriver
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
    few, many = waiting(10_000), waiting(50_000)
    assert many / 50_000 < 600
    assert many / few < 5.5
