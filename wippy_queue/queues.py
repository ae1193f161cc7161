"""What drivers and the flow know of a declared queue."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Literal

import attrs

from wippy_queue.ids import EntryId
from wippy_queue.message import Encoding, Message

DropReason = Literal["expired", "maxlen"]


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How long a message waits after each failure. ``max_attempts`` 0 means for ever; seconds otherwise."""

    initial_delay: float = 0.1
    max_delay: float = 60.0
    backoff_factor: float = 2.0
    jitter: float = 0.1  # share of the delay that is added or taken away at random, 0..1
    max_attempts: int = 0

    def delay(self, attempts: int) -> float:
        """Return the seconds to wait after the ``attempts``-th failure (1 or more): exponential backoff with jitter."""
        if self.initial_delay <= 0:
            return 0.0
        try:
            grown = self.initial_delay * self.backoff_factor ** (attempts - 1)
        except OverflowError:
            grown = self.max_delay
        delay = min(grown, self.max_delay)
        return max(0.0, delay * (1 + random.uniform(-self.jitter, self.jitter)))


@attrs.frozen(kw_only=True)
class DeadLetter:
    """Where messages go that cannot be handled: a queue, after ``max_attempts`` failures."""

    queue: EntryId
    max_attempts: int = 3


@attrs.frozen(kw_only=True)
class Queue:
    """A declared queue, as its driver and the flow see it."""

    id: EntryId
    name: str  # the name that the driver uses
    driver: EntryId
    encoding: Encoding = "json"
    options: object = None  # an instance of the driver's queue option class
    dead_letter: DeadLetter | None = None
    retry: RetryPolicy = RetryPolicy()
    # What the driver calls with messages that it drops by itself (expired, pushed out by overflow), before it forgets
    # them: they are dead-lettered or counted there. Called without any lock held, from any thread; it may publish to
    # the same driver, may block and may raise: then the driver keeps the messages and tries again later.
    on_drop: Callable[[Sequence[Message], DropReason], None] | None = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen(kw_only=True)
class QueueInfo:
    """How many messages a queue holds; what a driver cannot know is None."""

    message_count: int | None = None  # ready + in_flight + delayed
    ready: int | None = None
    in_flight: int | None = None
    delayed: int | None = None
    parked: int | None = None
    consumer_count: int | None = None
