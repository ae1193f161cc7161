"""A message of ours as what travels through RabbitMQ, and back; messages of other programs too."""

from __future__ import annotations

import datetime
import decimal
import math
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from pika import BasicProperties

from wippy_queue.drivers.amqp.options import options_of
from wippy_queue.errors import Invalid
from wippy_queue.message import ATTEMPTS, DEAD_LETTER_REASON, RESERVED_PREFIX, TIMESTAMP, Encoding, HeaderValue, Message
from wippy_queue.queues import Queue

# One header holds what AMQP has no place for: JSON with timestamp, attempts, expires_at, a long id, and those headers
# that a table of AMQP cannot hold as they are.
META: Final = "x-wippy"

_CONTENT_TYPES: Final[dict[Encoding, str]] = {
    "json": "application/json",
    "msgpack": "application/msgpack",
    "binary": "application/octet-stream",
}
_MSGPACK: Final = frozenset({"application/msgpack", "application/x-msgpack", "application/vnd.msgpack"})

_SHORT: Final = 255  # bytes of a short string of AMQP: ids, keys of a table
# Headers that mean something to RabbitMQ itself, and those that it adds.
_BROKERS: Final = frozenset(
    {
        META,
        "CC",
        "BCC",
        "x-death",
        "x-first-death-exchange",
        "x-first-death-queue",
        "x-first-death-reason",
        "x-last-death-exchange",
        "x-last-death-queue",
        "x-last-death-reason",
        "x-delivery-count",
        "x-acquired-count",
    }
)
_PROPERTIES: Final = {"correlation_id": "correlation_id", "reply_to": "reply_to", "type": "message_type"}
_DELIVERY_COUNT: Final = "x-delivery-count"  # of quorum queues: how often it came back without an ack
_LONGEST_MS: Final = 2**32 - 1


class Acting:
    """What the ``amqp.*`` headers of a message ask for.

    Raises:
        Invalid: a value that AMQP has no meaning for.
    """

    __slots__ = ("delivery_mode", "expiration", "mandatory", "priority")

    def __init__(self, headers: Mapping[str, HeaderValue]) -> None:
        priority = headers.get("amqp.priority")
        expiration = headers.get("amqp.expiration")
        mandatory = headers.get("amqp.mandatory", True)
        mode = headers.get("amqp.delivery_mode", 2)
        if priority is not None and not (type(priority) is int and 0 <= priority <= _SHORT):
            raise Invalid(f"headers: 'amqp.priority' must be an integer from 0 to 255, found {priority!r}")
        if type(expiration) is str and expiration.isascii() and expiration.isdigit():
            expiration = int(expiration)
        if expiration is not None and not (type(expiration) is int and 0 <= expiration <= _LONGEST_MS):
            raise Invalid(f"headers: 'amqp.expiration' must be milliseconds, 0 or more, found {expiration!r}")
        if type(mandatory) is not bool:
            raise Invalid(f"headers: 'amqp.mandatory' must be true or false, found {mandatory!r}")
        if type(mode) is not int or mode not in (1, 2):
            raise Invalid(f"headers: 'amqp.delivery_mode' must be 1 (transient) or 2 (durable), found {mode!r}")
        self.priority = priority
        self.expiration = expiration
        self.mandatory = mandatory
        self.delivery_mode = mode


_PLAIN: Final = Acting({})


def to_wire(message: Message, *, waiting: bool, room: int, returns: int = 0) -> tuple[BasicProperties, bool]:
    """Return the properties that a message travels with, and whether it must not vanish where no queue is.

    Args:
        message: what to publish; ``expires_at`` says when it expires.
        waiting: it goes to a delay queue, where an expiration of its own would end the wait too early.
        room: bytes that the properties may take.
        returns: how often it came back from a lost connection; see `Arrival`.

    Raises:
        Invalid: headers that cannot travel.
    """
    headers = message.headers
    acting = Acting(headers) if any(key.startswith("amqp.") for key in headers) else _PLAIN
    now = time.time()
    meta: dict[str, Any] = {"timestamp": message.timestamp, "attempts": message.attempts}
    expires_at = message.expires_at
    buried = DEAD_LETTER_REASON in headers  # a dead letter keeps the header, and has had its time
    if expires_at is None and acting.expiration is not None and not message.attempts and not buried:
        expires_at = now + acting.expiration / 1000
    if expires_at is not None:
        meta["expires_at"] = expires_at
    if returns:
        meta["returns"] = returns
    short_id = _is_short(message.id)
    if not short_id:
        meta["id"] = message.id
    table: dict[str, Any] = {}
    properties = BasicProperties(
        content_type=_CONTENT_TYPES[message.encoding],
        delivery_mode=acting.delivery_mode,  # type: ignore[arg-type]  # 1 or 2
        message_id=message.id if short_id else None,
        timestamp=max(0, int(message.timestamp)),
        headers=table,
    )
    if headers:
        awkward = _split(headers, table)
        if awkward:
            meta["headers"] = awkward
        for name, header in _PROPERTIES.items():
            value = headers.get(header)
            if isinstance(value, str) and _is_short(value):
                setattr(properties, name, value)
    priority = acting.priority if acting.priority is not None else message.priority
    if message.priority:
        meta["priority"] = message.priority
    if priority:
        properties.priority = priority
    if expires_at is not None and not waiting:
        properties.expiration = str(min(_LONGEST_MS, max(0, math.ceil((expires_at - now) * 1000))))
    table[META] = msgspec.json.encode(meta).decode()
    if headers or not short_id:
        size = sum(len(key.encode()) + _size(value) for key, value in table.items())
        if size > room:
            raise Invalid(
                f"headers: they take {size} bytes, and RabbitMQ takes {room} on this connection; put more into the body"
            )
    return properties, acting.mandatory


