"""A message on the wire: a body of text, and what else there is to say in one attribute of JSON.

SQS takes text of XML's characters and ten attributes, so a body that is no such text travels as base64, and all headers
travel together. Some are attributes of their own besides, for programs that are not ours.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import msgspec

from wippy_queue.errors import Invalid
from wippy_queue.message import ATTEMPTS, NO_HEADERS, RESERVED_PREFIX, TIMESTAMP, Encoding, HeaderValue, Message

LARGEST: Final = 1_048_576  # bytes, of a message with its attributes, and of a batch
DELAY_SECONDS: Final = "sqs.delay_seconds"
GROUP_ID: Final = "sqs.message_group_id"
DEDUPLICATION_ID: Final = "sqs.message_deduplication_id"

_META: Final = "wippy_queue"  # the attribute
_SHOWN: Final = ("content_type", "correlation_id", "message_type", "traceparent")
_ILLEGAL: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ENCODINGS: Final[Mapping[str, Encoding]] = {"json": "json", "msgpack": "msgpack", "binary": "binary"}
_NOTHING: Final = "-"  # the body of a message that has none: SQS takes no empty ones


@attrs.frozen(kw_only=True)
class Received:
    """What a receive brought."""

    message: Message
    due: float | None  # Unix seconds; a delay that is longer than SQS keeps one
    sent: float  # Unix seconds; when this copy was sent


def to_entry(message: Message, due: float | None = None) -> dict[str, Any]:
    """Return a message as an entry of a batch.

    Args:
        message: its ``delay`` is somebody else's business.
        due: Unix seconds before which whoever receives it sends it on.

    Raises:
        Invalid: it is larger than SQS takes.
    """
    body, form = _body_of(message)
    meta: dict[str, Any] = {"id": message.id, "timestamp": message.timestamp, "encoding": message.encoding}
    optional = {
        "form": form,
        "attempts": message.attempts,
        "headers": dict(message.headers),
        "priority": message.priority,  # not honoured, but a message that goes on to another driver keeps them
        "expires_at": message.expires_at,
        "due": due,
    }
    meta.update({key: value for key, value in optional.items() if value})
    attributes = {_META: json.dumps(meta, separators=(",", ":"))}
    for name in _SHOWN:
        value = message.headers.get(name)
        if isinstance(value, str) and value and not _ILLEGAL.search(value):
            attributes[name] = value
    entry = {
        "MessageBody": body,
        "MessageAttributes": {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()},
    }
    if (size := size_of(entry)) > LARGEST:
        raise Invalid(
            f"message {message.id}: {size} bytes with its headers, and SQS takes {LARGEST} at most; publish where the"
            " data is instead of the data"
        )
    return entry


def size_of(entry: Mapping[str, Any]) -> int:
    """Return how many bytes of SQS's limits an entry takes."""
    return len(entry["MessageBody"].encode()) + sum(
        len(name) + len(value["DataType"]) + len(value["StringValue"].encode())
        for name, value in entry["MessageAttributes"].items()
    )


def from_received(raw: Mapping[str, Any]) -> Received:
    """Return a received message; one that another program has sent is taken as it is."""
    system = raw.get("Attributes", {})
    sent = int(system.get("SentTimestamp", 0)) / 1000
    before = max(0, int(system.get("ApproximateReceiveCount", 1)) - 1)  # receives that did not end in an ack
    group = system.get("MessageGroupId")
    attributes = raw.get("MessageAttributes", {})
    due = None
    try:
        meta = json.loads(attributes[_META]["StringValue"])
        due = meta.get("due")
        message = Message(
            id=meta["id"],
            body=_BODIES[meta.get("form", "")](raw["Body"]),
            encoding=_ENCODINGS[meta["encoding"]],
            headers=meta.get("headers") or NO_HEADERS,
            timestamp=meta["timestamp"],
            attempts=meta.get("attempts", 0) + before,
            priority=meta.get("priority", 0),
            expires_at=meta.get("expires_at"),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        message = _foreign(raw, attributes, sent, before, group)
    return Received(message=message, due=due, sent=sent)


def _body_of(message: Message) -> tuple[str, str]:
    if message.encoding == "json":
        try:
            text = message.body.decode()
        except UnicodeDecodeError:
            text = ""
        if text and not _ILLEGAL.search(text):
            return text, ""
    return (base64.b64encode(message.body).decode(), "base64") if message.body else (_NOTHING, "empty")


_BODIES: Final[Mapping[str, Callable[[str], bytes]]] = {
    "": lambda text: text.encode(),
    "base64": lambda text: base64.b64decode(text, validate=True),
    "empty": lambda _: b"",
}


def _foreign(
    raw: Mapping[str, Any], attributes: Mapping[str, Any], sent: float, before: int, group: str | None
) -> Message:
    headers: dict[str, HeaderValue] = {} if group is None else {GROUP_ID: group}
    for name, attribute in attributes.items():
        value = _header(attribute)
        if value is not None and name not in (_META, ATTEMPTS, TIMESTAMP) and not name.startswith(RESERVED_PREFIX):
            headers[name] = value
    body = str(raw["Body"])
    return Message(
        id=raw["MessageId"],
        body=body.encode(),
        encoding="json" if _is_json(body) else "binary",
        headers=headers or NO_HEADERS,
        timestamp=sent,
        attempts=before,
    )


def _header(attribute: Mapping[str, Any]) -> HeaderValue | None:
    kind, text = attribute.get("DataType", ""), attribute.get("StringValue")
    if text is None:
        return None  # bytes: headers hold none
    if kind.partition(".")[0] == "Number":
        try:
            number = int(text)
            return number if -(2**63) <= number < 2**63 else str(text)  # headers hold no more
        except ValueError:
            pass
        try:
            return float(text)
        except ValueError:
            pass
    return str(text)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)  # json.loads takes NaN and more that handlers could not read
    except (ValueError, RecursionError):
        return False
    return True
