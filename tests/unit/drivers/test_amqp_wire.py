"""Messages of ours and of others on the wire of AMQP; no broker is needed."""

from __future__ import annotations

import datetime
import decimal
import struct
import time
from typing import Any

import pytest

pytest.importorskip("pika", reason="pika is not installed: pip install 'wippy_queue[amqp]'")

from pika import BasicProperties, frame

from tests.support import message, queue
from wippy_queue.drivers.amqp.mending import mended
from wippy_queue.drivers.amqp.options import AmqpQueueOptions
from wippy_queue.drivers.amqp.wire import META, from_wire, to_wire
from wippy_queue.errors import Invalid
from wippy_queue.message import Message

ROOM = 100_000


def there_and_back(original: Message, **how: Any) -> Message:
    """Encode and decode as pika and the broker do."""
    properties, _ = to_wire(original, waiting=how.pop("waiting", False), room=ROOM, **how)
    received = BasicProperties()
    received.decode(b"".join(properties.encode()))
    return from_wire(received, original.body, queue()).message


@pytest.mark.parametrize(
    "headers",
    [
        {"text": "a", "int": 9, "float": 9.0, "true": True, "large": 2**63 - 1, "small": -(2**63)},
        {"CC": "looks like a route to RabbitMQ", "BCC": "x", "x-death": "y", "x-wippy": "z", "x-delivery-count": 3},
        {"k" * 300: "a key too long for a table", "long": "v" * 1000},
        {"correlation_id": 5, "reply_to": "r" * 300, "message_type": True, "priority": "high"},
        {"correlation_id": "c-1", "reply_to": "answers", "message_type": "order", "content_type": "text/x"},
    ],
    ids=["types", "names of the broker", "long ones", "neutral ones of odd types", "neutral ones"],
)
def test_headers_come_back_as_they_were_published(headers: dict[str, Any]) -> None:
    received = there_and_back(message(headers=headers)).headers
    assert dict(received) == headers
    assert {key: type(value) for key, value in received.items()} == {key: type(v) for key, v in headers.items()}


def test_what_has_a_property_of_amqp_is_there_too_for_other_programs() -> None:
    one = message(
        "m-1",
        headers={"correlation_id": "c", "reply_to": "r", "message_type": "t"},
        timestamp=1700000000.5,
        priority=4,
        encoding="msgpack",
    )
    properties, mandatory = to_wire(one, waiting=False, room=ROOM)
    assert mandatory
    assert properties.message_id == "m-1"
    assert (properties.correlation_id, properties.reply_to, properties.type) == ("c", "r", "t")
    assert (properties.timestamp, properties.priority, properties.delivery_mode) == (1700000000, 4, 2)
    assert properties.content_type == "application/msgpack"
    assert properties.headers is not None
    assert properties.headers["correlation_id"] == "c"


def test_a_message_keeps_everything_else() -> None:
    original = message("ü" * 200, encoding="binary", attempts=3, priority=7, expires_at=time.time() + 60)
    assert there_and_back(original) == original


def test_the_driver_acts_on_the_headers_of_its_own() -> None:
    headers = {"amqp.priority": 12, "amqp.expiration": "5000", "amqp.mandatory": False, "amqp.delivery_mode": 1}
    properties, mandatory = to_wire(message(headers=headers), waiting=False, room=ROOM)
    assert (properties.priority, properties.delivery_mode, mandatory) == (12, 1, False)
    assert properties.expiration is not None
    assert 4000 < int(properties.expiration) <= 5000
    received = there_and_back(message(headers=headers))
    assert dict(received.headers) == headers
    assert received.expires_at == pytest.approx(time.time() + 5, abs=1)


