"""Queues that live in this process. The driver to read first: it shows the contract, and it never waits for I/O."""

from __future__ import annotations

from wippy_queue.driver import Capabilities, DriverKind
from wippy_queue.drivers.memory.driver import MemoryDriver
from wippy_queue.drivers.memory.options import MemoryConfig, MemoryConsumerOptions, MemoryQueueOptions
from wippy_queue.ids import EntryId

__all__ = ["KIND", "MemoryConfig", "MemoryConsumerOptions", "MemoryDriver", "MemoryQueueOptions"]


def _create(driver_id: EntryId, config: MemoryConfig) -> MemoryDriver:
    return MemoryDriver(driver_id)


KIND = DriverKind(
    kind="queue.driver.memory",
    config=MemoryConfig,
    queue_options=MemoryQueueOptions,
    consumer_options=MemoryConsumerOptions,
    capabilities=Capabilities(),
    create=_create,
)
