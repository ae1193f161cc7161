"""What this process knows of a queue, and who waits for what there: consumers, publishers for room, `join`."""

from __future__ import annotations

from typing import Protocol

from wippy_queue.drivers.redis.options import options_of
from wippy_queue.drivers.signal import Signal
from wippy_queue.errors import Invalid
from wippy_queue.queues import Queue


def check_name(queue: Queue) -> None:
    if "{" in queue.name or "}" in queue.name:
        raise Invalid(f"queue {queue.id}: `queue_name` must not contain braces on Redis, found {queue.name!r}")


class Sleeper(Protocol):
    """A consumer that may wait for messages."""

    def wake(self) -> bool:
        """Wake it; return whether it waits and will look."""


class LocalQueue:
    """A queue as this process knows it. Thread safety: every method may be called from any thread."""

    def __init__(self, prefix: str, queue: Queue) -> None:
        self.base = f"{prefix}{{{queue.name}}}:".encode()
        self.left = Signal()  # messages have left the queue
        self.sleepers: tuple[Sleeper, ...] = ()  # replaced as a whole; the driver's lock guards that
        self.tend_at = 0.0  # monotonic; the keeper's
        self.drop_at = 0.0  # monotonic; when the dropper looks again
        self.redeclare(queue)

    def redeclare(self, queue: Queue) -> None:
        self.queue = queue
        self.options = options_of(queue)

    def wake(self) -> bool:
        """Wake those who wait for messages; return whether anybody will look."""
        woken = [sleeper.wake() for sleeper in self.sleepers]
        return any(woken)