@pytest.mark.parametrize(
    "headers",
    [
        {"amqp.priority": "high"},
        {"amqp.priority": 256},
        {"amqp.priority": True},
        {"amqp.expiration": "soon"},
        {"amqp.expiration": -1},
        {"amqp.mandatory": "no"},
        {"amqp.delivery_mode": 3},
    ],
)
def test_a_header_of_the_driver_that_makes_no_sense_is_refused(headers: dict[str, Any]) -> None:
    (name,) = headers
    with pytest.raises(Invalid, match=name):
        to_wire(message(headers=headers), waiting=False, room=ROOM)


def test_headers_that_do_not_fit_into_a_frame_are_refused_before_they_end_the_connection() -> None:
    with pytest.raises(Invalid, match="put more into the body"):
        to_wire(message(headers={"long": "x" * ROOM}), waiting=False, room=ROOM)


def test_a_message_that_waits_carries_no_expiration_that_would_end_the_wait() -> None:
    one = message(expires_at=time.time() + 1)
    assert to_wire(one, waiting=True, room=ROOM)[0].expiration is None
    assert to_wire(one, waiting=False, room=ROOM)[0].expiration is not None
    assert there_and_back(one, waiting=True).expires_at == one.expires_at


def foreign(body: bytes = b"{}", **properties: Any) -> Message:
    return from_wire(BasicProperties(**properties), body, queue()).message


@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        (None, "json"),
        ("", "json"),
        ("application/json; charset=utf-8", "json"),
        ("application/cloudevents+json", "json"),
        ("application/x-msgpack", "msgpack"),
        ("text/plain", "binary"),
        ("image/png", "binary"),
    ],
)
def test_the_body_of_another_program_is_what_it_says_to_be(content_type: str | None, encoding: str) -> None:
    """One that says nothing is taken for what the queue holds."""
    assert foreign(content_type=content_type).encoding == encoding
    other = queue(encoding="msgpack")
    assert from_wire(BasicProperties(), b"", other).message.encoding == "msgpack"


def test_properties_and_headers_of_another_program_become_headers() -> None:
    received = foreign(
        message_id="theirs",
        timestamp=1700000000,
        priority=200,
        correlation_id="c",
        reply_to="r",
        type="t",
        headers={
            "text": "x",
            "number": decimal.Decimal("1.5"),
            "when": datetime.datetime(2023, 11, 14, 22, 13, 20, tzinfo=datetime.UTC),
            "list": [1, 2],
            "table": {"a": 1},
            "nothing": None,
            "bytes": b"\xff",
            "correlation_id": "the header wins",
            "x-death": [{"reason": "expired"}],
        },
    )
    assert (received.id, received.timestamp, received.priority, received.attempts) == ("theirs", 1700000000.0, 9, 0)
    assert dict(received.headers) == {
        "text": "x",
        "number": 1.5,
        "when": 1700000000.0,
        "correlation_id": "the header wins",
        "reply_to": "r",
        "message_type": "t",
    }


def test_a_message_without_an_id_gets_one() -> None:
    first, second = foreign(), foreign()
    assert first.id
    assert first.id != second.id


@pytest.mark.parametrize(
    "meta",
    [5, "", "no json", "[]", '{"timestamp":"x","attempts":0}', '{"attempts":0}', '{"timestamp":1,"attempts":null}'],
)
def test_a_header_that_only_looks_like_ours_does_no_harm(meta: Any) -> None:
    received = foreign(message_id="m", headers={META: meta, "kept": 1})
    assert (received.id, dict(received.headers), received.attempts) == ("m", {"kept": 1}, 0)


# what another program may say, and must do no harm


@pytest.mark.parametrize(
    "properties",
    [
        {"headers": {"amqp.mandatory": "true", "kept": 1}},
        {"headers": {"amqp.priority": "high", "kept": 1}},
        {"headers": {"amqp.expiration": "1h", "amqp.delivery_mode": 1, "kept": 1}},
        {"headers": {"kept": 1}, "timestamp": 2**64 - 1},
    ],
    ids=["mandatory", "priority", "expiration", "a time before 1970"],
)
def test_what_another_program_has_published_can_be_published_again(properties: dict[str, Any]) -> None:
    """Else it could be handled, but neither retried nor dead-lettered: it came back each second, uncounted."""
    received = foreign(**properties)
    assert dict(received.headers) == {"kept": 1}
    assert received.timestamp == pytest.approx(time.time(), abs=60)
    assert there_and_back(received).headers == received.headers


