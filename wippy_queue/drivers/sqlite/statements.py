"""What happens to the rows. Each function is one step inside a transaction of its caller; times are Unix milliseconds.

Many rows go in one statement (`json_each`) wherever that can be: each step of a statement lets go of the interpreter
lock, and getting it back costs most when handlers are busy. `queue.total` counts what is ready, delayed and leased, so
that neither a limit nor `info` has to count a backlog.
"""

# ruff: noqa: S608  what is put together here are constants of this file; values are always bound

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec

from wippy_queue.drivers.sqlite.database import DELAYED, EXPIRED, LEASED, PUSHED_OUT, READY
from wippy_queue.message import NO_HEADERS, Encoding, HeaderValue, Message
from wippy_queue.queues import DropReason, QueueInfo

_ANY_JSON: Final = "(SELECT value FROM json_each(?))"
_COLUMNS: Final = "m.id, m.priority, m.attempts, m.expires_at, p.message_id, p.timestamp, p.encoding, p.headers, p.body"
_PROMOTE: Final = 1000  # due messages that one claim makes ready
_CLEAN: Final = 500  # messages that are dropped at a time
_PRIORITIES: Final = range(10)

_encode = msgspec.json.Encoder().encode
_encode_headers = msgspec.msgpack.Encoder().encode
_decode_headers = msgspec.msgpack.Decoder(dict[str, HeaderValue]).decode

Row = tuple[tuple[int, int, int | None, int, int | None], tuple[str, float, str, bytes | None, bytes]]


class Full(Exception):
    """The queue would hold more than its ``max_length``."""


class LeaseLost(Exception):
    """The owner has lost its leases to somebody else."""


def to_row(message: Message, delay: float, ttl: float | None, now: int) -> Row:
    """Return a message as the two rows that it becomes, but for the ids."""
    expires_at = message.expires_at
    if ttl is not None:  # which begins now: a dead letter was first published long ago
        ends_at = now / 1000 + ttl
        expires_at = ends_at if expires_at is None else min(expires_at, ends_at)
    state, due_at = (DELAYED, now + int(delay * 1000)) if delay > 0 else (READY, None)
    headers = _encode_headers(dict(message.headers)) if message.headers else None
    return (
        (message.priority, state, due_at, message.attempts, None if expires_at is None else int(expires_at * 1000)),
        (message.id, message.timestamp, message.encoding, headers, message.body),
    )


def to_message(row: Sequence[Any]) -> Message:
    """Return the message that a row of `_COLUMNS` is."""
    _, priority, attempts, expires_at, message_id, timestamp, encoding, headers, body = row
    coding: Encoding = encoding
    known: Mapping[str, HeaderValue] = NO_HEADERS if headers is None else _decode_headers(headers)
    return Message(
        id=message_id,
        body=body,
        encoding=coding,
        headers=known,
        timestamp=timestamp,
        attempts=attempts,
        priority=priority,
        expires_at=None if expires_at is None else expires_at / 1000,
    )


def declare(db: sqlite3.Connection, name: str) -> int:
    """Return the number of a queue; it never changes."""
    db.execute("INSERT OR IGNORE INTO queue (name) VALUES (?)", (name,))
    number: int = db.execute("SELECT id FROM queue WHERE name = ?", (name,)).fetchone()[0]
    return number


# publishing


def publish(
    db: sqlite3.Connection, queue: int, rows: Sequence[Row], max_length: int, *, drop_until: int | None
) -> list[int]:
    """Store the rows, and return the ids of those that had to make room, held until ``drop_until``.

    Raises Full where ``drop_until`` is None and the queue is full; nothing has been done then.
    """
    excess = 0
    if max_length:
        total = db.execute("SELECT total FROM queue WHERE id = ?", (queue,)).fetchone()[0]
        excess = total + len(rows) - max_length
        if excess > 0 and drop_until is None:
            raise Full
    _insert(db, queue, rows)
    _add(db, queue, len(rows))
    if excess <= 0:
        return []
    oldest = _oldest(db, queue, excess)
    db.execute(
        f"UPDATE message SET state = {PUSHED_OUT}, due_at = ? WHERE id IN {_ANY_JSON}", (drop_until, _encode(oldest))
    )
    _add(db, queue, -len(oldest))
    return oldest


def _insert(db: sqlite3.Connection, queue: int, rows: Sequence[Row]) -> None:
    first = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'message'").fetchone()[0] + 1
    db.executemany(
        "INSERT INTO message (id, queue, priority, state, due_at, attempts, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(number, queue, *message) for number, (message, _) in enumerate(rows, first)],
    )
    db.executemany(
        "INSERT INTO payload (id, message_id, timestamp, encoding, headers, body) VALUES (?, ?, ?, ?, ?, ?)",
        [(number, *payload) for number, (_, payload) in enumerate(rows, first)],
    )


