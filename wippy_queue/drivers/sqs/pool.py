"""The threads that make calls: few, made when they are needed, daemons; and a clock for calls that come later."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

_log = logging.getLogger(__name__)

Job = Callable[[], None]

_CROWDED: Final = 0.001  # seconds that a job must have waited for a thread


class Pool:
    """Runs jobs on at most ``size`` threads, the one that is due first before the others.

    Thread safety: every method may be called from any thread, from a job too.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._lock = threading.Lock()  # guards everything below
        self._changed = threading.Condition(self._lock)  # idle threads wait here
        self._quiet = threading.Condition(self._lock)
        self._jobs: list[tuple[float, int, Job]] = []  # heap of (due, order, job)
        self._order = itertools.count()
        self._threads = 0
        self._idle = 0
        self._closed = False

    def run(self, job: Job, after: float = 0.0) -> None:
        """Run ``job`` in ``after`` seconds, or as soon as a thread is free then; not at all once the pool is closed."""
        with self._lock:
            if self._closed:
                return
            heapq.heappush(self._jobs, (time.monotonic() + after, next(self._order), job))
            self._rouse()

    @property
    def crowded(self) -> bool:
        """Whether jobs wait for a thread."""
        with self._lock:
            return bool(self._jobs) and self._jobs[0][0] < time.monotonic() - _CROWDED

    def close(self) -> None:
        """Forget what waits, and let the threads end with what they do."""
        with self._lock:
            self._closed = True
            self._jobs.clear()
            self._changed.notify_all()

    def wait_quiet(self, deadline: float) -> bool:
        """Wait until no thread runs a job, or until ``deadline`` (monotonic seconds); return whether none does."""
        with self._quiet:
            return self._quiet.wait_for(lambda: self._threads == self._idle, deadline - time.monotonic())

    def _rouse(self) -> None:
        """See to it that somebody looks at the first job. Caller holds the lock."""
        if self._idle:
            self._changed.notify()  # it sees to it that the next job is looked at
        elif self._threads < self._size:
            self._threads += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except Exception:
                _log.exception("a call of an SQS driver failed by an error of ours")

    def _next(self) -> Job | None:
        with self._lock:
            self._idle += 1
            self._quiet.notify_all()
            while not self._closed:
                wait = self._jobs[0][0] - time.monotonic() if self._jobs else None
                if wait is not None and wait <= 0:
                    job = heapq.heappop(self._jobs)[2]
                    self._idle -= 1
                    if self._jobs:
                        self._rouse()
                    return job
                self._changed.wait(wait)
            self._idle -= 1
            self._threads -= 1
            self._quiet.notify_all()
            return None
