"""json.lua against Python's own decoder, and the table semantics that handlers see."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .harness import Lua

LUA = Lua()
RECODE = LUA.function("local v, e = json.decode((...)) if e then return nil, e end return json.encode(v)")

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(-200, 20000)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=6), inner, max_size=5),
    max_leaves=12,
)


def recode(text: str | bytes) -> tuple[str | None, str | None]:
    """Decode and encode in Lua; return the text, or None and the message."""
    data = text.encode() if isinstance(text, str) else text
    result = RECODE(data)
    if isinstance(result, tuple):
        return result
    return result.encode("latin-1").decode(), None


def fault(text: str | bytes) -> str:
    result, message = recode(text)
    assert result is None and message is not None, f"{text!r} was taken as {result}"
    return message


def lua(code: str) -> Any:
    return LUA.run(code)


def without_nulls(value: Any) -> Any:
    """A member that is null is no member in Lua; an item that is null stays."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def same(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@settings(max_examples=250)
@given(json_values, st.booleans(), st.sampled_from([None, 1]))
def test_any_json_value_round_trips(value: Any, ascii_only: bool, indent: int | None) -> None:
    text, message = recode(json.dumps(value, ensure_ascii=ascii_only, indent=indent))
    assert message is None
    assert text is not None
    assert same(json.loads(text)) == same(without_nulls(value))


class _NotStrictError(ValueError):
    pass


def strict(data: bytes) -> Any:
    """Python's decoder without NaN, infinite floats and lone surrogates; integers beyond 64 bits are floats."""

    def refuse(text: str) -> Any:
        raise _NotStrictError(text)

    def number(text: str) -> float:
        value = float(text)
        return value if math.isfinite(value) else refuse(text)

    def integer(text: str) -> int | float:
        return int(text) if -(2**63) <= int(text) < 2**63 else number(text)

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        json.dumps(pairs, ensure_ascii=False).encode()
        return dict(pairs)

    value = json.loads(
        data.decode(), parse_constant=refuse, parse_float=number, parse_int=integer, object_pairs_hook=members
    )
    json.dumps(value, ensure_ascii=False).encode()
    return value


@st.composite
def damaged_json(draw: st.DrawFn) -> bytes:
    data = bytearray(json.dumps(draw(json_values), ensure_ascii=draw(st.booleans())).encode())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from(
                [b"", b'"', b",", b":", b"[", b"]", b"{", b"}", b"\\", b"0", b"-", b".", b"e", b"\n", b"\x01"]
            )
            | st.binary(max_size=2)
        )
    return bytes(data)


json_noise = st.text('{}[]",:0123456789.eE+-truefalsn\\ud8c \n\t\x01é', max_size=14).map(str.encode)


@settings(max_examples=500)
@given(damaged_json() | json_noise)
def test_a_text_is_refused_exactly_when_a_strict_decoder_refuses_it(data: bytes) -> None:
    try:
        value = strict(data)
    except (ValueError, RecursionError):
        assert "at byte" in fault(data)
        return
    text, message = recode(data)
    assert message is None
    assert text is not None
    assert same(json.loads(text)) == same(without_nulls(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unexpected end of the text at byte 1"),
        ("  ", "unexpected end of the text at byte 3"),
        ('{"a":1,}', "expected a key in quotes at byte 8"),
        ("[1,]", "unexpected ']' at byte 4"),
        ("[1 2]", "expected ',' or ']' in an array at byte 4"),
        ('{"a":1 "b":2}', "expected ',' or '}' in an object at byte 8"),
        ('{"a" 1}', "expected ':' behind a key at byte 6"),
        ("[01]", "bad number at byte 2"),
        ("-", "bad number at byte 1"),
        ("1.", "bad number at byte 1"),
        ("[-.5]", "bad number at byte 2"),
        ("1e999", "number out of range at byte 1"),
        ("nul", "expected 'null' at byte 1"),
        ("[1] x", "unexpected text behind the value at byte 5"),
        ('["a\nb"]', "control character in a string at byte 4"),
        ('["a', "unterminated string at byte 2"),
        ('"\\', "unterminated string at byte 1"),
        (r'["\x"]', "bad escape in the string at byte 2"),
        (r'["\u12"]', "bad escape in the string at byte 2"),
        (r'"\ud800"', "lone surrogate in the string at byte 1"),
        (r'"\udc00"', "lone surrogate in the string at byte 1"),
        (r'"\ud800\ud800"', "lone surrogate in the string at byte 1"),
        (r'"\ud800x\udc00"', "lone surrogate in the string at byte 1"),
        (r'"\ud800\u0041\udc00"', "lone surrogate in the string at byte 1"),
        (r'"\ud800\n\udc00"', "lone surrogate in the string at byte 1"),
        (b'["\xff"]', "invalid UTF-8 at byte 3"),
        ("NaN", "unexpected 'N' at byte 1"),
    ],
)
def test_a_fault_is_named_with_its_byte(text: str | bytes, message: str) -> None:
    assert fault(text) == message