def _add(db: sqlite3.Connection, queue: int, count: int) -> None:
    db.execute("UPDATE queue SET total = total + ? WHERE id = ?", (count, queue))


def _oldest(db: sqlite3.Connection, queue: int, count: int) -> list[int]:
    """Return the ids that are dropped first: the lowest priority, and of that the oldest; delayed ones last."""
    ids: list[int] = []
    for priority in _PRIORITIES:
        rows = db.execute(
            "SELECT id FROM message WHERE queue = ? AND state = 0 AND priority = ? ORDER BY id LIMIT ?",
            (queue, priority, count - len(ids)),
        )
        ids.extend(row[0] for row in rows.fetchall())
        if len(ids) == count:
            return ids
    rows = db.execute(
        "SELECT id FROM message WHERE queue = ? AND state = 1 ORDER BY due_at LIMIT ?", (queue, count - len(ids))
    )
    ids.extend(row[0] for row in rows.fetchall())
    return ids


# consuming


def claim(
    db: sqlite3.Connection, queue: int, token: int, limit: int, now: int
) -> tuple[list[tuple[int, Message]], int | None]:
    """Lease up to ``limit`` messages, next first; where there are none, say when the next delayed one is due."""
    db.execute(
        f"UPDATE message SET state = {READY}, due_at = NULL WHERE id IN"
        " (SELECT id FROM message WHERE queue = ? AND state = 1 AND due_at <= ? ORDER BY due_at LIMIT ?)",
        (queue, now, _PROMOTE),
    )
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM message m JOIN payload p ON p.id = m.id WHERE m.queue = ? AND m.state = 0"
        " AND (m.expires_at IS NULL OR m.expires_at > ?) ORDER BY m.priority DESC, m.id LIMIT ?",
        (queue, now, limit),
    ).fetchall()
    if not rows:
        due: int | None = db.execute(
            "SELECT min(due_at) FROM message WHERE queue = ? AND state = 1", (queue,)
        ).fetchone()[0]
        return [], due
    beat(db, token)
    db.execute(
        f"UPDATE message SET state = {LEASED}, owner = ? WHERE id IN {_ANY_JSON}",
        (token, _encode([r[0] for r in rows])),
    )
    return [(row[0], to_message(row)) for row in rows], None


def settle(
    db: sqlite3.Connection,
    queue: int,
    token: int,
    *,
    acked: Sequence[int],
    released: Sequence[int],
    requeued: Sequence[tuple[int, Row]],
) -> None:
    """Settle rows that the owner holds. Raises LeaseLost when it holds none any more: they go all at once."""
    beat(db, token)
    gone = [*acked, *(number for number, _ in requeued)]
    if gone:
        _delete(db, gone)
    if requeued:
        _insert(db, queue, [row for _, row in requeued])
    if acked:
        _add(db, queue, -len(acked))
    if released:
        db.execute(
            f"UPDATE message SET state = {READY}, owner = NULL WHERE id IN {_ANY_JSON}", (_encode(list(released)),)
        )


def _delete(db: sqlite3.Connection, ids: Sequence[int]) -> None:
    encoded = _encode(ids)
    db.execute(f"DELETE FROM message WHERE id IN {_ANY_JSON}", (encoded,))
    db.execute(f"DELETE FROM payload WHERE id IN {_ANY_JSON}", (encoded,))


# owners of leases


def add_owner(db: sqlite3.Connection, token: int, queue: int, lease: float) -> None:
    db.execute("INSERT INTO owner (token, queue, lease, beat) VALUES (?, ?, ?, 0)", (token, queue, int(lease * 1000)))


def owners(db: sqlite3.Connection) -> list[tuple[int, int, int, int]]:
    """Return (token, queue, lease, beat) of everybody who may hold leases."""
    return db.execute("SELECT token, queue, lease, beat FROM owner").fetchall()


def beat(db: sqlite3.Connection, token: int) -> None:
    """Extend all of an owner's leases. Raises LeaseLost."""
    if db.execute("UPDATE owner SET beat = beat + 1 WHERE token = ?", (token,)).rowcount != 1:
        raise LeaseLost


def take_back(db: sqlite3.Connection, queue: int, token: int, begun: Sequence[int]) -> int:
    """End an owner: what it holds is ready again, at its old place, and an attempt older where it had begun."""
    db.execute(
        f"UPDATE message SET attempts = attempts + 1 WHERE queue = ? AND state = 2 AND owner = ? AND id IN {_ANY_JSON}",
        (queue, token, _encode(begun)),
    )
    freed = db.execute(
        f"UPDATE message SET state = {READY}, owner = NULL WHERE queue = ? AND state = 2 AND owner = ?", (queue, token)
    )
    db.execute("DELETE FROM owner WHERE token = ?", (token,))
    return freed.rowcount


