"""What services and workers tell whoever subscribes: one small class an event."""

from __future__ import annotations

import attrs

from wippy_queue.errors import Kind
from wippy_queue.ids import EntryId


@attrs.frozen(kw_only=True)
class Event:
    """Base of all events."""


@attrs.frozen(kw_only=True)
class ServiceStateChanged(Event):
    """A driver, consumer or store went from one state to another."""

    service: EntryId
    old: str
    new: str
    error: str | None = None


@attrs.frozen(kw_only=True)
class MessageFailed(Event):
    """A handler failed; ``delay`` is the wait before the next attempt in seconds, None when there will be none."""

    consumer: EntryId
    queue: EntryId
    message_id: str
    attempts: int
    error: str
    kind: Kind
    delay: float | None


@attrs.frozen(kw_only=True)
class MessageDeadLettered(Event):
    """A message went to a dead-letter queue, or was parked (``parked``) where there is none."""

    queue: EntryId
    target: str
    message_id: str
    reason: str
    attempts: int
    parked: bool


@attrs.frozen(kw_only=True)
class MessageDropped(Event):
    """A driver dropped a message of a queue that has no dead-letter queue."""

    queue: EntryId
    message_id: str
    reason: str


@attrs.frozen(kw_only=True)
class SettleLost(Event):
    """A settle never reached the backend: its lease or its connection was gone. The message will come again."""

    consumer: EntryId
    queue: EntryId
    message_id: str
    error: str


@attrs.frozen(kw_only=True)
class WorkerStuck(Event):
    """A handler outlived its time limit and could not be ended; its worker was replaced."""

    consumer: EntryId
    queue: EntryId
    message_id: str
    thread: str
    stuck: int  # how many of the consumer are stuck now


@attrs.frozen(kw_only=True)
class WorkerDied(Event):
    """A feeder or worker thread ended by an error of ours; its consumer has failed and is restarted."""

    consumer: EntryId
    thread: str
    error: str


@attrs.frozen(kw_only=True)
class AccessDenied(Event):
    """A security policy, or strict mode, has refused an action. ``function`` is the one that asked, None for Python."""

    actor: str | None  # the id; None: nobody was named
    action: str
    resource: str
    function: EntryId | None
