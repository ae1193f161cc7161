"""Bodies to bytes and back."""

from __future__ import annotations

import collections
import datetime
import enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import message
from wippy_queue.codecs import decode_body, encode_body
from wippy_queue.errors import Invalid
from wippy_queue.message import Encoding

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"))
)


def values(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.text(st.characters(codec="utf-8"))
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=20)


def through(body: Any, codec: Encoding) -> Any:
    encoded, encoding = encode_body(body, codec)
    return decode_body(message(body=encoded, encoding=encoding))


@given(values(SCALARS).filter(lambda body: body is not None and body not in ({}, [])))
def test_any_json_value_comes_back_as_it_was(body: Any) -> None:
    assert through(body, "json") == body
    assert through(body, "msgpack") == body


@given(values(SCALARS | st.binary()).filter(lambda body: body is not None and body not in ({}, [])))
def test_msgpack_carries_bytes_inside_structures(body: Any) -> None:
    assert through(body, "msgpack") == body


@pytest.mark.parametrize("codec", ["json", "msgpack"])
@pytest.mark.parametrize("body", [b"", b"\x00\xff", "", 0, False, 0.0, [None], {"": ""}])
def test_only_none_and_empty_containers_are_empty(body: Any, codec: Encoding) -> None:
    assert through(body, codec) == body


class Color(enum.Enum):
    RED = 1


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def circle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (None, "body: a message must not be empty"),
        ({}, "body: a message must not be empty"),
        ([], "body: a message must not be empty"),
        ({"a": {"b": [1, float("nan")]}}, "body.a.b[1]: expected a finite number, found nan"),
        ({"a": float("inf")}, "body.a: expected a finite number"),
        ({"n": 2**63}, "body.n: expected an integer of at most 64 bits, found one of 64 bits"),
        ({1: "one"}, "body: keys must be text, found 1"),
        ({"a": {None: 1}}, "body.a: keys must be text, found None"),
        ({"t": (1, 2)}, "body.t: expected a JSON value (dict, list, str, int, float, bool, None), found tuple"),
        ({"t": {1, 2}}, "body.t: expected a JSON value"),
        ([datetime.datetime.now(datetime.UTC)], "body[0]: expected a JSON value"),
        ([Color.RED], "body[0]: expected a JSON value"),
        ([collections.Counter()], "body[0]: expected a JSON value"),
        ({"b": b"x"}, "body.b: bytes inside a structure need a queue with codec: msgpack"),
        (deep(129), "body: nested deeper than 128 levels"),
        (circle(), "body: nested deeper than 128 levels"),
        ({"s": "\ud800"}, "body: cannot be encoded as json"),
    ],
)
def test_what_cannot_travel_is_refused_and_named(body: Any, what: str) -> None:
    with pytest.raises(Invalid) as caught:
        encode_body(body, "json")
    assert what in str(caught.value)


def test_128_levels_travel() -> None:
    assert through(deep(128), "json") == deep(128)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        *(("json", body) for body in (b"", b"{", b"\xc1", b'{"a":', b"[" * 100_000, b"1 2")),
        *(("msgpack", body) for body in (b"", b"\xc1", b"\x81\xa1", b"\x91" * 100_000, b"\xa1\xff", b"\x01\x02")),
    ],
)
def test_bytes_that_are_no_such_body_are_invalid(body: bytes, encoding: Encoding) -> None:
    with pytest.raises(Invalid, match="message m-1: the body is no"):
        decode_body(message(body=body, encoding=encoding))
