"""The timekeeper of a consumer with a time limit: it notices handlers that outlive the limit and cannot be ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from wippy_queue.delivery import Delivery
from wippy_queue.flow.worker import Worker


class Timekeeper:
    """Looks at the workers whenever one of them may have become stuck, and sleeps in between.

    Thread safety: ``run`` is a thread of its own, which ends when ``cancel`` is set.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        limit: float,
        on_stuck: Callable[[Worker, Sequence[Delivery]], None],
        cancel: threading.Event,
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._workers = workers  # the consumer's own list: what it replaces there is seen here
        self._limit = limit  # seconds from the start of a handler until its worker counts as stuck
        self._on_stuck = on_stuck
        self._cancel = cancel
        self._on_failure = on_failure

    def run(self) -> None:
        try:
            while not self._cancel.wait(self._look()):
                pass
        except Exception as error:
            self._on_failure(error)

    def _look(self) -> float:
        """Report who is stuck; return the seconds until the next one may be."""
        now = time.monotonic()
        next_due = now + self._limit  # of a handler that starts right now
        for worker in list(self._workers):
            hand, begun = worker.hand, worker.begun
            if not hand or begun is None:
                continue
            if now - begun >= self._limit:
                self._on_stuck(worker, hand)
            else:
                next_due = min(next_due, begun + self._limit)
        return next_due - now
