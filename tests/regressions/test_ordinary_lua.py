"""Lua that anybody would write, and that did not run: found by writing handlers as users do, clause by clause."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.integration.test_engine import consumer, engine_of, lua
from tests.support import DEADLINE
from tests.unit.lua.support import call
from wippy_queue import ConfigurationError, WippyQueueError


def test_a_function_of_a_module_gives_as_many_values_as_it_says() -> None:
    """`table.insert(ids, uuid.v4())` raised: there were three more values, all nil."""
    body = """
    local ids = {}
    table.insert(ids, uuid.v4())
    table.insert(ids, base64.encode("x"))
    return {select("#", uuid.v4()), select("#", hash.md5("x")), select("#", hash.md5(nil)), #ids}
    """
    assert call(body, modules=("uuid", "base64", "hash")) == [1, 1, 2, 2]


@pytest.mark.parametrize(
    "text", ["how to fix a stack overflow in C", "stack overflow and more", "see error in error handling"]
)
def test_an_error_may_have_the_words_of_an_overflow(text: str) -> None:
    assert call(f"local ok, why = pcall(error, '{text}', 0) return {{ok, why}}") == [False, text]


def test_a_real_overflow_still_ends_the_call() -> None:
    with pytest.raises(WippyQueueError, match="stack overflow"):
        call("local function f() return pcall(pcall, f) end pcall(f) return 1")


@pytest.mark.parametrize("fault", ["e.x.y", "error('b')", "error({'b'})"])
def test_an_error_in_the_handler_of_xpcall_is_given_back(fault: str) -> None:
    body = f"local function handler(e) local _ = {fault} end return {{xpcall(error, handler, 'a')}}"
    ok, why = call(body)
    assert not ok
    assert why


def test_an_error_of_a_function_in_tail_position_names_the_function() -> None:
    with pytest.raises(WippyQueueError, match="bad argument #2 to 'format'"):
        call("return string.format('%d', nil)")


def test_table_insert_without_a_value_is_an_error() -> None:
    with pytest.raises(WippyQueueError, match="wrong number of arguments to 'insert'"):
        call("table.insert({})")


def test_a_date_has_no_use_for_the_fraction_of_a_second() -> None:
    assert call("return os.date('!%Y-%m-%d', 1700000000999 / 1000)") == "2023-11-14"


@pytest.mark.parametrize("alias", ["my lib", "", " x"])
def test_an_alias_is_one_word(alias: str) -> None:
    library: dict[str, Any] = {"name": "lib", "kind": "library.lua", "source": "return {}"}
    with pytest.raises(ConfigurationError, match="expected an alias without blanks"):
        engine_of(library, lua("handler", "return function() end", imports={alias: "lib"}))


def test_a_nack_that_is_refused_is_no_failed_handler(caplog: pytest.LogCaptureFixture) -> None:
    source = "local queue = require('queue') return function() local m = queue.message() m:ack() m:nack() m:nack() end"
    with engine_of(lua("handler", source, modules=["queue"]), consumer()) as engine, caplog.at_level(logging.WARNING):
        engine.publish("app:tasks", 1)
        engine.join("app:tasks", timeout=DEADLINE)
    assert not caplog.records


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        ("error({code = 5, message = 'no stock'})", "no stock"),
        ("error({code = 5})", "error object is a table value"),
        ("return nil, ''", "the handler failed with an empty text as its error"),
        ("return nil, errors.new{message = 'm', kind = errors.INVALID}:kind(errors.INVALID)", "Invalid"),
    ],
)
def test_what_a_handler_makes_an_error_of_can_be_read(failure: str, text: str) -> None:
    with pytest.raises(WippyQueueError) as caught:
        call(failure)
    assert caught.value.message == text


@pytest.mark.parametrize("name", ["noname", "", ":x", "app:"])
def test_the_id_of_a_function_has_a_namespace(name: str) -> None:
    assert call(f"local _, err = funcs.call('{name}') return err:kind()", modules=("funcs",)) == "Invalid"