def test_128_levels_are_taken_and_129_refused_in_both_directions() -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        innermost = "" if opening == "[" else "1"
        assert recode(opening * 128 + innermost + closing * 128)[1] is None
        assert "128 levels at byte" in fault(opening * 129 + innermost + closing * 129)
        assert "128 levels" in fault(opening * 100_000)  # no stack to overflow
    deep = "local t = {} for _ = 2, %d do t = {t} end return json.encode(t)"
    assert lua(deep % 128) == "[" * 128 + "]" * 128
    assert "nested deeper than 128 levels" in lua(deep % 129)[1]


def test_a_table_that_contains_itself_is_refused() -> None:
    assert "contains itself" in lua("local t = {} t.me = t return json.encode(t)")[1]


def test_integers_stay_integers_and_beyond_64_bits_become_floats() -> None:
    assert recode("[9223372036854775807,-9223372036854775808,9007199254740993,-0]")[0] == (
        "[9223372036854775807,-9223372036854775808,9007199254740993,0]"
    )
    assert recode("9223372036854775808")[0] == "9.223372036854776e+18"


def test_floats_stay_floats_in_their_shortest_form() -> None:
    text = lua("return json.encode({1.0, -0.0, 3.14, 0.1, 0.1 + 0.2, 1e300, 1/0, -1/0, 0/0, 2^53})")
    assert text == "[1.0,-0.0,3.14,0.1,0.30000000000000004,1e+300,null,null,null,9007199254740992.0]"


def test_the_last_of_two_members_of_one_name_wins() -> None:
    assert recode('{"a":1,"a":2}')[0] == '{"a":2}'
    assert recode('{"a":1,"a":null}')[0] == "{}"


def test_empty_objects_and_empty_arrays_stay_what_they_were() -> None:
    assert recode('[{},[],{"a":null}]')[0] == "[{},[],{}]"
    assert lua("return json.encode({})") == "[]"
    assert lua("local t = json.decode('{}') t.a = 1 return json.encode(t)") == '{"a":1}'
    assert lua("local t = json.decode('{}') t[1] = 'x' return json.encode(t)") == '["x"]'


