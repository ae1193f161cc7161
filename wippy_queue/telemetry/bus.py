"""The event bus: events go to subscribers on a thread of their own, so that nobody who works waits for a callback."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from wippy_queue.events import Event

_log = logging.getLogger(__name__)

Callback = Callable[[Event], None]


class EventBus:
    """Delivers every event to every subscriber, in the order in which they were emitted.

    Thread safety: every method may be called from any thread. The thread exists only while somebody subscribes.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._callbacks: tuple[Callback, ...] = ()
        self._events: queue.SimpleQueue[Event | None] | None = None

    def emit(self, event: Event) -> None:
        events = self._events
        if events is not None:
            events.put(event)

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """Call ``callback`` with every event from now on; the function that comes back ends that."""
        with self._lock:
            self._callbacks += (callback,)
            if self._events is None:
                self._events = queue.SimpleQueue()
                threading.Thread(
                    target=self._run, args=(self._events,), name=f"{self._name}-events", daemon=True
                ).start()

        def unsubscribe() -> None:
            with self._lock:
                self._callbacks = tuple(known for known in self._callbacks if known is not callback)
                if not self._callbacks and self._events is not None:
                    self._events.put(None)
                    self._events = None

        return unsubscribe

    def _run(self, events: queue.SimpleQueue[Event | None]) -> None:
        while (event := events.get()) is not None:
            for callback in self._callbacks:
                try:
                    callback(event)
                except Exception:
                    _log.exception("a subscriber failed", extra={"fields": {"event": type(event).__name__}})
