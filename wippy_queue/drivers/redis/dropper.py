"""The dropper: hands expired and pushed-out messages to the flow, and forgets them only then."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from wippy_queue.drivers.redis import wire
from wippy_queue.drivers.redis.transport import Request, Transport
from wippy_queue.drivers.redis.trouble import Trouble
from wippy_queue.drivers.redis.waiting import LocalQueue
from wippy_queue.errors import WippyQueueError
from wippy_queue.message import Message
from wippy_queue.queues import DropReason

_log = logging.getLogger(__name__)

_HOLD: Final = 60_000  # ms for which nobody else hands the same message over
_RETRY: Final = 1000  # ms until an on_drop that raised is tried again
_ROUND: Final = 5.0  # seconds between two looks at a queue, at most: another process may have brought mortal messages
_LEAST: Final = 0.01  # seconds between two rounds
_LIMIT: Final = 100  # messages at a time
_PATIENCE: Final = 2.0  # seconds for an answer


class Dropper:
    """A thread of its own, for on_drop may block, and leases must be extended meanwhile.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, transport: Transport, *, queues: Callable[[], Iterable[LocalQueue]], name: str) -> None:
        self._transport = transport
        self._queues = queues
        self._wake = threading.Condition()
        self._woken = False
        self._stopping = False
        self._handing_over = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self, deadline: float) -> None:
        """Wait for an on_drop that runs, until ``deadline`` (monotonic seconds); then its messages come again later."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
            self._wake.wait_for(lambda: not self._handing_over, max(0.0, deadline - time.monotonic()))

    def stop(self, deadline: float) -> None:
        """End the thread; it is waited for until ``deadline`` (monotonic seconds)."""
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def wake(self) -> None:
        """There are other queues now."""
        with self._wake:
            self._woken = True
            self._wake.notify()

    def drop(self, queue: LocalQueue, at: float = 0.0) -> None:
        """Look at a queue at ``at`` (monotonic seconds), or now."""
        if at >= queue.drop_at:
            return
        queue.drop_at = at
        self.wake()

    def _run(self) -> None:
        while not self._stopping:
            with self._wake:
                self._woken = False
            try:
                self._look()
            except Exception:
                if not self._stopping:  # else its connection was closed
                    _log.exception("the dropper of a redis driver failed, and goes on")
            next_look = min((queue.drop_at for queue in self._queues()), default=time.monotonic() + _ROUND)
            with self._wake:
                if not self._woken and not self._stopping:
                    self._wake.wait(max(_LEAST, next_look - time.monotonic()))

    def _look(self) -> None:
        now = time.monotonic()
        due = [queue for queue in self._queues() if queue.drop_at <= now]
        if not due:
            return
        for queue in due:
            queue.drop_at = now + _ROUND
        requests = [Request("drop", queue.base, (_HOLD, _LIMIT)) for queue in due]
        for queue, answer in zip(due, self._transport.attempt_many(requests, now + _PATIENCE), strict=True):
            if isinstance(answer, Exception):
                continue
            wait, expired, *parts = answer
            if wait >= 0:
                self.drop(queue, time.monotonic() + wait / 1000)
            messages = wire.decode_many(parts)
            self._hand_over(queue, messages[:expired], "expired")
            self._hand_over(queue, messages[expired:], "maxlen")

    def _hand_over(self, queue: LocalQueue, messages: Sequence[Message], reason: DropReason) -> None:
        with self._wake:
            if not messages or self._stopping:
                return
            self._handing_over = True
        try:
            self._drop(queue, messages, reason)
        finally:
            with self._wake:
                self._handing_over = False
                self._wake.notify_all()

    def _drop(self, queue: LocalQueue, messages: Sequence[Message], reason: DropReason) -> None:
        on_drop = queue.queue.on_drop
        again: int | str = ""
        try:
            if on_drop is not None:
                on_drop(messages, reason)
        except Exception as error:
            again = _RETRY
            fields = {"queue": queue.queue.id, "messages": len(messages), "error": str(error)}
            _log.warning("dropped messages could not be handed over; they stay", extra={"fields": fields})
            self.drop(queue, time.monotonic() + _RETRY / 1000)
        request = Request("dropped", queue.base, (reason, again, *(message.id for message in messages)))
        try:
            self._transport.attempt(request, time.monotonic() + _PATIENCE)
        except (Trouble, WippyQueueError) as error:  # they are handed over again when nobody holds them any more
            fields = {"queue": queue.queue.id, "messages": len(messages), "error": str(error)}
            _log.warning("dropped messages could not be removed from Redis", extra={"fields": fields})
        queue.left.set()