def test_an_array_with_nulls_counts_them_and_gives_them_back() -> None:
    assert lua("local t = json.decode('[null,1,null]') return #t, t[1], t[2], json.encode(t)") == (
        3,
        None,
        1,
        "[null,1,null]",
    )
    assert lua("local t = json.decode('[null]') t[#t + 1] = 'x' t[#t + 1] = 'y' return #t, json.encode(t)") == (
        3,
        '[null,"x","y"]',
    )
    assert lua("local t = json.decode('[null]') t.a = 1 return json.encode(t)")[0] is None
    assert lua("local t = json.decode('[null]') t[5] = 1 return json.encode(t)")[0] is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("json.array_insert(t, 4)", "[1,null,3,null,4]"),
        ("json.array_insert(t, nil)", "[1,null,3,null,null]"),
        ("json.array_insert(t, 1, 0)", "[0,1,null,3,null]"),
        ("assert(json.array_remove(t) == nil)", "[1,null,3]"),
        ("assert(json.array_remove(t, 1) == 1)", "[null,3,null]"),
        ("assert(json.array_remove(t, 2) == nil)", "[1,3,null]"),
        ("assert(json.array_remove(t, 5) == nil)", "[1,null,3,null]"),
        ("for _ = 1, 6 do json.array_remove(t) end", "[]"),
        ("assert(not pcall(json.array_insert, t, 7, 1)) assert(not pcall(json.array_insert, t))", "[1,null,3,null]"),
        ("assert(not pcall(json.array_remove, t, 6))", "[1,null,3,null]"),
    ],
)
def test_inserting_and_removing_keeps_the_length_right(change: str, text: str) -> None:
    assert lua(f"local t = json.decode('[1,null,3,null]') {change} return json.encode(t)") == text


def test_markers_are_recognised_and_hidden() -> None:
    assert lua(
        """local mt = debug.getmetatable
        local object, array = json.decode('{}'), json.decode('[null]')
        return json.is_marker(mt(object)), json.is_marker(mt(array)),
          json.is_array_mt(mt(object)), json.is_array_mt(mt(array)),
          json.is_marker(nil), json.is_marker({}), getmetatable(object), getmetatable(array)"""
    ) == (True, True, False, True, False, False, False, False)


def test_an_array_filled_in_any_order_is_an_array() -> None:
    assert lua("local t = {} for i = 5, 1, -1 do t[i] = i end return json.encode(t)") == "[1,2,3,4,5]"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{items = {{call = print}}}", "value.items[1].call: cannot encode a function"),
        ("coroutine.create(print)", "value: cannot encode a thread"),
        ("{1, 2, nil, 4}", "value: an array has gaps: 3 values, the last at 4"),
        ("{a = {1, x = 2}}", "value.a: a table has both text keys and others"),
        ("{[1.5] = 1}", "value: keys must be text or the positions 1..n, found 1.5 (float)"),
        ("{[0] = 1}", "value: keys must be text or the positions 1..n, found 0 (integer)"),
        ("{[true] = 1}", "found true (boolean)"),
        ("{a = {'\\255'}}", "value.a[1]: the text is not valid UTF-8; use a queue with codec: msgpack"),
        ("{['\\255'] = 1}", "value: a key is not valid UTF-8"),
        ("{a = special}", "value.a: cannot encode a message"),
    ],
)
def test_what_has_no_form_in_json_is_refused_with_its_place(value: str, message: str) -> None:
    result = lua(
        "local mt = {} json.opaque[mt] = 'message' local special = setmetatable({}, mt) return json.encode("
        + value
        + ")"
    )
    assert result[0] is None
    assert message in result[1]


def test_texts_with_every_byte_and_escape_round_trip() -> None:
    text = "".join(map(chr, range(0x80))) + "é한😀\u2028\ufeff"
    for ascii_only in (True, False):
        again, _ = recode(json.dumps([text, {text: text}], ensure_ascii=ascii_only))
        assert again is not None
        assert json.loads(again) == [text, {text: text}]


def test_null_inside_can_be_told_from_absence() -> None:
    assert lua("local N = {} local t = json.decode('{\"a\":null}', N) return t.a == N, t.b == nil") == (True, True)
    assert lua("local t = json.decode('{\"a\":null}') return t.a") is None


def test_long_texts_take_time_in_proportion() -> None:
    """The time limit of the whole test run is the assertion: each of these was quadratic in some decoder."""
    for text in ('"' + "\\n" * 500_000 + '"', '"' + "\\u00e9" * 200_000 + '"', "[" + " " * 1_000_000 + "]"):
        assert recode(text)[1] is None
    for text in ('"' + "\\" * 1_000_000, "[" + "1" * 300_000 + "e9999999999]", '{"' + "a" * 1_000_000, "[" * 1_000_000):
        assert recode(text)[0] is None
