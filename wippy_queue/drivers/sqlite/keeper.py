"""The keeper: one thread that extends leases, takes over from the dead, and sees what other processes commit."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from wippy_queue.drivers.sqlite import statements
from wippy_queue.drivers.sqlite.board import board_path, is_dead, remove_board, revoke_and_read
from wippy_queue.drivers.sqlite.database import Reader
from wippy_queue.drivers.sqlite.subscription import SqliteSubscription
from wippy_queue.drivers.sqlite.waiting import LocalQueue, Watch
from wippy_queue.drivers.sqlite.writer import Writer
from wippy_queue.errors import WippyQueueError

_log = logging.getLogger(__name__)

_POLL: Final = 0.05  # seconds between two looks at PRAGMA data_version, while somebody waits
_ROUND: Final = 1.0  # seconds between two rounds, at most
_WAIT: Final = 1.0  # seconds for other processes' transactions


class Keeper:
    """The thread, and what it knows of other owners."""

    def __init__(
        self,
        writer: Writer,
        reader: Reader,
        watch: Watch,
        boards: Path,
        *,
        lease: float,
        queues: Callable[[], Iterable[LocalQueue]],
        subscriptions: Callable[[], Iterable[SqliteSubscription]],
        name: str,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._watch = watch
        self._boards = boards
        self._round = min(_ROUND, lease / 4)
        self._queues = queues
        self._subscriptions = subscriptions
        self._seen: dict[int, tuple[int, float]] = {}  # token: its beat, and since when that stands (monotonic)
        self._version = writer.data_version()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Take over from owners that died before us, then keep on doing so."""
        self._writer.run(self._sweep, timeout=_WAIT, sync=False)
        self._take_over()
        self._thread.start()

    def stop(self, deadline: float) -> None:
        self._stop.set()
        self._watch.began.set()
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        next_round = time.monotonic() + self._round
        while not self._stop.is_set():
            try:
                seen = self._watch.began.count
                if self._watch.waiting:
                    self._stop.wait(_POLL)
                    self._look()
                elif not self._stop.is_set():
                    self._watch.began.wait(seen, max(0.0, next_round - time.monotonic()))
                if time.monotonic() >= next_round:
                    next_round = time.monotonic() + self._round
                    for subscription in self._subscriptions():
                        subscription.keep()
                    self._take_over()
            except (WippyQueueError, sqlite3.Error) as error:
                _log.warning("the keeper of a sqlite driver will try again", extra={"fields": {"error": str(error)}})
            except Exception:
                _log.exception("the keeper of a sqlite driver failed, and goes on")

    def _look(self) -> None:
        """Wake who waits when another process has committed."""
        version = self._writer.data_version()
        if version != self._version:
            self._version = version
            for queue in self._queues():
                queue.changed()

    def _take_over(self) -> None:
        owners = self._reader.run(statements.owners)
        mine = {subscription.token for subscription in self._subscriptions()}
        now = time.monotonic()
        seen: dict[int, tuple[int, float]] = {}
        for token, queue, lease, beat in owners:
            if token in mine:
                continue
            known = self._seen.get(token)
            since = known[1] if known is not None and known[0] == beat else now
            seen[token] = (beat, since)
            if is_dead(board_path(self._boards, token)):
                self._take(token, queue, beat, "its process has ended")
            elif now - since >= lease / 1000:
                self._take(token, queue, beat, "it did not extend its lease")
        self._seen = seen

    def _take(self, token: int, queue: int, beat: int, why: str) -> None:
        path = board_path(self._boards, token)

        def work(db: sqlite3.Connection) -> int | None:
            if (token, queue, beat) not in ((row[0], row[1], row[3]) for row in statements.owners(db)):
                return None  # it lives, or another process was faster
            return statements.take_back(db, queue, token, revoke_and_read(path))

        freed = self._writer.run(work, timeout=_WAIT)
        if freed is None:
            return
        remove_board(path)
        if freed:
            _log.warning("took messages over from another owner", extra={"fields": {"messages": freed, "why": why}})
        for local in self._queues():
            if local.number == queue:
                local.changed()

    def _sweep(self, db: sqlite3.Connection) -> None:
        """Remove boards that were left by a kill between the end of an owner and the end of its board."""
        known = {board_path(self._boards, row[0]).name for row in statements.owners(db)}
        for path in self._boards.glob("*"):
            if path.name not in known and is_dead(path):
                remove_board(path)
