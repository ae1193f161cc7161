"""Time and memory limits, and the kill: nothing that a handler does gets round them."""

from __future__ import annotations

import math
import threading
import time

import pytest

from tests.unit.lua.support import make_delivery, make_function, make_host, make_worker
from wippy_queue.errors import Canceled, Internal, Kind, Timeout
from wippy_queue.lua.handler import LuaSession
from wippy_queue.lua.limits import HookMode, Watchdog

ENDLESS = {
    "a loop": "while true do end",
    "a loop of calls": "local function f() end while true do f() end",
    "tail calls": "local function f() return f() end f()",
    "pcall": "while true do pcall(function() while true do end end) end",
    "xpcall's handler": "while true do xpcall(error, function() while true do end end) end",
    "a coroutine": "while true do coroutine.wrap(function() while true do end end)() end",
    "a resumed coroutine": "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
    "nested coroutines": """
        local function nest(n)
          if n == 0 then while true do end end
          return pcall(coroutine.wrap(function() nest(n - 1) end))
        end
        while true do nest(20) end""",
    "a generator": """
        local co = coroutine.wrap(function() while true do coroutine.yield() end end)
        while true do co() end""",
    "more coroutines than are followed": """
        local all = {}
        for i = 1, 100 do all[i] = coroutine.wrap(function() while true do
          for _ = 1, 2000 do end
          coroutine.yield()
        end end) end
        while true do for i = 1, 100 do all[i]() end end""",
    "a coroutine that is closed": """
        while true do
          local co = coroutine.create(function()
            local guard <close> = setmetatable({}, {__close = function() while true do end end})
            coroutine.yield()
          end)
          coroutine.resume(co)
          coroutine.close(co)
        end""",
    "a comparison": "while true do pcall(table.sort, {3, 2, 1}, function() while true do end end) end",
    "a callback of gsub": "while true do ('x'):gsub('.', function() while true do end end) end",
    "a callback of gsub that is C": "while true do ('%p'):rep(6000000):gsub('..', os.date) end",
    "tostring": "local t = setmetatable({}, {__tostring = function() while true do end end}) tostring(t)",
    "an error that is slow to print": "error(setmetatable({}, {__tostring = function() while true do end end}))",
    "a value that is closed": """
        local guard <close> = setmetatable({}, {__close = function() while true do end end})
        error('x')""",
    "concatenation": "local s = '' while true do s = ('x'):rep(1000) .. #s end",
}  # fmt: skip


def kill_when(running: threading.Event, session: LuaSession) -> None:
    assert running.wait(5)
    session.kill()


@pytest.mark.parametrize("hook_mode", ["async", "count"])
@pytest.mark.parametrize("attack", ENDLESS)
def test_the_time_limit_ends(attack: str, hook_mode: HookMode) -> None:
    function = make_function(
        f"return function() {ENDLESS[attack]} end", timeout=0.05, host=make_host(hook_mode=hook_mode)
    )
    began = time.monotonic()
    outcome = function.open(make_worker()).handle([make_delivery()])[0]
    assert isinstance(outcome.error, Timeout)
    assert "exceeded its time limit of 0.05 s" in outcome.error.message
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("hook_mode", ["async", "count"])
def test_a_coroutine_that_outlives_its_call_is_ended_in_the_next_one(hook_mode: HookMode) -> None:
    """While it was followed it had no hook of its own."""
    text = """
        local co = coroutine.create(function()
          for _ = 1, 100000 do end
          coroutine.yield()
          while true do end
        end)
        return function() coroutine.resume(co) end"""
    session = make_function(text, timeout=0.05, host=make_host(hook_mode=hook_mode)).open(make_worker())
    assert session.handle([make_delivery()])[0].ok
    assert isinstance(session.handle([make_delivery()])[0].error, Timeout)
    assert session.handle([make_delivery()])[0].ok, "a fresh runtime"


def test_a_loop_in_a_coroutine_has_no_count_hook_in_mode_async() -> None:
    """It would make each instruction twice as slow."""
    text = """
        local co = coroutine.wrap(function()
          while true do
            for _ = 1, 100000 do end
            coroutine.yield()
          end
        end)
        return function() for _ = 1, 10 do co() end end"""

    modes: tuple[HookMode, ...] = ("async", "off")
    sessions = {mode: make_function(text, host=make_host(hook_mode=mode)).open(make_worker()) for mode in modes}
    least = dict.fromkeys(sessions, math.inf)
    for _ in range(25):  # in turn, for a machine's speed changes
        for mode, session in sessions.items():
            began = time.thread_time()
            assert session.handle([make_delivery()])[0].ok
            least[mode] = min(least[mode], time.thread_time() - began)
    for session in sessions.values():
        session.close()
    assert least["async"] < 1.5 * least["off"]


