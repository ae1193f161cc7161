"""Holes that attacks have found, each closed: what is left here beside `tests/security`, which has the attacks."""

from __future__ import annotations

import logging
import math
import time

import pytest

from tests.unit.lua.support import call, make_delivery, make_function, make_host, make_worker
from wippy_queue.errors import Timeout, WippyQueueError
from wippy_queue.lua.limits import HookMode

MANY = "local t = {} for i = 1, 60000 do t[i] = i * 7919 % 60013 end"


def test_without_hooks_nothing_is_ended() -> None:
    """Neither after so many instructions in a coroutine, nor after a thousand million in the main thread."""
    body = "return coroutine.wrap(function() local n = 0 for i = 1, 100000 do n = n + 1 end return n end)()"
    assert call(body, host=make_host(hook_mode="off")) == 100000


def test_without_hooks_calls_that_take_their_time_are_not_ended_either() -> None:
    function = make_function(
        """return function()
          local t = {} for i = 1, 20000 do t[i] = i end
          for i = 1, 50 do table.concat(t) end
          return 1
        end""",
        host=make_host(hook_mode="off"),
        timeout=0.001,
    )
    assert function.call([]) == 1


def test_without_hooks_loops_cost_what_they_cost() -> None:
    modes: tuple[HookMode, ...] = ("off", "async")
    text = "return function() for i = 1, 1000000 do end end"
    functions = {mode: make_function(text, host=make_host(hook_mode=mode)) for mode in modes}
    least = dict.fromkeys(functions, math.inf)
    for _ in range(25):  # in turn, for a machine's speed changes
        for mode, function in functions.items():
            began = time.thread_time()
            function.call([])
            least[mode] = min(least[mode], time.thread_time() - began)
    assert least["off"] < 1.5 * least["async"] + 0.001


@pytest.mark.parametrize("code", ["table.sort(t)", "table.sort(t, function(a, b) return a < b end)"])
def test_long_sorts_sort(code: str) -> None:
    assert call(f"{MANY} {code} for i = 2, #t do assert(t[i - 1] <= t[i]) end return t[1]") == 1


def test_sorts_compare_with_functions_of_c_and_with_long_texts() -> None:
    body = """
    local a, b = ('a'):rep(1000000) .. '1', ('a'):rep(1000000) .. '2'
    local t = {} for i = 1, 100 do t[i] = i % 2 == 0 and a or b end
    table.sort(t)
    table.sort({1, 2}, rawequal)
    return t[50] == a and t[51] == b
    """
    assert call(body) is True
    with pytest.raises(WippyQueueError, match="invalid order function|attempt to compare"):
        call("table.sort({3, {}, 1})")


def test_table_functions_take_what_lua_takes() -> None:
    body = """
    local t = {1, 2, 3}
    table.insert(t, 1, 0) table.insert(t, '2', 9) table.insert(t, 4.0, 8)
    local removed = {table.remove(t), table.remove(t, 1), table.remove(t, '1'), table.remove({})}
    return {table.concat(t, ','), removed, table.concat({1, 2, 3}, ' ', 2), table.concat({1, 2, 3}, nil, 2, 3),
      table.concat(table.move({1, 2}, 1, '2', 2.0), '-')}
    """
    assert call(body) == ["1,8,2", [3, 0, 9], "2 3", "23", "1-1-2"]


def test_garbage_makes_room_for_the_results_of_python() -> None:
    host = make_host(modules={"big": {"text": lambda: "x" * 1_000_000}})
    text = "local big = require('big') return function() for i = 1, 100 do assert(#big.text() == 1000000) end end"
    session = make_function(text, modules=("big",), host=host, memory_limit=4 << 20).open(make_worker())
    assert session.handle([make_delivery()])[0].ok


def test_garbage_makes_room_in_a_coroutine_too() -> None:
    host = make_host(modules={"big": {"text": lambda: "x" * 1_000_000}})
    text = """local big = require('big')
    return function() coroutine.wrap(function() for i = 1, 100 do assert(#big.text() == 1000000) end end)() end"""
    session = make_function(text, modules=("big",), host=host, memory_limit=4 << 20).open(make_worker())
    assert session.handle([make_delivery()])[0].ok


def test_metatables_that_replace_others_are_let_go_in_the_end() -> None:
    """They are held for a while, for the sake of a fault in Lua's collector; not for ever."""
    body = "local t = setmetatable({}, {}) for i = 1, 25000 do setmetatable(t, {x = ('x'):rep(1000) .. i}) end"
    session = make_function(f"return function() {body} end", memory_limit=20 << 20).open(make_worker())
    assert session.handle([make_delivery()])[0].ok


def test_an_overflow_of_the_stack_is_the_error_even_when_closing_raises_another() -> None:
    body = """
    local function f() local g <close> = setmetatable({}, {__close = function() error('other') end}) pcall(f) f() end
    return pcall(f)"""
    with pytest.raises(WippyQueueError, match="stack overflow"):
        call(body)


def test_a_session_goes_on_after_an_overflow_of_the_stack() -> None:
    text = """local function f() pcall(f) return f() end
    return function(n) if n == 1 then f() end assert(not pcall(error)) end"""
    session = make_function(text).open(make_worker())
    error = session.handle([make_delivery(b"1")])[0].error
    assert error is not None
    assert "stack overflow" in error.message
    assert session.handle([make_delivery(b"2")])[0].ok


def test_a_long_message_of_an_error_is_cut() -> None:
    for raised in (
        "error(('x'):rep(1000000))",
        "error(errors.new(('x'):rep(1000000)))",
        "return nil, ('x'):rep(1000000)",
    ):
        with pytest.raises(WippyQueueError) as caught:
            call(raised)
        assert 16_000 < len(caught.value.message) < 17_000


def test_long_logs_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    call("logger:info(('x'):rep(1000000), {text = ('y'):rep(1000000)})", modules=("logger",))
    (record,) = [record for record in caplog.records if record.name.startswith("wippy_queue.app")]
    assert len(record.getMessage()) == 65_539
    assert record.__dict__["fields"]["dropped"] == "fields of 1000011 bytes"


def test_a_function_gets_so_many_loggers_and_names_of_a_certain_length() -> None:
    call(
        """for i = 1, 500 do logger:named('flood' .. i):info('x') end
        local named, err = logger:named(('x'):rep(201))
        assert(not named and err:kind() == 'Invalid')""",
        modules=("logger",),
    )
    names = [name for name in logging.root.manager.loggerDict if ".flood" in name]
    assert len(names) == 100


@pytest.mark.parametrize("hook_mode", ["async", "count"])
@pytest.mark.parametrize("wrap", ["{}", "coroutine.wrap(function() {} end)()"])
def test_large_strings_do_not_put_the_end_off(wrap: str, hook_mode: HookMode) -> None:
    """Each instruction takes milliseconds here, so that a thousand of them are too many to wait for."""
    body = wrap.format("while true do local s = ('x'):rep(20000000) end")
    function = make_function(f"return function() {body} end", timeout=0.05, host=make_host(hook_mode=hook_mode))
    began = time.monotonic()
    assert isinstance(function.open(make_worker()).handle([make_delivery()])[0].error, Timeout)
    assert time.monotonic() - began < 2
