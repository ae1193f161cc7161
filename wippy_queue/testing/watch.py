"""What `MemoryEngine.drain` looks at: every handler that runs, what it made of its message, every settle."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from wippy_queue.clock import Clock
from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.drivers.memory.driver import MemoryDriver
from wippy_queue.drivers.memory.queue import MemoryQueue
from wippy_queue.drivers.memory.subscription import Subscription
from wippy_queue.errors import WippyQueueError
from wippy_queue.handler import Handler, Outcome, Session, WorkerContext
from wippy_queue.ids import EntryId
from wippy_queue.queues import Queue


class Watch:
    """Counts what happens, and keeps the errors of handlers.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._errors: list[WippyQueueError] = []
        self.running = 0  # handlers
        self.count = 0  # moves on before and after each settle, and after each handler

    def tick(self, running: int = 0, error: WippyQueueError | None = None) -> None:
        with self._changed:
            self.count += 1
            self.running += running
            if error is not None:
                self._errors.append(error)
            self._changed.notify_all()

    def wait(self, seen: int, timeout: float) -> bool:
        """Return True as soon as ``count`` is not ``seen``, False after ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.count != seen, timeout)

    def has_errors(self) -> bool:
        return bool(self._errors)

    def take_errors(self) -> list[WippyQueueError]:
        with self._changed:
            errors, self._errors = self._errors, []
            return errors


class WatchedDriver(MemoryDriver):
    """A memory driver whose time passes only when it is advanced, so it needs no timer."""

    def __init__(self, driver_id: EntryId, clock: Clock, watch: Watch) -> None:
        super().__init__(driver_id, clock)
        self._watch = watch

    def subscribe(self, queue: Queue, window: int, options: object = None) -> Subscription:
        return _WatchedSubscription(self._state(queue), window, self._watch)

    def wake_at(self, due: float) -> None:
        """Nothing becomes due until `advance` is called."""

    def next_due(self, queue: Queue) -> float:
        """Return when (monotonic seconds of the clock) something becomes due in the queue; infinite for never."""
        return self._state(queue).advance()


class _WatchedSubscription(Subscription):
    def __init__(self, queue: MemoryQueue, window: int, watch: Watch) -> None:
        super().__init__(queue, window)
        self._watch = watch

    def settle(self, settlements: Sequence[Settlement]) -> None:
        # Before: whoever sees the message gone after that sees the count moved too. After: to wake who waits.
        self._watch.tick()
        super().settle(settlements)
        self._watch.tick()

    def close(self, timeout: float) -> None:
        super().close(timeout)
        self._watch.tick()


class WatchedHandler:
    """A handler whose sessions are watched."""

    def __init__(self, make: Callable[[], Handler], watch: Watch) -> None:
        self._handler = make()
        self._watch = watch

    def open(self, context: WorkerContext) -> Session:
        return _WatchedSession(self._handler.open(context), context, self._watch)


class _WatchedSession:
    def __init__(self, session: Session, context: WorkerContext, watch: Watch) -> None:
        self._session = session
        self._context = context
        self._watch = watch

    def handle(self, deliveries: Sequence[Delivery], *, alone: bool = False) -> Sequence[Outcome]:
        self._watch.tick(running=1)
        error: WippyQueueError | None = None
        try:
            [outcome] = self._session.handle(deliveries[:1], alone=alone)
            if outcome.error is not None and not outcome.canceled:
                error = self._explained(outcome, outcome.error, deliveries[0])
        finally:
            self._watch.tick(running=-1, error=error)
        return [outcome]

    def _explained(self, outcome: Outcome, error: WippyQueueError, delivery: Delivery) -> WippyQueueError:
        message = delivery.message
        error.add_note(
            f"{self._context.consumer}: message {message.id} of {self._context.queue}, attempt {message.attempts + 1}"
        )
        if outcome.trace and error.__cause__ is None:
            error.add_note(outcome.trace.rstrip())
        return error

    def kill(self) -> None:
        self._session.kill()

    def renew(self) -> None:
        self._session.renew()

    def close(self) -> None:
        self._session.close()
