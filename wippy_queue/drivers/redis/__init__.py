"""Queues on a Redis or Valkey server: durable as far as the server is, shared by machines, with leases.

`lua/` is what happens on the server; `transport.py` brings scripts there, over connections that many threads share
(`line.py`); `subscription.py` hands out and settles; `flusher.py` sends what was settled; `marks.py` is how attempts
stay exact when a process is killed; `keeper.py` keeps leases alive and takes over from the dead; `listener.py` hears
wake-ups; `dropper.py` hands expired and pushed-out messages to the flow.
"""

from __future__ import annotations

from wippy_queue.driver import Capabilities, Driver, DriverKind
from wippy_queue.drivers.redis.options import RedisConfig, RedisConsumerOptions, RedisQueueOptions
from wippy_queue.errors import Invalid
from wippy_queue.ids import EntryId


def _create(driver_id: EntryId, config: RedisConfig) -> Driver:
    try:
        from wippy_queue.drivers.redis.driver import RedisDriver  # needs redis-py
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "redis":
            raise
        raise Invalid(
            f"driver {driver_id}: queue.driver.redis needs redis-py; install it: pip install 'wippy_queue[redis]'"
        ) from None
    return RedisDriver(driver_id, config)


KIND = DriverKind(
    kind="queue.driver.redis",
    config=RedisConfig,
    queue_options=RedisQueueOptions,
    consumer_options=RedisConsumerOptions,
    capabilities=Capabilities(durable=True, shared=True, idempotent_publish=True, leases=True),
    create=_create,
)
