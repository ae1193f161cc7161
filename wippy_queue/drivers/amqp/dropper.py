"""The dropper: hands expired and pushed-out messages to the flow, and lets the broker forget them only then."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

import attrs

from wippy_queue.message import Message
from wippy_queue.queues import DropReason, Queue

_log = logging.getLogger(__name__)

_RETRY: Final = 1.0  # seconds until an on_drop that raised is tried again


@attrs.frozen(eq=False)
class Drop:
    """A message to hand over; the broker keeps it until ``forget`` is called."""

    queue: Queue
    message: Message
    reason: DropReason
    still_ours: Callable[[], bool]
    forget: Callable[[], None]


class Dropper:
    """A thread of its own, for on_drop may block.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, name: str) -> None:
        self._inbox: queue.SimpleQueue[Drop | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, deadline: float) -> None:
        """Wait for an on_drop that runs, until ``deadline`` (monotonic seconds); then its messages come again later."""
        self._inbox.put(None)
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def put(self, drop: Drop) -> None:
        self._inbox.put(drop)

    def _run(self) -> None:
        again: list[Drop] = []
        try_at = 0.0
        while True:
            drops: list[Drop] = []
            try:
                drop = self._inbox.get(timeout=max(0.0, try_at - time.monotonic()) if again else None)
                while drop is not None:
                    drops.append(drop)
                    drop = self._inbox.get_nowait()
                return  # the mark of the stop
            except queue.Empty:
                pass
            if again and time.monotonic() >= try_at:
                drops, again = again + drops, []
            failed = self._hand_over(drops)
            if failed:
                again += failed
                try_at = time.monotonic() + _RETRY

    def _hand_over(self, drops: list[Drop]) -> list[Drop]:
        """Give the messages to on_drop, and return those that it could not take."""
        failed: list[Drop] = []
        groups: dict[tuple[str, DropReason], list[Drop]] = {}
        for drop in drops:
            if drop.still_ours():
                groups.setdefault((drop.queue.name, drop.reason), []).append(drop)
        for (_, reason), group in groups.items():
            on_drop = group[0].queue.on_drop
            try:
                if on_drop is not None:
                    on_drop([drop.message for drop in group], reason)
            except Exception as error:
                fields = {"queue": group[0].queue.id, "messages": len(group), "error": str(error)}
                _log.warning("dropped messages could not be handed over; they stay", extra={"fields": fields})
                failed += group
                continue
            for drop in group:
                drop.forget()
        return failed
