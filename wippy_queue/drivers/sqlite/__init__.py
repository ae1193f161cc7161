"""Queues in one file, with no server: durable, shared by the processes of one machine, exact about attempts.

`statements.py` is what happens to the rows; `writer.py` puts many calls into one commit; `board.py` is how attempts
stay exact when a process is killed; `subscription.py` hands out and settles; `keeper.py` keeps leases alive and takes
over from dead processes; `dropper.py` hands expired and pushed-out messages to the flow.
"""

from __future__ import annotations

from wippy_queue.driver import Capabilities, Driver, DriverKind
from wippy_queue.drivers.sqlite.options import SqliteConfig, SqliteConsumerOptions, SqliteQueueOptions
from wippy_queue.ids import EntryId


def _create(driver_id: EntryId, config: SqliteConfig) -> Driver:
    from wippy_queue.drivers.sqlite.driver import SqliteDriver  # loads sqlite3, which few need

    return SqliteDriver(driver_id, config)


KIND = DriverKind(
    kind="queue.driver.sqlite",
    config=SqliteConfig,
    queue_options=SqliteQueueOptions,
    consumer_options=SqliteConsumerOptions,
    capabilities=Capabilities(durable=True, shared=True, exact_attempts=True, leases=True),
    create=_create,
)
