"""What YAML may say of a memory driver, its queues and its consumers."""

from __future__ import annotations

from typing import Literal

import attrs

from wippy_queue.options import duration
from wippy_queue.queues import Queue


@attrs.frozen(kw_only=True)
class MemoryConfig:
    """A memory driver has no settings."""


@attrs.frozen(kw_only=True)
class MemoryQueueOptions:
    """What a queue on the memory driver may be told."""

    max_length: int = attrs.field(default=0, validator=attrs.validators.ge(0))  # 0: bounded by memory alone
    overflow: Literal["block", "reject", "drop_oldest"] = "block"
    message_ttl: float | None = duration(default=None)  # seconds


@attrs.frozen(kw_only=True)
class MemoryConsumerOptions:
    """A consumer of a memory queue has no options."""


def options_of(queue: Queue) -> MemoryQueueOptions:
    return queue.options if isinstance(queue.options, MemoryQueueOptions) else MemoryQueueOptions()
