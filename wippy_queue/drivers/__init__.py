"""The drivers, one folder each; `driver.py` is the contract that they keep."""

from __future__ import annotations

from typing import Final

from wippy_queue.driver import DriverKind
from wippy_queue.drivers import amqp, memory, redis, sqlite, sqs

DRIVER_KINDS: Final[dict[str, DriverKind]] = {
    kind.kind: kind for kind in (memory.KIND, sqlite.KIND, amqp.KIND, redis.KIND, sqs.KIND)
}