def test_headers_of_the_driver_that_make_sense_are_believed_of_other_programs_too() -> None:
    headers = {"amqp.priority": 3, "amqp.mandatory": True}
    assert dict(foreign(headers=headers).headers) == headers


def test_another_program_does_not_speak_for_the_engine() -> None:
    """Its `attempts` shadowed ours for the handler, and a reason made its message a dead letter."""
    ours = {"attempts": "many", "timestamp": "never", "x_dead_letter_reason": "mine"}
    assert dict(foreign(headers={**ours, "n": 1}).headers) == {"n": 1}


def test_only_a_quorum_queue_is_believed_how_often_a_message_came_back() -> None:
    """On a classic one the count is of a queue that it was forwarded from: it was given up before anybody saw it."""
    properties = BasicProperties(headers={"x-delivery-count": 3})
    quorum = queue(options=AmqpQueueOptions(queue_type="quorum"))
    assert from_wire(properties, b"{}", queue(options=AmqpQueueOptions())).counted == 0
    assert from_wire(properties, b"{}", quorum).counted == 3


def test_a_dead_letter_has_had_its_time() -> None:
    """It keeps the header that it expired by, which must not count once more in the dead-letter queue."""
    headers = {"amqp.expiration": "1000", "x_dead_letter_reason": "expired"}
    assert to_wire(message(headers=headers), waiting=False, room=ROOM)[0].expiration is None
    assert dict(there_and_back(message(headers=headers)).headers) == headers


def test_headers_that_pika_cannot_read_are_mended() -> None:
    """Times become seconds, what is too deep becomes bytes; whatever stands around them is as it was."""

    def field(name: bytes, kind: bytes, data: bytes) -> bytes:
        return bytes([len(name)]) + name + kind + data

    def sized(data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + data

    far = struct.pack(">Q", 10**12 * 2)
    deep = b""
    for _ in range(500):
        deep = field(b"a", b"F", sized(deep))
    table = (
        field(b"first", b"I", struct.pack(">i", -5))
        + field(b"when", b"T", far)
        + field(b"flag", b"t", b"\x01")
        + field(b"nothing", b"V", b"")
        + field(b"price", b"D", b"\x01" + struct.pack(">i", 15))
        + field(b"list", b"A", sized(b"T" + far + b"S" + sized(b"T")))
        + field(b"in", b"F", sized(field(b"when", b"T", far)))
        + field(b"deep", b"F", sized(deep))
        + field(b"last", b"S", sized(b"text"))
    )
    kinds = b"\x0atext/plain" + b"\x04gzip"
    payload = struct.pack(">HHQH", 60, 0, 2, 0b1110_0000_1000_0000) + kinds + sized(table) + b"\x01m"
    data = struct.pack(">BHI", 2, 1, len(payload)) + payload + b"\xce" + b"the next frame"
    with pytest.raises((ValueError, OverflowError, OSError, RecursionError)):
        frame.decode_frame(data)
    decoded: Any
    size, decoded = frame.decode_frame(mended(data))
    assert size == len(data) - len(b"the next frame")
    found = decoded.properties
    assert (found.content_type, found.content_encoding, found.message_id) == ("text/plain", "gzip", "m")
    headers = found.headers
    assert isinstance(headers.pop("deep")["a"], dict)
    assert headers == {
        "first": -5,
        "when": 10**12 * 2,
        "flag": True,
        "nothing": None,
        "price": decimal.Decimal("1.5"),
        "list": [10**12 * 2, "T"],
        "in": {"when": 10**12 * 2},
        "last": "text",
    }
