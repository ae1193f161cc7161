"""The keeper: one thread a driver that extends leases and takes over from owners that are gone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from redis import exceptions

from wippy_queue.drivers.redis.marks import MarkLine
from wippy_queue.drivers.redis.subscription import RedisSubscription
from wippy_queue.drivers.redis.transport import Request, Transport
from wippy_queue.drivers.redis.waiting import LocalQueue

_log = logging.getLogger(__name__)

_ROUND: Final = 5.0  # seconds between two looks at a queue, at most
_RETRY: Final = 0.25  # seconds until a look that failed is repeated
_LEAST: Final = 0.02  # seconds between two rounds
_PATIENCE: Final = 2.0  # seconds for an answer


class Keeper:
    """Thread safety: every method may be called from any thread."""

    def __init__(
        self,
        transport: Transport,
        marks: MarkLine,
        *,
        lease: float,
        queues: Callable[[], Iterable[LocalQueue]],
        subscriptions: Callable[[], Iterable[RedisSubscription]],
        on_returned: Callable[[LocalQueue], None],
        name: str,
    ) -> None:
        self._transport = transport
        self._marks = marks
        self._round = min(_ROUND, lease / 3)
        self._queues = queues
        self._subscriptions = subscriptions
        self._on_returned = on_returned  # messages came back from an owner that is gone
        self._wake = threading.Condition()
        self._woken = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, deadline: float) -> None:
        """End the thread; it is waited for until ``deadline`` (monotonic seconds)."""
        self._stopping = True
        self.wake()
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def wake(self) -> None:
        """There is something to do now."""
        with self._wake:
            self._woken = True
            self._wake.notify()

    def tend(self, queue: LocalQueue) -> None:
        """Look at a queue now."""
        queue.tend_at = 0.0
        self.wake()

    def _run(self) -> None:
        while not self._stopping:
            with self._wake:
                self._woken = False
            try:
                wait = self._keep()
            except Exception:
                _log.exception("the keeper of a redis driver failed, and goes on")
                wait = _RETRY
            with self._wake:
                if not self._woken:
                    self._wake.wait(max(_LEAST, wait))

    def _keep(self) -> float:
        """Do what is due; return the seconds until more is."""
        asked = time.monotonic()
        subscriptions = list(self._subscriptions())
        beats = [(subscription, beat) for subscription in subscriptions if (beat := subscription.beat()) is not None]
        due = [queue for queue in self._queues() if queue.tend_at <= asked]
        for queue in due:
            queue.tend_at = asked + self._round
        requests = [request for _, (_, request) in beats] + [Request("tend", queue.base) for queue in due]
        answers = self._transport.attempt_many(requests, asked + _PATIENCE) if requests else []
        for (subscription, (owner, _)), answer in zip(beats, answers, strict=False):
            subscription.beaten(owner, asked, answer)
        now = time.monotonic()
        failed = any(isinstance(answer, Exception) for answer in answers)
        for queue, answer in zip(due, answers[len(beats) :], strict=True):
            if isinstance(answer, Exception):
                queue.tend_at = now + _RETRY
                continue
            returned, next_end = answer
            if next_end >= 0:
                queue.tend_at = min(queue.tend_at, now + next_end / 1000)
            if returned:
                fields = {"queue": queue.queue.id, "messages": returned}
                _log.warning("took messages over from a consumer that is gone", extra={"fields": fields})
                self._on_returned(queue)
        if not failed:
            for subscription in subscriptions:
                self.open_marks(subscription.queue.base)
        return self._until_next(now, failed)

    def _until_next(self, now: float, failed: bool) -> float:
        times = [queue.tend_at for queue in self._queues()]
        soonest = now + _RETRY if failed else now
        times += [max(subscription.next_beat, soonest) for subscription in self._subscriptions()]
        return min([*times, now + self._round]) - now

    def open_marks(self, base: bytes) -> None:
        """Open the connection for marks of that queue, if it is not."""
        try:
            self._marks.open(base)
        except (exceptions.RedisError, exceptions.RedisClusterException, OSError):
            pass  # until then the flusher brings the marks
