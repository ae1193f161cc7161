"""What YAML may say of a sqlite driver, its queues and its consumers."""

from __future__ import annotations

from typing import Literal

import attrs

from wippy_queue.options import duration, file_path, whole
from wippy_queue.queues import Queue


@attrs.frozen(kw_only=True)
class SqliteConfig:
    """An embedded, durable driver: one file, several processes of one machine, no server."""

    file: str = file_path()  # made when it is not there; its folder must exist
    # full: what publish confirmed survives a power cut. normal: it survives the death of the process, and a power cut
    # may take the last commits back; faster where a sync of the disk is slow.
    durability: Literal["full", "normal"] = "full"
    lease: float = duration(30.0, minimum=0.1)  # seconds after which a process that hangs loses its messages to others


@attrs.frozen(kw_only=True)
class SqliteQueueOptions:
    """What a queue on the sqlite driver may be told."""

    max_length: int = whole(0)  # 0: bounded by the disk alone
    overflow: Literal["block", "reject", "drop_oldest"] = "block"
    message_ttl: float | None = duration(None)  # seconds


@attrs.frozen(kw_only=True)
class SqliteConsumerOptions:
    """A consumer of a sqlite queue has no options."""


def options_of(queue: Queue) -> SqliteQueueOptions:
    return queue.options if isinstance(queue.options, SqliteQueueOptions) else SqliteQueueOptions()