def _is_short(text: str) -> bool:
    return len(text) <= _SHORT and len(text.encode()) <= _SHORT


def _size(value: Any) -> int:
    return 5 + len(value.encode()) if isinstance(value, str) else 9


def _split(headers: Mapping[str, HeaderValue], table: dict[str, Any]) -> dict[str, HeaderValue]:
    """Put into the table what it keeps as it is; return the rest."""
    awkward: dict[str, HeaderValue] = {}
    for key, value in headers.items():
        # pika neither writes floats nor reads them whole
        if isinstance(value, float) or key in _BROKERS or not _is_short(key):
            awkward[key] = value
        else:
            table[key] = value
    return awkward


class Arrival(NamedTuple):
    """What has come."""

    message: Message
    returns: int  # how often it came back from a lost connection, whether or not its handler had begun
    counted: int  # how often RabbitMQ says that this copy has come back; quorum queues alone


def from_wire(properties: BasicProperties, body: bytes, queue: Queue) -> Arrival:
    """Return the message in what RabbitMQ has delivered."""
    table: Mapping[Any, Any] = properties.headers or {}
    # Of another queue type it tells what a quorum queue has seen that it was forwarded from.
    counted = table.get(_DELIVERY_COUNT) if options_of(queue).queue_type == "quorum" else None
    returns = 0
    try:
        meta = msgspec.json.decode(table[META])
        message = Message(
            id=str(meta.get("id") or _text(properties.message_id) or uuid.uuid4()),
            body=body,
            encoding=_encoding(properties.content_type, queue),
            headers=_headers(table) | meta.get("headers", {}),
            timestamp=float(meta["timestamp"]),
            attempts=int(meta["attempts"]),
            priority=int(meta.get("priority", 0)),
            expires_at=float(meta["expires_at"]) if "expires_at" in meta else None,
        )
        returns = int(meta.get("returns", 0))
    except (KeyError, TypeError, ValueError, AttributeError):
        message = _foreign(properties, table, body, queue)
    return Arrival(message, returns, int(counted) if isinstance(counted, int) else 0)


def _headers(table: Mapping[Any, Any]) -> dict[str, HeaderValue]:
    found: dict[str, HeaderValue] = {}
    for key, value in table.items():
        if type(key) is not str or key in _BROKERS:
            continue
        plain = _plain(value)
        if plain is not None:
            found[key] = plain
    return found


def _plain(value: Any) -> HeaderValue | None:
    """Return a header of any program as a value that headers of ours may have; None: it has no such form."""
    if isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return int(value)  # pika has an int of its own
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, datetime.datetime):
        return value.timestamp()
    return None


def _foreign(properties: BasicProperties, table: Mapping[Any, Any], body: bytes, queue: Queue) -> Message:
    """Read what another program has published: properties are headers, and what it says of the body is believed."""
    headers = {key: value for key, value in _headers(table).items() if not _is_ours(key)}
    try:
        Acting(headers)
    except Invalid:  # or it could be handled, but never be retried nor dead-lettered
        headers = {key: value for key, value in headers.items() if not key.startswith("amqp.")}
    for name, header in _PROPERTIES.items():
        value = getattr(properties, name)
        if isinstance(value, str) and value:
            headers.setdefault(header, value)
    stamp: Any = properties.timestamp
    return Message(
        id=_text(properties.message_id) or str(uuid.uuid4()),
        body=body,
        encoding=_encoding(properties.content_type, queue),
        headers=headers,
        timestamp=float(stamp) if isinstance(stamp, int) and stamp < 2**63 else time.time(),  # else below 1970
        priority=min(9, properties.priority or 0),
    )


def _is_ours(key: str) -> bool:
    """Return whether the engine alone may say that."""
    return key in (ATTEMPTS, TIMESTAMP) or key.startswith(RESERVED_PREFIX)


def _text(value: str | bytes | None) -> str:
    """Return a short string, which pika gives as bytes where it is no UTF-8."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _encoding(content_type: str | None, queue: Queue) -> Encoding:
    if not content_type:
        return queue.encoding
    kind = _text(content_type).partition(";")[0].strip().lower()
    if kind in {"application/json", "text/json"} or kind.endswith("+json"):
        return "json"
    return "msgpack" if kind in _MSGPACK else "binary"
