"""A consumer's share of a queue: claims in batches, settles in batches, one lease for all that it holds."""

from __future__ import annotations

import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.drivers.signal import Signal
from wippy_queue.drivers.sqlite import statements
from wippy_queue.drivers.sqlite.board import Board
from wippy_queue.drivers.sqlite.database import now_ms
from wippy_queue.drivers.sqlite.settling import Flush, Receipt, tell
from wippy_queue.drivers.sqlite.statements import LeaseLost
from wippy_queue.drivers.sqlite.waiting import LocalQueue, Watch
from wippy_queue.drivers.sqlite.writer import Writer
from wippy_queue.errors import Conflict, Timeout, Unavailable

_log = logging.getLogger(__name__)

_LOCK_WAIT: Final = 5.0  # seconds for other processes' transactions
_QUICK_WAIT: Final = 0.25  # the same for a receive, which comes again
_PAUSE: Final = 1.0  # seconds between two tries of a receive that failed


class SqliteSubscription:
    """One consumer; it is the owner of the leases that it holds, under a token of its own.

    Whoever loses its leases starts over with a new token, so that a token never holds a row twice unnoticed.

    Thread safety: as the contract says. Lock order: the writer's connection, then ``_lock``; callbacks hold none.
    """

    def __init__(
        self,
        queue: LocalQueue,
        writer: Writer,
        watch: Watch,
        boards: Path,
        *,
        window: int,
        lease: float,
        on_close: Callable[[SqliteSubscription], None],
    ) -> None:
        self._queue = queue
        self._writer = writer
        self._watch = watch
        self._boards = boards
        self._window = window
        self._lease = lease
        self._on_close = on_close
        self._signal = Signal()
        self._lock = threading.Lock()  # guards everything below
        self._board: Board | None = None  # None: no owner now; receive makes one
        self._token = 0
        self._epoch = 0
        self._beat_at = 0.0  # monotonic, of the last extension that was committed
        self._free: list[int] = []  # slots of the board
        self._pending: list[Settlement] = []  # not yet handed to the writer
        self._sending = Flush()
        self._flushing = False
        self._cancelled = False
        self._closed = False
        self._leaving = Flush()  # what was left to settle at the close
        self._over = False  # closed, and what could not be settled was given up
        self._told = threading.Event()  # that, and everybody knows
        self._troubled_since: float | None = None
        self._enter()
        queue.add_consumer(self._signal)

    @property
    def token(self) -> int | None:
        """The owner that it is now; None after the leases were lost."""
        with self._lock:
            return self._token if self._board is not None else None

    # receiving

    def receive(self, limit: int, timeout: float) -> list[Delivery]:
        deadline = time.monotonic() + timeout
        while not self._cancelled:
            seen = self._signal.count
            wait = deadline - time.monotonic()
            try:
                deliveries, due = self._claim(limit, wait)
            except LeaseLost:
                self.lose(Conflict("the lease ran out and another process has taken the messages over"))
                continue
            except (Unavailable, Timeout) as error:
                self._endure(error)
                wait = min(wait, _PAUSE)
            else:
                self._troubled_since = None
                if deliveries:
                    return deliveries
                if due is not None:
                    wait = min(wait, (due - now_ms()) / 1000)
            if time.monotonic() >= deadline:
                break
            with self._watch.open():
                self._signal.wait(seen, max(0.0, wait))
        return []

    def _claim(self, limit: int, wait: float) -> tuple[list[Delivery], int | None]:
        """Return deliveries, or none and when to look again."""
        if self._board is None:
            self._enter()
        with self._lock:
            board, token, epoch = self._board, self._token, self._epoch
            room = min(limit, len(self._free))
        if room <= 0 or board is None:
            return [], None
        number = self._queue.number
        # No sync: a power cut that takes the claim back gives the message to somebody else, as it must.
        taken, due = self._writer.run(
            lambda db: statements.claim(db, number, token, room, now_ms()), timeout=max(wait, _QUICK_WAIT), sync=False
        )
        with self._lock:
            if board is not self._board:
                return [], None  # lost or closed meanwhile: the rows went back with the rest
            self._beat_at = time.monotonic() if taken else self._beat_at
            return [Delivery(message, Receipt(board, self._free.pop(), row), epoch) for row, message in taken], due

    def _endure(self, error: Exception) -> None:
        """Let a passing trouble pass; raise when it does not."""
        now = time.monotonic()
        if self._closed:
            raise error
        if self._troubled_since is None:
            self._troubled_since = now
            _log.warning("receiving fails", extra={"fields": {"queue": self._queue.queue.id, "error": str(error)}})
        elif now - self._troubled_since >= self._lease:
            raise Unavailable(f"no messages for {self._lease:g}s: {error}") from error

    def begin(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        return [d for d in deliveries if d.receipt.board.begin(d.receipt.slot, d.receipt.row)]

    def retract(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            delivery.receipt.board.clear(delivery.receipt.slot)

    # settling

    def settle(self, settlements: Sequence[Settlement]) -> None:
        late: list[Settlement] = []
        with self._lock:
            for settlement in settlements:
                receipt: Receipt = settlement.delivery.receipt
                if self._closed or receipt.board is not self._board:
                    late.append(settlement)
                    continue
                if settlement.action == "release":
                    receipt.board.clear(receipt.slot)  # not an attempt, also when we are killed before the commit
                self._pending.append(settlement)
        self.flush()
        if late:
            tell(late, self._too_late())

    def flush(self) -> None:
        """Hand what is pending to the writer, unless a flush is under way that will take it along."""
        with self._lock:
            if not self._pending or self._flushing or self._closed:
                return
            self._flushing = True
        try:
            self._post()
        except Unavailable:  # stopped: close told the pending ones
            self._flushing = False

    def _post(self) -> None:
        flush = self._sending = Flush()

        def work(db: sqlite3.Connection) -> None:
            with self._lock:
                flush.batch, self._pending = self._pending, []
                token = self._token
            flush.apply(db, self._queue.number, token)

        self._writer.post(work, lambda _, error: self._flushed(flush, error), timeout=min(_LOCK_WAIT, self._lease))

    def _flushed(self, flush: Flush, error: Exception | None) -> None:
        if error is None:
            with self._lock:
                batch = flush.take()
                self._flushing = False
                self._beat_at = time.monotonic()
                starved = not self._free
                for settlement in batch:
                    receipt = settlement.delivery.receipt
                    if receipt.board is self._board:
                        self._free.append(receipt.slot)
            if any(settlement.action != "ack" for settlement in batch):
                self._queue.arrived()
            elif starved:
                self._signal.set()
            self._queue.left.set()
            tell(batch, None)
            self.flush()
            return
        with self._lock:
            batch = flush.take()
            self._flushing = False
            mine = not self._closed and bool(batch) and batch[0].delivery.receipt.board is self._board
            passing = isinstance(error, (Unavailable, Timeout)) and mine
            if passing:
                self._pending = batch + self._pending  # the keeper sends them again
        if passing:
            return
        if mine:
            self.lose(error)
        tell(batch, self._too_late(error))

    # the lease

    def _enter(self) -> None:
        """Become an owner of leases, with a new token."""
        token = secrets.randbits(63)
        board: Board | None = None

        def work(db: sqlite3.Connection) -> None:
            nonlocal board
            board = Board(self._boards, token, self._window)
            statements.add_owner(db, token, self._queue.number, self._lease)

        try:
            self._writer.run(work, timeout=_LOCK_WAIT, sync=False)
        except BaseException:
            if board is not None:
                board.remove()
            raise
        with self._lock:
            if self._closed and board is not None:  # closed meanwhile: some keeper ends the owner that nobody needs
                board.close()
                return
            self._board, self._token = board, token
            self._epoch += 1
            self._beat_at = time.monotonic()
            self._free = list(range(self._window))

    def keep(self) -> None:
        """Extend the lease when a third of it has passed, and send again what could not be sent. The keeper only."""
        with self._lock:
            board, token = self._board, self._token
            since = time.monotonic() - self._beat_at
        if board is None or self._closed:
            return
        if board.revoked:
            self.lose(Conflict("the lease ran out and another process has taken the messages over"))
            return
        if since >= self._lease / 3:
            asked = time.monotonic()
            try:
                self._writer.run(lambda db: statements.beat(db, token), timeout=_QUICK_WAIT, sync=False)
                with self._lock:
                    self._beat_at = max(self._beat_at, asked)
            except LeaseLost:
                self.lose(Conflict("the lease ran out and another process has taken the messages over"))
            except (Unavailable, Timeout) as error:
                if time.monotonic() - self._beat_at >= self._lease:
                    self.lose(error)
        self.flush()

    def lose(self, error: Exception) -> None:
        """Give up all that we hold: others may have it. Handlers that run can no longer settle."""
        with self._lock:
            board, self._board = self._board, None
            pending, self._pending = self._pending, []
            self._free = []
        if board is None:
            return
        _log.warning("a lease was lost", extra={"fields": {"queue": self._queue.queue.id, "error": str(error)}})
        board.close()  # without its lock the owner counts as dead: some keeper takes the rest back
        tell(pending, self._too_late(error))
        self._signal.set()

    def _too_late(self, cause: Exception | None = None) -> Conflict:
        reason = "" if cause is None else f": {cause}" if str(cause) else ": the lease was lost"
        return Conflict(f"queue {self._queue.queue.id}: too late to settle, the message will come again{reason}")

    # the end

    def cancel(self) -> list[Delivery]:
        self._cancelled = True
        self._signal.set()
        return []

    def close(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self.begin_close(deadline)
        self.wait_closed(deadline)

    def begin_close(self, deadline: float) -> None:
        """Have what is left settled, and the rest given back, in one transaction with others that close."""
        self.cancel()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            board, token = self._board, self._token
        self._queue.remove_consumer(self._signal)
        if board is None:
            self._left(None)
            return

        def work(db: sqlite3.Connection) -> None:
            with self._lock:
                self._leaving.batch, self._pending = self._pending, []
            if self._leaving.batch:
                self._leaving.apply(db, self._queue.number, token)
            statements.take_back(db, self._queue.number, token, begun=())

        try:
            self._writer.post(work, lambda _, error: self._left(error), timeout=deadline - time.monotonic())
        except Unavailable as error:
            self._left(error)

    def wait_closed(self, deadline: float) -> None:
        """Wait for that until ``deadline`` (monotonic seconds), then leave the rest to whoever takes over."""
        if not self._told.wait(max(0.0, deadline - time.monotonic())):
            self._left(Timeout("another process kept the database locked"))

    def _left(self, error: Exception | None) -> None:
        """The last transaction is through, or has failed, or is waited for no longer."""
        with self._lock:
            if self._over:
                return
            self._over = True
            board, self._board = self._board, None
            settled = self._leaving.take()
            late = self._sending.take() + self._pending
            self._pending = []
        if board is not None:
            if error is None:
                board.remove()
            else:
                board.close()
        tell(settled, None if error is None else self._too_late(error))
        tell(late, self._too_late(error))
        self._queue.changed()
        self._on_close(self)
        self._told.set()
