"""The memory driver itself: its queues by name, and the timer that brings them up to date."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from typing import Final

from wippy_queue.clock import Clock
from wippy_queue.driver import not_running
from wippy_queue.drivers.memory.queue import MemoryQueue
from wippy_queue.drivers.memory.subscription import Subscription
from wippy_queue.errors import NotFound, Problem
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import Queue, QueueInfo

_log = logging.getLogger(__name__)

_TIMER_RETRY: Final = 1.0  # seconds until the timer tries again after an error


class MemoryDriver:
    """Messages in this process's memory; they outlive a stop and a start of the same driver, not the process.

    Thread safety: every method may be called from any thread. Lock order: a queue's lock, then the timer's.
    """

    def __init__(self, driver_id: EntryId, clock: Clock | None = None) -> None:
        self.id = driver_id
        self.clock = clock or Clock()
        self._queues: dict[str, MemoryQueue] = {}
        self._declare_lock = threading.Lock()
        self._timer = threading.Condition()
        self._timer_thread: threading.Thread | None = None
        self._next_wake = math.inf
        self._running = False

    def start(self) -> None:
        self._running = True
        self.advance()  # what waits since before a stop needs the timer again

    def stop(self, timeout: float) -> None:
        self._running = False
        with self._timer:
            self._timer_thread = None
            self._timer.notify_all()
        for queue in list(self._queues.values()):
            queue.close()

    def declare(self, queue: Queue) -> None:
        with self._declare_lock:
            known = self._queues.get(queue.id)
            if known is None:
                self._queues[queue.id] = MemoryQueue(self, queue)
            else:
                known.redeclare(queue)

    def verify(self, queues: Sequence[Queue]) -> list[Problem]:
        return []

    def publish(self, queue: Queue, messages: Sequence[Message], timeout: float) -> None:
        if not self._running:
            raise not_running(self.id)
        self._state(queue).publish(messages, timeout)

    def subscribe(self, queue: Queue, window: int, options: object = None) -> Subscription:
        return Subscription(self._state(queue), window)

    def info(self, queue: Queue) -> QueueInfo:
        return self._state(queue).info()

    def peek(self, queue: Queue, limit: int) -> list[Message]:
        return self._state(queue).peek(limit)

    def purge(self, queue: Queue) -> int:
        return self._state(queue).purge()

    def wait_idle(self, queue: Queue, timeout: float) -> bool:
        return self._state(queue).wait_idle(timeout)

    @property
    def running(self) -> bool:
        return self._running

    def _state(self, queue: Queue) -> MemoryQueue:
        try:
            return self._queues[queue.id]
        except KeyError:
            if not self._running:
                raise not_running(self.id) from None
            raise NotFound(f"queue {queue.id} was never declared on driver {self.id}") from None

    # The timer thread does what time alone brings about: delayed messages become ready, old ones expire.

    def wake_at(self, due: float) -> None:
        """Have the timer look at the queues at ``due`` (monotonic seconds). Caller may hold a queue's lock."""
        with self._timer:
            if due < self._next_wake:
                self._next_wake = due
                self._timer.notify_all()
            if self._timer_thread is None and self._running:
                self._timer_thread = threading.Thread(target=self._run_timer, name=f"{self.id}-timer", daemon=True)
                self._timer_thread.start()

    def advance(self) -> None:
        """Bring every queue up to date with the clock; a virtual clock calls it after it was moved."""
        due = min((queue.advance() for queue in list(self._queues.values())), default=math.inf)
        if due < math.inf:
            self.wake_at(due)

    def _run_timer(self) -> None:
        me = threading.current_thread()
        while True:
            with self._timer:
                if self._timer_thread is not me:
                    return
                wait = self._next_wake - self.clock.monotonic()
                if wait > 0:
                    self._timer.wait(None if wait == math.inf else wait)
                    continue
                self._next_wake = math.inf
            try:
                self.advance()
            except Exception:
                _log.exception("the timer of a memory driver failed", extra={"fields": {"driver": self.id}})
                self.wake_at(self.clock.monotonic() + _TIMER_RETRY)
