"""The flusher: one thread a driver that sends what was settled, all that is there at a time."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from wippy_queue.drivers.redis.leases import Batch
from wippy_queue.drivers.redis.subscription import RedisSubscription
from wippy_queue.drivers.redis.transport import Transport
from wippy_queue.drivers.redis.trouble import Trouble

_log = logging.getLogger(__name__)

_PATIENCE: Final = 60.0  # seconds; the line gives up before
_PAUSE: Final = 0.05  # seconds before a batch that failed is sent again; a line that is down waits longer


class Flusher:
    """Thread safety: every method may be called from any thread."""

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self._wake = threading.Condition()
        self._dirty: set[RedisSubscription] = set()
        self._stopping = False
        self._pause = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, deadline: float) -> None:
        """End the thread; it is waited for until ``deadline`` (monotonic seconds)."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._pause.set()
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def flush(self, subscription: RedisSubscription) -> None:
        with self._wake:
            if not self._dirty:
                self._wake.notify()
            self._dirty.add(subscription)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._dirty and not self._stopping:
                    self._wake.wait()
                if self._stopping:
                    return
                dirty, self._dirty = self._dirty, set()
            try:
                self._send(dirty)
            except Exception:
                _log.exception("sending settlements to Redis failed; it is tried again")
                self._again(dirty)

    def _send(self, dirty: set[RedisSubscription]) -> None:
        batches: list[tuple[RedisSubscription, Batch]] = []
        for subscription in dirty:
            batch = subscription.next_batch()
            if batch is not None:
                batches.append((subscription, batch))
        if not batches:
            return
        asked = time.monotonic()
        answers = self._transport.attempt_many([batch.request for _, batch in batches], asked + _PATIENCE)
        failed: set[RedisSubscription] = set()
        for (subscription, batch), answer in zip(batches, answers, strict=True):
            if subscription.flushed(batch, asked, answer):
                if isinstance(answer, Trouble):
                    failed.add(subscription)
                else:
                    self.flush(subscription)
        if failed:
            self._again(failed)

    def _again(self, subscriptions: set[RedisSubscription]) -> None:
        self._pause.wait(_PAUSE)
        for subscription in subscriptions:
            self.flush(subscription)
