"""The memory driver keeps the contract."""

from __future__ import annotations

from wippy_queue.driver import Driver
from wippy_queue.drivers.memory import KIND
from wippy_queue.drivers.memory.driver import MemoryDriver
from wippy_queue.ids import EntryId
from wippy_queue.testing.conformance import DriverConformance


class TestMemory(DriverConformance):
    kind = KIND
    patience = 5.0
    moment = 0.05
    delay = 0.1

    def make_driver(self) -> Driver:
        return MemoryDriver(EntryId("test:memory"))
