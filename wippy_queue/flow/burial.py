"""Where messages go that no handler will get: the dead-letter queue, or the parked queue where there is none."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs
import msgspec

from wippy_queue.driver import Driver
from wippy_queue.errors import NotFound
from wippy_queue.events import Event, MessageDeadLettered, MessageDropped
from wippy_queue.ids import EntryId
from wippy_queue.message import (
    ATTEMPTS,
    DEAD_LETTER_ERROR,
    DEAD_LETTER_FUNCTION,
    DEAD_LETTER_REASON,
    DEAD_LETTER_TIME,
    ORIGINAL_QUEUE,
    HeaderValue,
    Message,
)
from wippy_queue.queues import DropReason, Queue

_log = logging.getLogger(__name__)

_PUBLISH_TIMEOUT: Final = 10.0  # seconds that a dead letter may take
_MAX_ERROR: Final = 2000  # characters of the error's text that a header keeps
_DROPPED: Final[Mapping[DropReason, str]] = {
    "expired": "its time to live was over before a handler got it",
    "maxlen": "the queue was full, and it was the oldest",
}


@attrs.frozen
class Route:
    """A declared queue and the driver that holds it."""

    queue: Queue
    driver: Driver


def parked_queue(queue: Queue) -> Queue:
    """Return the queue that keeps the messages of ``queue`` that were given up, on the same driver."""
    return Queue(
        id=EntryId(f"{queue.id}.parked"), name=f"{queue.name}.parked", driver=queue.driver, encoding=queue.encoding
    )


class Burial:
    """Buries messages, with the headers that tell why.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, routes: Mapping[EntryId, Route], emit: Callable[[Event], None]) -> None:
        self._routes = routes
        self._emit = emit
        self._parked: set[EntryId] = set()
        self._lock = threading.Lock()

    def bury(
        self, queue: Queue, message: Message, reason: str, *, error: str = "", function: EntryId | None = None
    ) -> None:
        """Publish the message to where it is kept; the caller removes it from ``queue`` afterwards.

        Raises:
            WippyQueueError: it could not be stored; it must stay where it is.
        """
        self._bury(queue, [_tombstone(queue, message, reason, error, function)], reason)

    def drop(self, queue: Queue, messages: Sequence[Message], reason: DropReason) -> None:
        """What a driver calls with messages that it drops: dead-letter them, or tell that they vanish."""
        if queue.dead_letter is not None:
            error = _DROPPED[reason]
            self._bury(queue, [_tombstone(queue, message, reason, error, None) for message in messages], reason)
            return
        for message in messages:
            self._emit(MessageDropped(queue=queue.id, message_id=message.id, reason=reason))

    def _bury(self, queue: Queue, messages: Sequence[Message], reason: str) -> None:
        target, driver = self._target(queue)
        driver.publish(target, messages, _PUBLISH_TIMEOUT)
        for message in messages:
            _log.warning(
                "message given up",
                extra={
                    "fields": {"queue": queue.id, "to": target.id, "message_id": message.id, "reason": reason},
                },
            )
            self._emit(
                MessageDeadLettered(
                    queue=queue.id,
                    target=target.id,
                    message_id=message.id,
                    reason=reason,
                    attempts=int(message.headers[ATTEMPTS]),
                    parked=queue.dead_letter is None,
                )
            )

    def _target(self, queue: Queue) -> tuple[Queue, Driver]:
        if queue.dead_letter is not None:
            route = self._routes.get(queue.dead_letter.queue)
            if route is None:
                raise NotFound(f"the dead-letter queue {queue.dead_letter.queue} of {queue.id} does not exist")
            return route.queue, route.driver
        driver = self._routes[queue.id].driver
        parked = parked_queue(queue)
        with self._lock:
            if parked.id not in self._parked:
                driver.declare(parked)
                self._parked.add(parked.id)
        return parked, driver


def _tombstone(queue: Queue, message: Message, reason: str, error: str, function: EntryId | None) -> Message:
    headers: dict[str, HeaderValue] = {
        **message.headers,
        ATTEMPTS: message.attempts,
        ORIGINAL_QUEUE: str(queue.id),
        DEAD_LETTER_REASON: reason,
        DEAD_LETTER_TIME: time.time(),
    }
    headers[DEAD_LETTER_ERROR] = error[:_MAX_ERROR]
    if function is not None:
        headers[DEAD_LETTER_FUNCTION] = str(function)
    edition = uuid.uuid4().hex  # it may have been here before, and been replayed
    return msgspec.structs.replace(message, headers=headers, attempts=0, delay=0.0, expires_at=None, edition=edition)