@pytest.mark.parametrize("hook_mode", ["async", "count"])
@pytest.mark.parametrize(
    "recursion",
    [
        "local function f() pcall(f) f() end f()",
        "local function f() return pcall(pcall, f) end while true do f() end",
        """local t = setmetatable({}, {__index = function(t, k) return t[k + 1] end})
        while true do pcall(function() return t[1] end) end""",
        "local function f() return (('x'):gsub('x', f)) end while true do pcall(f) end",
    ],
)
def test_recursion_to_the_end_of_the_stack_cannot_be_swallowed(recursion: str, hook_mode: HookMode) -> None:
    function = make_function(f"return function() {recursion} end", timeout=0.5, host=make_host(hook_mode=hook_mode))
    session = function.open(make_worker())
    error = session.handle([make_delivery()])[0].error
    assert error is not None
    assert isinstance(error, Timeout) or "stack overflow" in error.message or "error in error handling" in error.message


def test_a_session_goes_on_after_the_time_limit() -> None:
    session = make_function(
        """return function(n)
          count = (count or 0) + 1
          if n == 0 then while true do end end
          return nil, tostring(count)
        end""",
        timeout=0.05,
    ).open(make_worker())
    assert isinstance(session.handle([make_delivery(b"0")])[0].error, Timeout)
    for expected in ("1", "2"):
        error = session.handle([make_delivery(b"1")])[0].error
        assert error is not None
        assert error.message == expected, "the runtime was replaced, and the new one stays"


def test_calls_that_keep_their_limit_are_left_alone() -> None:
    session = make_function("return function() for i = 1, 1000 do end end", timeout=1.5).open(make_worker())
    end = time.monotonic() + 2.0  # longer than the limit: deadlines of calls that have ended must not hit later ones
    while time.monotonic() < end:
        assert session.handle([make_delivery()])[0].ok


@pytest.mark.parametrize("hook_mode", ["async", "count"])
@pytest.mark.parametrize(
    "body", ["while true do end", "while true do pcall(coroutine.wrap(function() while true do end end)) end"]
)
def test_kill_ends_the_handler_that_runs(hook_mode: HookMode, body: str) -> None:
    running = threading.Event()
    host = make_host(hook_mode=hook_mode, modules={"test": {"running": running.set}})
    session = make_function(
        f"local test = require('test') return function(b) if b == 1 then return end test.running() {body} end",
        modules=("test",),
        host=host,
    ).open(make_worker())
    killer = threading.Thread(target=kill_when, args=(running, session))
    killer.start()
    error = session.handle([make_delivery()])[0].error
    killer.join()
    assert isinstance(error, Canceled)
    assert session.handle([make_delivery(b"1")])[0].ok
    session.close()
    session.kill()


def test_kill_is_harmless_when_nothing_runs() -> None:
    session = make_function("return function() end").open(make_worker())
    session.kill()
    assert session.handle([make_delivery()])[0].ok


def test_a_handler_that_swallows_everything_is_killed_by_many_killers() -> None:
    running = threading.Event()
    host = make_host(modules={"test": {"running": running.set}})
    session = make_function(
        "local test = require('test') return function() test.running() while true do pcall(error, 'x') end end",
        modules=("test",),
        host=host,
    ).open(make_worker())
    killers = [threading.Thread(target=kill_when, args=(running, session)) for _ in range(4)]
    for killer in killers:
        killer.start()
    assert isinstance(session.handle([make_delivery()])[0].error, Canceled)
    for killer in killers:
        killer.join()


@pytest.mark.parametrize(
    "flood",
    [
        "local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end",
        "local s = 'x' while true do s = s .. s end",
        "local t = {} for i = 1, 1e9 do t[i] = i end",
        "local t = {} while true do t[#t + 1] = coroutine.create(function() end) end",
        "return ('x'):rep(60 * 1024 * 1024)",
        "return ('x'):rep(1024 * 1024):gsub('x', ('y'):rep(100))",
        "local s = ('x'):rep(1024 * 1024) return table.concat({s, s, s, s, s, s, s, s, s})",
    ],
)
def test_the_memory_limit_ends(flood: str) -> None:
    session = make_function(
        f"return function(b) if b == 1 then return end {flood} end", memory_limit=8 << 20, timeout=20
    ).open(make_worker())
    error = session.handle([make_delivery()])[0].error
    assert isinstance(error, Internal)
    assert error.message == "app:handler: the handler exceeded its memory limit of 8 MiB"
    assert session.handle([make_delivery(b"1")])[0].ok


