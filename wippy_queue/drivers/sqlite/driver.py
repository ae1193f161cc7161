"""The sqlite driver itself: what the contract asks for, put together."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from wippy_queue.driver import not_running
from wippy_queue.drivers.signal import JOIN_REST
from wippy_queue.drivers.sqlite import statements
from wippy_queue.drivers.sqlite.database import Reader, now_ms, open_database
from wippy_queue.drivers.sqlite.dropper import HOLD, Dropper
from wippy_queue.drivers.sqlite.keeper import Keeper
from wippy_queue.drivers.sqlite.options import SqliteConfig
from wippy_queue.drivers.sqlite.subscription import SqliteSubscription
from wippy_queue.drivers.sqlite.verify import verify
from wippy_queue.drivers.sqlite.waiting import LocalQueue, Watch
from wippy_queue.drivers.sqlite.writer import Writer
from wippy_queue.errors import Conflict, NotFound, Problem, QueueFull, Unavailable
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import Queue, QueueInfo

_WAIT: Final = 5.0  # seconds for other processes' transactions, where the caller names none


class SqliteDriver:
    """Queues in one file, which several processes of one machine may share.

    Thread safety: every method may be called from any thread; not from a child made by fork.
    """

    def __init__(self, driver_id: EntryId, config: SqliteConfig) -> None:
        self.id = driver_id
        self._config = config
        self._lock = threading.Lock()  # guards start, stop and the declared queues
        self._declared: dict[str, Queue] = {}
        self._open: _Open | None = None
        self._process = os.getpid()

    def start(self) -> None:
        self._check_process()
        with self._lock:
            if self._open is None:
                self._process = os.getpid()
                self._open = _Open(self.id, self._config, list(self._declared.values()))

    def stop(self, timeout: float) -> None:
        self._check_process()
        with self._lock:
            opened, self._open = self._open, None
        if opened is not None:
            opened.close(time.monotonic() + timeout)

    def declare(self, queue: Queue) -> None:
        self._check_process()
        with self._lock:
            self._declared[queue.name] = queue
            opened = self._open
        if opened is not None:
            opened.declare(queue)

    def verify(self, queues: Sequence[Queue]) -> list[Problem]:
        verify(self._config.file)
        return []

    def publish(self, queue: Queue, messages: Sequence[Message], timeout: float) -> None:
        opened = self._opened()
        if messages:
            opened.publish(opened.local(queue), messages, timeout)

    def subscribe(self, queue: Queue, window: int, options: object = None) -> SqliteSubscription:
        opened = self._opened()
        return opened.subscribe(opened.local(queue), window)

    def info(self, queue: Queue) -> QueueInfo:
        return self._opened().reader.run(lambda db: statements.info(db, queue.name, now_ms()))

    def peek(self, queue: Queue, limit: int) -> list[Message]:
        opened = self._opened()
        number = opened.local(queue).number
        return opened.reader.run(lambda db: statements.peek(db, number, limit, now_ms()))

    def purge(self, queue: Queue) -> int:
        opened = self._opened()
        local = opened.local(queue)
        count = opened.writer.run(lambda db: statements.purge(db, local.number), timeout=_WAIT)
        local.left.set()
        return count

    def wait_idle(self, queue: Queue, timeout: float) -> bool:
        opened = self._opened()
        return opened.wait_idle(opened.local(queue), timeout)

    def _opened(self) -> _Open:
        self._check_process()
        opened = self._open
        if opened is None:
            raise not_running(self.id)
        return opened

    def _check_process(self) -> None:
        if self._process != os.getpid() and self._open is not None:
            raise Conflict(
                f"driver {self.id} was started before this process was forked, and a database connection does not"
                " survive that; start the child with multiprocessing's method spawn, and an engine of its own there"
            )


class _Open:
    """A driver between start and stop."""

    def __init__(self, driver_id: EntryId, config: SqliteConfig, declared: Sequence[Queue]) -> None:
        self._id = driver_id
        self._lease = config.lease
        self._boards = Path(f"{config.file}-owners")
        self._queues: dict[str, LocalQueue] = {}  # replaced as a whole; guarded by _lock
        self._subscriptions: frozenset[SqliteSubscription] = frozenset()  # the same
        self._lock = threading.Lock()
        self._closing = False
        self._watch = Watch()
        connection = open_database(config.file, config.durability)
        full = config.durability == "full"
        self.writer = Writer(connection, config.file, full_sync=full, name=f"{driver_id}-writer")
        self.reader = Reader(config.file)
        self._keeper = Keeper(
            self.writer,
            self.reader,
            self._watch,
            self._boards,
            lease=config.lease,
            queues=lambda: list(self._queues.values()),
            subscriptions=lambda: self._subscriptions,
            name=f"{driver_id}-keeper",
        )
        self._dropper = Dropper(
            self.writer, self.reader, queues=lambda: list(self._queues.values()), name=f"{driver_id}-dropper"
        )
        try:
            for queue in declared:
                self.declare(queue)
            self._keeper.start()
        except BaseException:
            self.writer.close()
            self.reader.close()
            raise
        self._dropper.start()

    def close(self, deadline: float) -> None:
        self._closing = True
        for queue in self._queues.values():
            queue.changed()  # publishers that wait for room see that we close
        subscriptions = self._subscriptions
        for subscription in subscriptions:
            subscription.begin_close(deadline)
        for subscription in subscriptions:
            subscription.wait_closed(deadline)
        self._dropper.stop(deadline)
        self._keeper.stop(deadline)
        self.writer.close()
        self.reader.close()

    def declare(self, queue: Queue) -> None:
        number = self.writer.run(lambda db: statements.declare(db, queue.name), timeout=_WAIT)
        with self._lock:
            known = self._queues.get(queue.name)
            if known is None:
                self._queues = {**self._queues, queue.name: LocalQueue(number, queue)}
            else:
                known.redeclare(queue)
                known.left.set()  # the limit may have risen

    def local(self, queue: Queue) -> LocalQueue:
        try:
            return self._queues[queue.name]
        except KeyError:
            raise NotFound(f"queue {queue.id} was never declared on driver {self._id}") from None

    def publish(self, queue: LocalQueue, messages: Sequence[Message], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        options = queue.options
        now = now_ms()
        rows = [statements.to_row(message, message.delay, options.message_ttl, now) for message in messages]
        dropped = self._store(queue, rows, deadline)
        queue.arrived()
        if dropped:
            self._dropper.push_out(queue, dropped)
        if any(expires_at is not None for (*_, expires_at), _ in rows):
            self._dropper.wake()

    def _store(self, queue: LocalQueue, rows: Sequence[statements.Row], deadline: float) -> list[int]:
        """Put the rows in, wait for room if need be, and return the ids of what they pushed out."""

        def work(db: sqlite3.Connection) -> list[int]:
            options = queue.options
            until = now_ms() + HOLD if options.overflow == "drop_oldest" else None
            return statements.publish(db, queue.number, rows, options.max_length, drop_until=until)

        while True:
            seen = queue.left.count
            try:
                return self.writer.run(work, timeout=deadline - time.monotonic())
            except statements.Full:
                left = deadline - time.monotonic()
                options = queue.options
                if left <= 0 or options.overflow == "reject" or len(rows) > options.max_length > 0:
                    raise self._full(queue, len(rows)) from None
            with self._watch.open():
                queue.left.wait(seen, left)
            if self._closing:
                raise Unavailable(f"driver {self._id} was stopped while a publish to {queue.queue.id} waited for room")

    def _full(self, queue: LocalQueue, count: int) -> QueueFull:
        limit = queue.options.max_length
        if count > limit:
            text = f"{count} messages at once never fit; publish at most max_length = {limit} together"
            return QueueFull(f"queue {queue.queue.id}: {text}", retryable=False, details={"accepted": []})
        return QueueFull(
            f"queue {queue.queue.id} is full: max_length is {limit}; consume faster, or raise max_length",
            details={"accepted": []},
        )

    def subscribe(self, queue: LocalQueue, window: int) -> SqliteSubscription:
        subscription = SqliteSubscription(
            queue, self.writer, self._watch, self._boards, window=window, lease=self._lease, on_close=self._forget
        )
        with self._lock:
            self._subscriptions |= {subscription}
        return subscription

    def _forget(self, subscription: SqliteSubscription) -> None:
        with self._lock:
            self._subscriptions -= {subscription}

    def wait_idle(self, queue: LocalQueue, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while True:
            seen = queue.left.count
            if self.reader.run(lambda db: statements.is_idle(db, queue.number)):
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with self._watch.open():
                queue.left.wait(seen, left, JOIN_REST)
            if self._closing:
                raise Unavailable(f"driver {self._id} was stopped while {queue.queue.id} was waited for")
