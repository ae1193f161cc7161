"""msgpack.lua against msgspec, which is what Python handlers and publishers use."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .harness import Lua

LUA = Lua()
RECODE = LUA.function("local v, e = msgpack.decode((...)) if e then return nil, e end return msgpack.encode(v)")
TO_JSON = LUA.function("local v, e = msgpack.decode((...)) if e then return nil, e end return json.encode(v)")

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from(
        [sign * 2**bits + d for bits in (5, 7, 8, 15, 16, 31, 32, 62) for sign in (1, -1) for d in (-1, 0, 1)]
    )
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=18) | st.dictionaries(st.text(max_size=6), inner, max_size=18),
    max_leaves=15,
)


def recode(data: bytes) -> tuple[bytes | None, str | None]:
    result = RECODE(data)
    return result if isinstance(result, tuple) else (result.encode("latin-1"), None)


def as_lua_has_it(value: Any) -> Any:
    """Null members are gone, infinite floats are null, and bytes that happen to be text are text."""
    if isinstance(value, dict):
        return {key: as_lua_has_it(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [as_lua_has_it(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 2**63:
        return float(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    return value


def same(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


@settings(max_examples=300)
@given(values)
def test_any_value_round_trips_through_msgspec(value: Any) -> None:
    data, message = recode(msgspec.msgpack.encode(value))
    assert message is None
    assert data is not None
    assert same(msgspec.msgpack.decode(data)) == same(as_lua_has_it(value))


@settings(max_examples=150)
@given(values)
def test_what_lua_encodes_is_as_short_as_what_msgspec_encodes(value: Any) -> None:
    expected = as_lua_has_it(value)
    data, _ = recode(msgspec.msgpack.encode(expected))
    assert data is not None
    assert len(data) == len(msgspec.msgpack.encode(expected))


@pytest.mark.parametrize("bits", [0, 5, 7, 8, 15, 16, 31, 32, 62])
def test_integers_take_the_shortest_form_on_both_sides_of_every_width(bits: int) -> None:
    for value in (sign * 2**bits + offset for sign in (1, -1) for offset in (-1, 0, 1)):
        assert recode(b"\xd3" + value.to_bytes(8, "big", signed=True)) == (msgspec.msgpack.encode(value), None)


@settings(max_examples=100)
@given(values, st.data())
def test_every_truncated_message_is_refused(value: Any, data: st.DataObject) -> None:
    whole = msgspec.msgpack.encode(value)
    result, message = recode(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert result is None
    assert message is not None
    assert "unexpected end of the data at byte" in message or "invalid UTF-8" in message


@settings(max_examples=400)
@given(st.binary(max_size=40) | st.lists(st.sampled_from(range(0x80, 0x100)), max_size=12).map(bytes))
def test_random_bytes_are_refused_or_decoded_as_msgspec_decodes_them(data: bytes) -> None:
    result, message = recode(data)
    if message is not None:
        assert "at byte" in message
        return
    assert result is not None
    expected = as_lua_has_it(msgspec.msgpack.decode(data))
    assert same(msgspec.msgpack.decode(result)) == same(as_lua_has_it(expected))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "unexpected end of the data at byte 1"),
        (b"\x01\x02", "unexpected data behind the value at byte 2"),
        (b"\xc1", "unexpected byte 0xc1 at byte 1"),
        (b"\x91\xd4\x01\x00", "extension types are not supported at byte 2"),
        (b"\xc7\x01\x01\x00", "extension types are not supported at byte 1"),
        (b"\x81\x01\x02", "map keys must be text at byte 2"),
        (b"\x81\xc4\x01a\x02", "map keys must be text at byte 2"),
        (b"\xa2a\xff", "text with invalid UTF-8 at byte 3"),
        (b"\xdd\xff\xff\xff\xff\x01", "unexpected end of the data at byte 7"),
        (b"\xdb\xff\xff\xff\xff\x01", "unexpected end of the data at byte 7"),
    ],
)
def test_a_fault_is_named_with_its_byte(data: bytes, message: str) -> None:
    assert recode(data) == (None, message)


def test_integers_above_64_bits_signed_become_the_nearest_float() -> None:
    for value in (2**63, 2**63 + 1025, 2**64 - 1, 2**64 - 1024 - 1, 2**63 + 1024):
        data, _ = recode(msgspec.msgpack.encode(value))
        assert data is not None
        assert msgspec.msgpack.decode(data) == float(value)


def test_strings_are_text_when_they_can_be_and_bytes_otherwise() -> None:
    assert LUA.run("return msgpack.encode('é')").encode("latin-1") == msgspec.msgpack.encode("é")
    for size in (1, 255, 256, 65_536):
        data = LUA.run("return msgpack.encode(('\\255'):rep(...))", size).encode("latin-1")
        assert data == msgspec.msgpack.encode(b"\xff" * size)


def test_the_marks_of_empty_objects_and_of_nulls_are_those_of_json() -> None:
    assert TO_JSON(msgspec.msgpack.encode([{}, [], [None, 1, None], {"a": None}])) == "[{},[],[null,1,null],{}]"
    assert LUA.run("return msgpack.encode(json.decode('[{},[],[null]]'))").encode("latin-1") == msgspec.msgpack.encode(
        [{}, [], [None]]
    )


def test_128_levels_are_taken_and_129_refused_in_both_directions() -> None:
    for level in (b"\x91", b"\x81\xa1a"):
        assert recode(level * 128 + b"\x01")[1] is None
        assert "128 levels at byte" in (recode(level * 129 + b"\x01")[1] or "")
        assert "128 levels at byte" in (recode(level * 100_000)[1] or "")
    assert "contains itself" in LUA.run("local t = {} t[1] = t return msgpack.encode(t)")[1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{a = {print}}", "value.a[1]: cannot encode a function"),
        ("{1, nil, 3}", "value: an array has gaps: 2 values, the last at 3"),
        ("{a = {1, x = 2}}", "value.a: a table has both text keys and others"),
        ("{['\\255'] = 1}", "value: a key is not valid UTF-8"),
    ],
)
def test_what_has_no_form_is_refused_with_its_place(value: str, message: str) -> None:
    result = LUA.run(f"return msgpack.encode({value})")
    assert result[0] is None
    assert message in result[1]
