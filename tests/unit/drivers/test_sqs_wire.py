"""How a message looks on SQS, ours and those of other programs."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import message
from wippy_queue.drivers.sqs.messages import LARGEST, from_received, size_of, to_entry
from wippy_queue.errors import Invalid
from wippy_queue.message import Encoding, Message

FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.text(st.characters(exclude_categories=["Cs"])) | st.integers(-(2**63), 2**63 - 1) | st.booleans() | FINITE


def received(entry: dict[str, Any], **attributes: str) -> Message:
    """Return what comes out of the entry after SQS had it."""
    system = {"SentTimestamp": "1700000000123", "ApproximateReceiveCount": "1", **attributes}
    raw = {"MessageId": "sqs-1", "Body": entry["MessageBody"], "Attributes": system}
    return from_received({**raw, "MessageAttributes": entry.get("MessageAttributes", {})}).message


def foreign(body: str, **attributes: Any) -> Message:
    return received({"MessageBody": body, "MessageAttributes": attributes})


@given(
    body=st.binary(),
    encoding=st.sampled_from(["json", "msgpack", "binary"]),
    headers=st.dictionaries(st.text(), VALUES),
)
def test_a_message_of_any_bytes_and_headers_comes_back(body: bytes, encoding: Encoding, headers: Any) -> None:
    original = message("m-1", body, encoding=encoding, headers=headers)
    entry = to_entry(original)
    assert all(value["StringValue"] for value in entry["MessageAttributes"].values()), "SQS takes no empty attributes"
    again = received(entry)
    assert again == original
    assert {key: repr(value) for key, value in again.headers.items()} == {k: repr(v) for k, v in headers.items()}


def test_a_json_body_travels_as_it_is() -> None:
    """Other programs, and people at the console, can read it."""
    assert to_entry(message(body='{"name":"ünï"}'.encode()))["MessageBody"] == '{"name":"ünï"}'


@pytest.mark.parametrize(
    "body", [b'"\xef\xbf\xbf"', b"\x00", b"\xff\xfe", b""], ids=["U+FFFF", "nul", "no utf-8", "none"]
)
def test_a_body_that_sqs_would_refuse_is_wrapped(body: bytes) -> None:
    text = to_entry(message(body=body))["MessageBody"]
    assert text
    assert text.isascii()
    assert text.isprintable()


def test_some_headers_are_attributes_for_other_programs() -> None:
    headers = {"correlation_id": "c-1", "content_type": "a/b", "traceparent": "", "message_type": "\x01", "other": "x"}
    attributes = to_entry(message(headers=headers))["MessageAttributes"]
    assert {name: value["StringValue"] for name, value in attributes.items() if name != "wippy_queue"} == {
        "correlation_id": "c-1",
        "content_type": "a/b",
    }


def test_a_message_that_is_too_large_is_refused_before_it_is_sent() -> None:
    room = LARGEST - size_of(to_entry(message("m", b'""')))
    assert size_of(to_entry(message("m", b'"' + b"x" * (room - 10) + b'"'))) <= LARGEST
    with pytest.raises(Invalid, match=r"message m: \d+ bytes with its headers, and SQS takes 1048576"):
        to_entry(message("m", b'"' + b"x" * (room + 10) + b'"'))


def test_every_receive_before_this_one_counts_as_an_attempt() -> None:
    entry = to_entry(message(attempts=2))
    assert received(entry, ApproximateReceiveCount="4").attempts == 5


def test_a_delay_in_hops_says_until_when() -> None:
    entry = to_entry(message(), due=1234.5)
    assert from_received({"MessageId": "x", "Body": entry["MessageBody"], **entry}).due == 1234.5


def test_a_message_of_another_program_is_taken_as_it_is() -> None:
    number = {"DataType": "Number.int", "StringValue": "9"}
    taken = foreign(
        '{"n":1}',
        count=number,
        share={"DataType": "Number", "StringValue": "0.5"},
        name={"DataType": "String", "StringValue": "x"},
        blob={"DataType": "Binary", "BinaryValue": b"\x00"},
        attempts=number,
        x_original_queue={"DataType": "String", "StringValue": "forged"},
    )
    assert taken == Message(
        id="sqs-1",
        body=b'{"n":1}',
        encoding="json",
        headers={"count": 9, "share": 0.5, "name": "x"},
        timestamp=1700000000.123,
    )


def test_a_text_of_another_program_that_is_no_json_is_bytes() -> None:
    assert msgspec.structs.replace(foreign("hello"), timestamp=0.0).encoding == "binary"
    assert foreign("hello").body == b"hello"


@pytest.mark.parametrize(
    "body",
    ['{"temp": NaN}', "-Infinity", '{"big": 1e999}', '"\\ud800 alone"', '{"\\udfff": 1}'],
    ids=["nan", "infinity", "a number beyond floats", "half a surrogate pair", "half of one in a key"],
)
def test_json_of_another_program_that_handlers_could_not_read_is_bytes(body: str) -> None:
    """Python's json writes and reads it, and nobody else: as json it would be a dead letter of every handler."""
    taken = foreign(body)
    assert (taken.encoding, taken.body) == ("binary", body.encode())


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, int("9" * 38)])
def test_a_number_of_another_program_that_no_header_holds_is_text(number: int) -> None:
    """Headers are integers of 64 bits everywhere else, and SQS takes numbers of 38 digits."""
    largest = 2**63 - 1 if number > 0 else -(2**63)
    texts = {"beyond": str(number), "held": str(largest)}
    taken = foreign("{}", **{name: {"DataType": "Number", "StringValue": text} for name, text in texts.items()})
    assert dict(taken.headers) == {"beyond": str(number), "held": largest}


@pytest.mark.parametrize("meta", ["", "no json", "[]", "{}", '{"id":"a","encoding":"morse","timestamp":1}'])
def test_an_attribute_that_is_not_ours_after_all_makes_the_message_foreign(meta: str) -> None:
    assert foreign("{}", wippy_queue={"DataType": "String", "StringValue": meta}).id == "sqs-1"


def test_a_body_that_somebody_broke_on_its_way_makes_the_message_foreign() -> None:
    entry = to_entry(message(body=b"\x00"))
    assert json.loads(entry["MessageAttributes"]["wippy_queue"]["StringValue"])["form"] == "base64"
    assert received({**entry, "MessageBody": "%%%"}).body == b"%%%"


def test_the_group_of_a_foreign_fifo_message_is_a_header() -> None:
    taken = received({"MessageBody": "1"}, MessageGroupId="g")
    assert dict(taken.headers) == {"sqs.message_group_id": "g"}
