"""Group commit: many threads' calls in one transaction."""

from __future__ import annotations

import copy
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from wippy_queue.drivers.sqlite.database import explain, is_busy
from wippy_queue.errors import Internal, Unavailable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
Then = Callable[[Any, Exception | None], None]

_log = logging.getLogger(__name__)


class _Call:
    """A piece of work, and what came of it. ``then`` gets that after the commit; without it somebody waits."""

    __slots__ = ("_finished", "_then", "_told", "deadline", "error", "result", "sync", "work")

    def __init__(self, work: Work[Any], deadline: float, sync: bool, then: Then | None) -> None:
        self.work = work
        self.deadline = deadline  # monotonic: how long to wait for other processes' locks
        self.sync = sync
        self.result: Any = None
        self.error: Exception | None = None
        self._then = then
        self._told = False
        self._finished = threading.Lock()
        self._finished.acquire()

    def finish(self) -> None:
        """Tell whoever wants to know, once. No lock is held."""
        if self._told:
            return
        self._told = True
        self._finished.release()
        if self._then is not None:
            try:
                self._then(self.result, self.error)
            except Exception:
                _log.exception("a callback after a commit failed")

    def wait(self) -> None:
        self._finished.acquire()

    @property
    def waited_for(self) -> bool:
        """Whether somebody waits, so that to finish it calls nothing back."""
        return self._then is None


class Writer:
    """The connection that writes. One thread takes all calls that wait, and commits them together.

    A caller that is alone does its own commit instead: handing it to the thread costs 13 to 32 % more.

    Thread safety: every method may be called from any thread. Lock order: ``_connection_lock``, then ``_mutex``; only a
    try-lock goes the other way.
    """

    def __init__(self, connection: sqlite3.Connection, file: str, *, full_sync: bool, name: str) -> None:
        self._connection = connection  # guarded by _connection_lock
        self._connection_lock = threading.Lock()
        self._file = file
        self._full_sync = full_sync
        self._synchronous = full_sync  # what the connection is set to now
        self._mutex = threading.Lock()
        self._wake = threading.Condition(self._mutex)
        self._calls: list[_Call] = []  # guarded by _mutex
        self._stopping = False  # guarded by _mutex
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Work[T], *, timeout: float, sync: bool = True) -> T:
        """Do ``work`` in a transaction and return its result after the commit.

        Args:
            work: called with the connection; an exception undoes what it did, and nothing else.
            timeout: seconds to wait for other processes' transactions.
            sync: False when a power cut may undo it: no sync of the disk then, unless another call wants one.

        Raises:
            Timeout: another process kept the file locked. Unavailable: stopped, or the disk refuses.
        """
        call = _Call(work, time.monotonic() + timeout, sync, None)
        with self._mutex:
            if self._stopping:
                raise self._stopped()
            alone = not self._calls and self._connection_lock.acquire(blocking=False)
            if not alone:
                self._calls.append(call)
                self._wake.notify()
        if alone:
            batch = [call]
            try:
                self._commit(batch, mine=call)
            finally:
                self._connection_lock.release()
                for other in batch[1:]:  # they came while another process kept us waiting
                    other.finish()
        else:
            call.wait()
        if call.error is not None:
            raise call.error
        result: T = call.result
        return result

    def post(self, work: Work[T], then: Then, *, timeout: float) -> None:
        """Have the thread do ``work``; ``then(result, error)`` is called after the commit, never from in here."""
        with self._mutex:
            if not self._stopping:
                self._calls.append(_Call(work, time.monotonic() + timeout, True, then))
                self._wake.notify()
                return
        raise self._stopped()

    def data_version(self) -> int:
        """Return a number that changes when another connection has committed."""
        with self._connection_lock:
            version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
            return version

    def close(self) -> None:
        """Do what was handed in, then close the connection; idempotent."""
        with self._mutex:
            self._stopping = True
            self._wake.notify()
        self._thread.join()
        with self._connection_lock:
            self._connection.close()

    def _run(self) -> None:
        while True:
            with self._mutex:
                while not self._calls:
                    if self._stopping:
                        return
                    self._wake.wait()
            with self._connection_lock:
                with self._mutex:
                    batch, self._calls = self._calls, []
                try:
                    self._commit(batch)
                except Exception as error:
                    _log.exception("the writer of a sqlite driver failed", extra={"fields": {"file": self._file}})
                    _fail(batch, Internal(f"{self._file}: {error}"))
            for call in batch:
                call.finish()

    def _commit(self, batch: list[_Call], mine: _Call | None = None) -> None:
        """Do the calls and commit, or leave in each what went wrong. Caller holds the connection lock.

        The batch grows by what comes while another process's transaction is waited for; the caller finishes all of it.
        """
        try:
            todo = self._begin(batch, mine)
            if not todo:
                return
            for call in todo:
                if not self._do(call, alone=len(todo) == 1):
                    break
            if not self._connection.in_transaction:  # everything is undone, by a lone call or by SQLite itself
                cause = next((call.error for call in todo if call.error is not None), None)
                _fail(todo, cause or Internal(f"{self._file}: the transaction was lost"))
                return
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo()
            _fail(batch, explain(error, self._file))
        except BaseException:
            self._undo()
            _fail(batch, Internal(f"{self._file}: interrupted"))
            raise

    def _begin(self, batch: list[_Call], mine: _Call | None) -> list[_Call]:
        """Begin a transaction for the calls whose deadline lets them wait for it; the others have failed.

        Who has come meanwhile may have less time than those that are here, so it joins them. A caller whose
        own call, ``mine``, has failed leaves the others to the thread.
        """
        todo = batch
        while todo:
            sync = self._full_sync and any(call.sync for call in todo)
            if sync != self._synchronous:
                self._connection.execute(f"PRAGMA synchronous = {'FULL' if sync else 'NORMAL'}")
                self._synchronous = sync
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                busy = explain(error, self._file)
            with self._mutex:
                batch += self._calls
                self._calls = []
            now = time.monotonic()
            late = [call for call in batch if call.error is None and (call.deadline <= now or self._stopping)]
            _fail(late, busy)
            for call in late:
                if call.waited_for:
                    call.finish()
            todo = [call for call in batch if call.error is None]
            if mine is not None and mine.error is not None and todo:
                batch[:] = [call for call in batch if call.error is not None]
                with self._mutex:
                    self._calls[:0] = todo
                    self._wake.notify()
                return []
        return todo

    def _do(self, call: _Call, *, alone: bool) -> bool:
        """Do one call, which may have the transaction for itself; return False when the whole transaction is lost."""
        execute = self._connection.execute
        if not alone:
            execute("SAVEPOINT call")
        try:
            call.result = call.work(self._connection)
        except (sqlite3.Error, OSError) as error:
            call.error = explain(error, self._file)
        except Exception as error:
            call.error = error
        if call.error is not None:
            if alone:
                self._undo()
            if not self._connection.in_transaction:
                return False
            execute("ROLLBACK TO call")
        if not alone:
            execute("RELEASE call")
        return True

    def _undo(self) -> None:
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                _log.warning("rollback failed", extra={"fields": {"file": self._file, "error": str(error)}})

    def _stopped(self) -> Unavailable:
        return Unavailable(f"{self._file}: the driver is stopped; start the engine before you use its queues")


def _fail(calls: list[_Call], error: Exception) -> None:
    for call in calls:
        if call.error is None:
            call.error = copy.copy(error)  # each is raised in a thread of its own