# dropping: first out of the way, then to on_drop, then deleted


def next_drop(db: sqlite3.Connection, queue: int) -> int | None:
    """Return when something has to be dropped, None when nothing ever has to be."""
    row = db.execute(
        "SELECT (SELECT min(expires_at) FROM message WHERE queue = ? AND expires_at IS NOT NULL AND state <= 1),"
        " (SELECT min(due_at) FROM message WHERE queue = ? AND state >= 3)",
        (queue, queue),
    ).fetchone()
    return min((due for due in row if due is not None), default=None)


def take_dropped(
    db: sqlite3.Connection, queue: int, now: int, until: int
) -> dict[DropReason, list[tuple[int, Message]]]:
    """Return what is to be dropped now; nobody else takes it before ``until``."""
    expired = db.execute(
        f"UPDATE message SET state = {EXPIRED}, due_at = 0 WHERE id IN (SELECT id FROM message WHERE queue = ?"
        f" AND expires_at IS NOT NULL AND state <= 1 AND expires_at <= ? ORDER BY expires_at LIMIT {_CLEAN})",
        (queue, now),
    ).rowcount
    if expired:
        _add(db, queue, -expired)
    rows = db.execute(
        f"SELECT m.state, {_COLUMNS} FROM message m JOIN payload p ON p.id = m.id WHERE m.queue = ? AND m.state >= 3"
        f" AND m.due_at <= ? ORDER BY m.state, m.id LIMIT {_CLEAN}",
        (queue, now),
    ).fetchall()
    hold_dropped(db, [row[1] for row in rows], until)
    return {
        "expired" if state == EXPIRED else "maxlen": [(row[1], to_message(row[1:])) for row in group]
        for state, group in groupby(rows, key=lambda row: row[0])
    }


def hold_dropped(db: sqlite3.Connection, ids: Sequence[int], until: int) -> None:
    db.execute(f"UPDATE message SET due_at = ? WHERE id IN {_ANY_JSON}", (until, _encode(ids)))


def forget_dropped(db: sqlite3.Connection, ids: Sequence[int]) -> None:
    _delete(db, ids)


def messages_of(db: sqlite3.Connection, ids: Sequence[int]) -> list[tuple[int, Message]]:
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM message m JOIN payload p ON p.id = m.id WHERE m.id IN {_ANY_JSON} ORDER BY m.id",
        (_encode(ids),),
    )
    return [(row[0], to_message(row)) for row in rows.fetchall()]


# looking


def info(db: sqlite3.Connection, name: str, now: int) -> QueueInfo:
    row = db.execute(
        "SELECT total,"
        " (SELECT count(*) FROM message WHERE queue = q.id AND state = 1 AND due_at > ?),"
        " (SELECT count(*) FROM message WHERE queue = q.id AND state = 2),"
        " (SELECT count(*) FROM message WHERE queue = q.id AND state >= 3),"
        " (SELECT count(*) FROM owner WHERE queue = q.id)"
        " FROM queue q WHERE name = ?",
        (now, name),
    ).fetchone()
    total, delayed, leased, dropping, consumers = row or (0, 0, 0, 0, 0)
    return QueueInfo(
        message_count=total + dropping,
        ready=total - delayed - leased,
        in_flight=leased + dropping,
        delayed=delayed,
        consumer_count=consumers,
    )


def is_idle(db: sqlite3.Connection, queue: int) -> bool:
    row = db.execute(
        "SELECT total = 0 AND NOT EXISTS (SELECT 1 FROM message WHERE queue = q.id AND state >= 3)"
        " FROM queue q WHERE id = ?",
        (queue,),
    ).fetchone()
    return bool(row[0])


def peek(db: sqlite3.Connection, queue: int, limit: int, now: int) -> list[Message]:
    """Return what waits, in the order in which it would be delivered."""
    found: list[Message] = []
    for where in ("m.state = 0 ORDER BY m.priority DESC, m.id", "m.state = 1 ORDER BY m.due_at, m.id"):
        rows = db.execute(
            f"SELECT {_COLUMNS} FROM message m JOIN payload p ON p.id = m.id WHERE m.queue = ?"
            f" AND (m.expires_at IS NULL OR m.expires_at > ?) AND {where} LIMIT ?",
            (queue, now, limit - len(found)),
        )
        found.extend(to_message(row) for row in rows.fetchall())
    return found


def purge(db: sqlite3.Connection, queue: int) -> int:
    count = 0
    for state in (READY, DELAYED):
        where = f"queue = ? AND state = {state}"
        db.execute(f"DELETE FROM payload WHERE id IN (SELECT id FROM message WHERE {where})", (queue,))
        count += db.execute(f"DELETE FROM message WHERE {where}", (queue,)).rowcount
    _add(db, queue, -count)
    return count
