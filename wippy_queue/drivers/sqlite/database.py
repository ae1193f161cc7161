"""The file: opening it, its tables, and what its errors mean."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from wippy_queue.errors import Conflict, Internal, Invalid, Timeout, Unavailable, WippyQueueError

T = TypeVar("T")

SCHEMA_VERSION: Final = 1

# The states of a message. What is in EXPIRED and PUSHED_OUT waits for on_drop, and counts in no limit.
READY: Final = 0
DELAYED: Final = 1
LEASED: Final = 2
EXPIRED: Final = 3
PUSHED_OUT: Final = 4

BUSY_WAIT: Final = 0.25  # seconds that SQLite itself waits for another process's transaction
_OPEN_WAIT: Final = 5.0  # seconds for other processes to let us open the file
_WAL_LIMIT: Final = 64 * 1024**2  # bytes that the write-ahead log keeps on disk after a burst

# A row's id is its place in the queue. Ids only grow (AUTOINCREMENT); a requeue gets a new one, a release keeps it,
# so no late settle hits another message either. The body lives apart, so that changing a state never rewrites it.
_SCHEMA: Final = (
    "CREATE TABLE queue (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, total INTEGER NOT NULL DEFAULT 0)",
    """CREATE TABLE message (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        queue INTEGER NOT NULL,
        priority INTEGER NOT NULL,
        state INTEGER NOT NULL,
        due_at INTEGER,      -- Unix ms: when a delayed message is ready, when a dropped one is offered to on_drop again
        owner INTEGER,       -- token of who holds a leased message
        attempts INTEGER NOT NULL,
        expires_at INTEGER   -- Unix ms
    )""",
    """CREATE TABLE payload (
        id INTEGER PRIMARY KEY,
        message_id TEXT NOT NULL,
        timestamp REAL NOT NULL,
        encoding TEXT NOT NULL,
        headers BLOB,
        body BLOB NOT NULL
    )""",
    # A lease belongs to the owner, not to the message: one row to extend, however many messages it holds. `beat` grows
    # with each extension; who sees it stand still for `lease` ms by a clock that never jumps may take over.
    """CREATE TABLE owner (
        token INTEGER PRIMARY KEY,
        queue INTEGER NOT NULL,
        lease INTEGER NOT NULL,
        beat INTEGER NOT NULL
    )""",
    "CREATE INDEX message_ready ON message (queue, priority DESC, id) WHERE state = 0",
    "CREATE INDEX message_delayed ON message (queue, due_at) WHERE state = 1",
    "CREATE INDEX message_leased ON message (queue, owner) WHERE state = 2",
    "CREATE INDEX message_dropping ON message (queue, due_at) WHERE state >= 3",
    "CREATE INDEX message_expiring ON message (queue, expires_at) WHERE expires_at IS NOT NULL AND state <= 1",
    "INSERT INTO sqlite_sequence (name, seq) VALUES ('message', 0)",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


def now_ms() -> int:
    return int(time.time() * 1000)


def open_database(file: str, durability: str) -> sqlite3.Connection:
    """Open the file for writing, and make it if need be.

    Raises:
        Unavailable: it cannot be reached now (folder, rights, disk, another process).
        Invalid: it never can be (no database, a newer version's).
    """
    check_name(file)
    try:
        connection = connect(file)
        try:
            _prepare(connection, file, durability)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise explain(error, file) from error
    return connection


def check_name(file: str) -> None:
    if file == ":memory:" or file.startswith("file:"):
        raise Invalid(f"file: expected the path of a database file, found {file!r}; in memory is queue.driver.memory")


def connect(file: str) -> sqlite3.Connection:
    """Open a connection that may go from thread to thread, under its user's lock."""
    return sqlite3.connect(file, timeout=BUSY_WAIT, isolation_level=None, check_same_thread=False)


def _prepare(connection: sqlite3.Connection, file: str, durability: str) -> None:
    check_schema(connection, file)  # nothing is changed in a file of somebody else
    mode = _switch_to_wal(connection)
    if mode != "wal":
        raise Invalid(f"{file}: SQLite cannot keep a write-ahead log there ({mode}); put the file on a local disk")
    connection.execute(f"PRAGMA synchronous = {durability}")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not check_schema(connection, file):
            for statement in _SCHEMA:
                connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def check_schema(connection: sqlite3.Connection, file: str) -> bool:
    """Return whether the tables are there. Raises Invalid where the file belongs to somebody else."""
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > SCHEMA_VERSION:
        raise Invalid(
            f"{file}: written by a newer wippy_queue (schema {found}, this version knows {SCHEMA_VERSION});"
            " upgrade this installation or use another file"
        )
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    if "owner" not in tables if found else tables:
        raise Invalid(f"{file}: is a database of another program; use a file of its own for the queues")
    return found != 0


def _switch_to_wal(connection: sqlite3.Connection) -> str:
    """Return the mode that the file has then."""
    deadline = time.monotonic() + _OPEN_WAIT
    pause = threading.Event()
    while True:  # two processes that open a new file together: SQLite does not wait for the other's switch
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= deadline:
                raise
            pause.wait(0.02)


def is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def explain(error: sqlite3.Error | OSError, file: str) -> WippyQueueError:
    """Return what an error of SQLite or of the system means for the user, and the cure."""
    if isinstance(error, OSError):
        return Unavailable(f"{error.filename or file}: {error.strerror or error}; the driver keeps its files there")
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Timeout(f"{file}: another process keeps the database locked; end what holds it in a long transaction")
    if code == sqlite3.SQLITE_NOTADB:
        return Invalid(f"{file}: is not an SQLite database; name another file, or move this one away")
    if code == sqlite3.SQLITE_FULL:
        return Unavailable(f"{file}: the disk is full; free some space: what was confirmed before is safe")
    if code == sqlite3.SQLITE_READONLY:
        return Unavailable(f"{file}: cannot be written; give this user the right to write the file and its folder")
    if code == sqlite3.SQLITE_CANTOPEN:
        folder = Path(file).absolute().parent
        cure = "is it a folder, and may this user write there?" if folder.is_dir() else f"make the folder {folder}"
        return Unavailable(f"{file}: cannot be opened; {cure}")
    if code == sqlite3.SQLITE_CORRUPT:
        return Conflict(f"{file}: the database is damaged ({error}); restore it from a backup")
    if code == sqlite3.SQLITE_IOERR:
        return Unavailable(f"{file}: the disk does not read or write ({error}); see the system's log")
    return Internal(f"{file}: {error}")


class Reader:
    """A connection that only looks. Thread safety: ``run`` may be called from any thread."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._connection = connect(file)

    def run(self, look: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                return look(self._connection)
            except sqlite3.ProgrammingError as error:  # closed
                raise Unavailable(f"{self._file}: the driver is stopped") from error
            except sqlite3.Error as error:
                raise explain(error, self._file) from error

    def close(self) -> None:
        with self._lock:
            self._connection.close()
