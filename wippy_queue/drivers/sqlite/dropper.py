"""The dropper: hands expired and pushed-out messages to the flow, and forgets them only then."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from wippy_queue.drivers.signal import Signal
from wippy_queue.drivers.sqlite import statements
from wippy_queue.drivers.sqlite.database import Reader, now_ms
from wippy_queue.drivers.sqlite.waiting import LocalQueue
from wippy_queue.drivers.sqlite.writer import Writer
from wippy_queue.errors import WippyQueueError
from wippy_queue.message import Message
from wippy_queue.queues import DropReason

_log = logging.getLogger(__name__)

HOLD: Final = 60_000  # ms for which nobody else hands the same message over
_RETRY: Final = 1000  # ms until an on_drop that raised is tried again
_ROUND: Final = 1.0  # seconds between two looks, at most
_WAIT: Final = 1.0  # seconds for other processes' transactions


class Dropper:
    """A thread of its own, for on_drop may block, and leases must be extended meanwhile.

    Thread safety: every method may be called from any thread.
    """

    def __init__(
        self, writer: Writer, reader: Reader, *, queues: Callable[[], Iterable[LocalQueue]], name: str
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._queues = queues
        self._wake = Signal()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, deadline: float) -> None:
        """Wait for an on_drop that runs, until ``deadline`` (monotonic seconds); then its messages come again later."""
        self._stopping = True
        self._wake.set()
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def wake(self) -> None:
        """There are messages that will expire."""
        self._wake.set()

    def push_out(self, queue: LocalQueue, ids: Sequence[int]) -> None:
        """Hand over what a publish has pushed out, on the publisher's thread; never raises: the publish went well."""
        try:
            rows = self._reader.run(lambda db: statements.messages_of(db, ids))
            self._hand_over(queue, rows, "maxlen")
        except WippyQueueError as error:  # they stay held, and are handed over by whoever finds them after that
            _log.warning(
                "messages that were pushed out wait to be handed over",
                extra={"fields": {"queue": queue.queue.id, "messages": len(ids), "error": str(error)}},
            )

    def _hand_over(self, queue: LocalQueue, rows: Sequence[tuple[int, Message]], reason: DropReason) -> None:
        """Give messages that are held to on_drop, and forget them; no lock is held meanwhile."""
        ids = [number for number, _ in rows]
        on_drop = queue.queue.on_drop
        try:
            if on_drop is not None:
                on_drop([message for _, message in rows], reason)
        except Exception as error:
            _log.warning(
                "dropped messages could not be handed over; they stay",
                extra={"fields": {"queue": queue.queue.id, "messages": len(ids), "error": str(error)}},
            )
            self._writer.run(lambda db: statements.hold_dropped(db, ids, now_ms() + _RETRY), timeout=_WAIT)
            self._wake.set()
            return
        self._writer.run(lambda db: statements.forget_dropped(db, ids), timeout=_WAIT)
        queue.left.set()

    def _let_go(self, rows: Sequence[tuple[int, Message]]) -> None:
        ids = [number for number, _ in rows]
        self._writer.run(lambda db: statements.hold_dropped(db, ids, now_ms()), timeout=_WAIT)

    def _run(self) -> None:
        while not self._stopping:
            seen = self._wake.count
            wait = _ROUND
            for queue in list(self._queues()):
                try:
                    wait = min(wait, self._look(queue))
                except WippyQueueError as error:
                    fields = {"queue": queue.queue.id, "error": str(error)}
                    _log.warning("dropping will be tried again", extra={"fields": fields})
                except Exception:
                    _log.exception("dropping failed, and will be tried again")
            if wait > 0:
                self._wake.wait(seen, wait)

    def _look(self, queue: LocalQueue) -> float:
        """Drop what is due; return the seconds until more is."""
        due = self._reader.run(lambda db: statements.next_drop(db, queue.number))
        if due is None:
            return _ROUND
        if due > now_ms():
            return (due - now_ms()) / 1000
        groups = self._writer.run(
            lambda db: statements.take_dropped(db, queue.number, now_ms(), now_ms() + HOLD), timeout=_WAIT
        )
        queue.left.set()
        for reason, rows in groups.items():
            if self._stopping:  # whoever looks next may have them at once
                self._let_go(rows)
            else:
                self._hand_over(queue, rows, reason)
        return 0.0 if groups else _ROUND
