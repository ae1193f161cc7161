"""The Lua module `base64`."""

from __future__ import annotations

import base64
import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wippy_queue.errors import Kind, WippyQueueError
from wippy_queue.lua.handler import LuaFunction

from .support import call, make_function


@functools.cache
def both() -> LuaFunction:
    return make_function(
        """local base64 = require('base64')
        return function(data)
          local text = base64.encode(data)
          return {text, base64.decode(text) == data}
        end""",
        modules=("base64",),
    )


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_any_bytes_round_trip_and_look_as_everywhere(data: bytes) -> None:
    assert both().call((data,)) == [base64.b64encode(data).decode(), True]


def test_line_breaks_are_passed_over_and_empty_is_empty() -> None:
    assert call("return base64.decode('SGVs\\r\\nbG8=\\n')", modules=("base64",)) == "Hello"
    assert call("return base64.decode('')", modules=("base64",)) == ""


@pytest.mark.parametrize(
    "expression",
    [
        *(f"decode('{text}')" for text in ("SGVsbG8", "SGVsbG8==", "=SGV", "SGV sbG8=", "SG-_", "SGVsbG8=x", "é")),
        *(f"{name}({value})" for name in ("encode", "decode") for value in ("5", "nil", "{}")),
    ],
)
def test_what_cannot_be_converted_is_invalid(expression: str) -> None:
    with pytest.raises(WippyQueueError, match=rf"base64\.{expression[:6]}: ") as caught:
        call(f"return base64.{expression}", modules=("base64",))
    assert caught.value.kind is Kind.INVALID
