"""sqlite3 without an engine."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from wippy_queue.bench.client import WAIT, Client, Fetched

_SCHEMA: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "CREATE TABLE message (id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT, body BLOB, claimed INTEGER)",
    "CREATE INDEX waiting ON message (queue, id) WHERE claimed = 0",
)
_INSERT: Final = "INSERT INTO message (queue, body, claimed) VALUES (?, ?, 0)"
_CLAIM: Final = (
    "UPDATE message SET claimed = 1"
    " WHERE id IN (SELECT id FROM message WHERE queue = ? AND claimed = 0 ORDER BY id LIMIT ?) RETURNING id, body"
)
_DELETE: Final = "DELETE FROM message WHERE id = ?"


class Sqlite(Client):
    """One table; one connection under a lock, for a file has one writer at a time anyway; a transaction per call.

    The file is a new one, in the folder of ``address``.
    """

    def __init__(self, address: str | None, window: int) -> None:
        super().__init__(address, window)
        place = None if address is None else Path(address).parent
        self._folder = tempfile.TemporaryDirectory(prefix="wippy-queue-bench-", dir=place)
        self._lock = threading.Lock()
        self._stored = threading.Event()
        file = Path(self._folder.name) / "bench.db"
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        for statement in _SCHEMA:
            self._db.execute(statement)

    def send(self, name: str, body: bytes) -> None:
        with self._lock:
            self._db.execute(_INSERT, (name, body))
        self._stored.set()

    def send_many(self, name: str, bodies: Sequence[bytes]) -> None:
        self._many(_INSERT, [(name, body) for body in bodies])
        self._stored.set()

    def fetch(self, limit: int) -> Fetched:
        self._stored.clear()
        with self._lock:
            rows: Fetched = self._db.execute(_CLAIM, (self.tasks, limit)).fetchall()
        if not rows:
            self._stored.wait(WAIT)
        return rows

    def ack(self, receipts: Sequence[Any]) -> None:
        self._many(_DELETE, [(receipt,) for receipt in receipts])

    def _many(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(statement, rows)

    def close(self) -> None:
        super().close()
        self._db.close()
        self._folder.cleanup()