def test_a_handler_may_survive_its_own_lack_of_memory() -> None:
    text = "return function() local ok, why = pcall(string.rep, 'x', 30 * 1024 * 1024) return nil, tostring(why) end"
    outcome = make_function(text, memory_limit=8 << 20).open(make_worker()).handle([make_delivery()])[0]
    assert outcome.error is not None
    assert outcome.error.message == "not enough memory"


def test_a_result_of_python_that_does_not_fit_is_a_lack_of_memory_and_no_crash() -> None:
    host = make_host(modules={"big": {"text": lambda: "x" * (20 << 20)}})
    text = "local big = require('big') return function() local all = {} for i = 1, 9 do all[i] = big.text() end end"
    outcome = (
        make_function(text, modules=("big",), host=host, memory_limit=8 << 20)
        .open(make_worker())
        .handle([make_delivery()])[0]
    )
    assert outcome.error is not None
    assert "memory limit" in outcome.error.message


def test_a_body_larger_than_the_memory_limit_is_refused_and_no_crash() -> None:
    session = make_function("return function(b) return b .. b .. b end", memory_limit=1 << 20).open(make_worker())
    outcome = session.handle([make_delivery(b"x" * (3 << 20), "binary")])[0]
    assert outcome.error is not None
    assert "memory limit of 1 MiB" in outcome.error.message


def test_what_handlers_leave_behind_spoils_the_runtime_in_the_end() -> None:
    text = "kept = {} return function() kept[#kept + 1] = ('x'):rep(300000) .. #kept return nil, tostring(#kept) end"
    session = make_function(text, memory_limit=1 << 20).open(make_worker())
    counts = [
        int(error.message) for _ in range(12) if (error := session.handle([make_delivery()])[0].error) is not None
    ]
    assert max(counts) < 8, "a leak is cut off by a fresh runtime"
    assert counts[0] == 1


def test_runtimes_are_replaced_after_so_many_calls() -> None:
    text = "count = 0 return function() count = count + 1 return nil, tostring(count) end"
    session = make_function(text, host=make_host(recycle_after=3)).open(make_worker())
    errors = [session.handle([make_delivery()])[0].error for _ in range(7)]
    assert [error.message for error in errors if error] == ["1", "2", "3", "1", "2", "3", "1"]


def test_a_chunk_that_never_ends_is_ended_while_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wippy_queue.lua.handler._LOAD_TIMEOUT", 0.05)
    with pytest.raises(Timeout):
        make_function("while true do end").open(make_worker())


def test_a_blocking_python_function_sees_the_deadline_and_the_call_ends() -> None:
    cancel = threading.Event()
    host = make_host(modules={"slow": {"wait": lambda: cancel.wait(0.2)}})
    text = "local slow = require('slow') return function() while true do slow.wait() end end"
    for hook_mode in ("async", "count", "off"):
        host.hook_mode = hook_mode
        outcome = (
            make_function(text, modules=("slow",), host=host, timeout=0.05)
            .open(make_worker())
            .handle([make_delivery()])[0]
        )
        assert outcome.error is not None
        assert outcome.error.kind is Kind.TIMEOUT


def test_the_watchdog_looks_at_the_time_that_was_asked_for_and_again_if_told_so() -> None:
    class Target:
        def __init__(self, again: float | None) -> None:
            self.again = again
            self.looked: list[float] = []
            self.done = threading.Event()

        def overdue(self, at: float, now: float) -> float | None:
            self.looked.append(now)
            if len(self.looked) == 2 or self.again is None:
                self.done.set()
                return None
            return now + self.again

    watchdog = Watchdog()
    now = time.monotonic()
    late, early = Target(None), Target(0.02)
    watchdog.watch(late, now + 0.1)
    watchdog.watch(early, now + 0.01)
    assert late.done.wait(5)
    assert early.done.wait(5)
    assert early.looked[0] >= now + 0.01
    assert early.looked[1] >= early.looked[0] + 0.02
    assert late.looked[0] >= now + 0.1


def test_the_collector_works_behind_a_message_not_in_the_next_one() -> None:
    """Lua's own turns begin when half as much again is in use; ours come before that."""
    session = make_function("return function(body) local t = {body, body} end").open(make_worker())
    assert isinstance(session, LuaSession)
    used = []
    for _ in range(2000):
        assert session.handle([make_delivery()])[0].ok
        used.append(session._runtime._lua.get_memory_used())
    assert max(used[500:]) < 1.45 * min(used[500:])
