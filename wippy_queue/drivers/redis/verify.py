"""Whether the server is fit for the queues, found out without storing anything."""

from __future__ import annotations

import time
from collections.abc import Sequence

from wippy_queue.drivers.redis.check import check
from wippy_queue.drivers.redis.connecting import servers
from wippy_queue.drivers.redis.options import RedisConfig
from wippy_queue.drivers.redis.transport import Request, Transport
from wippy_queue.drivers.redis.trouble import Trouble
from wippy_queue.drivers.redis.waiting import LocalQueue, check_name
from wippy_queue.errors import Problem, WippyQueueError
from wippy_queue.ids import EntryId
from wippy_queue.queues import Queue


def verify(driver_id: EntryId, config: RedisConfig, queues: Sequence[Queue]) -> list[Problem]:
    """Return what stands against the queues. Raises what starting the driver would."""
    found = servers(driver_id, config)
    transport = Transport(found, config, lambda: None)
    try:
        check(transport, driver_id, config)
        return [problem for queue in queues for problem in _problems(transport, queue, config)]
    finally:
        transport.close()
        found.close()


def _problems(transport: Transport, queue: Queue, config: RedisConfig) -> list[Problem]:
    try:
        check_name(queue)
        # A script that only looks: the user needs the right to run scripts, and the keys of the queue.
        base = LocalQueue(config.key_prefix, queue).base
        transport.attempt(Request("info", base), time.monotonic() + config.connection_timeout)
    except (Trouble, WippyQueueError) as error:
        return [Problem(str(error), entry=queue.id)]
    return []
