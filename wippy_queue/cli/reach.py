"""How a command gets at queues that live outside its process."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence

from wippy_queue import entries
from wippy_queue.cli.output import Exit, print_error
from wippy_queue.engine import Engine
from wippy_queue.errors import NotFound
from wippy_queue.suggest import did_you_mean


@contextlib.contextmanager
def reach(application: entries.Application, chosen: Sequence[str]) -> Iterator[Engine]:
    """Start the drivers of the chosen queues, which must live outside this process, and nothing else."""
    private = [queue for queue in chosen if not is_shared(application, queue)]
    if private:
        print_error(
            f"{', '.join(private)}: a memory queue lives inside the one process that runs the application and cannot be"
            " reached from another; use the methods of its engine there, or a driver that several processes share"
        )
        sys.exit(Exit.USAGE)
    engine = Engine(application)
    try:
        for driver_id in {queue_entry(application, queue).driver for queue in chosen}:
            engine.start_service(driver_id)
        yield engine
    finally:
        engine.stop()


def queue_entries(application: entries.Application) -> dict[str, entries.QueueEntry]:
    return {entry.id: entry for entry in application.entries.values() if isinstance(entry, entries.QueueEntry)}


def queue_entry(application: entries.Application, queue: str) -> entries.QueueEntry:
    queues = queue_entries(application)
    if queue not in queues:
        raise NotFound(f"no queue {queue!r} is declared{did_you_mean(queue, queues)}")
    return queues[queue]


def is_shared(application: entries.Application, queue: str) -> bool:
    """Whether other processes see the same queue."""
    driver = application.entries[queue_entry(application, queue).driver]
    return isinstance(driver, entries.DriverEntry) and driver.kind.capabilities.shared
