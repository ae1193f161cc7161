"""The `funcs` and `ctx` modules: calls of other functions, what they inherit, and how they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import DEADLINE
from tests.unit.lua.support import make_delivery, make_host, make_worker
from wippy_queue.access import Actor, Scope, SecurityContext, acting
from wippy_queue.errors import Canceled, Invalid, Kind, NotFound, PermissionDenied, Timeout, WippyQueueError
from wippy_queue.handler import Outcome
from wippy_queue.handlers import PythonFunction
from wippy_queue.ids import EntryId
from wippy_queue.lua.handler import LuaFunction, LuaSession
from wippy_queue.lua.host import Host, Source
from wippy_queue.lua.modules.funcs import MAX_DEPTH
from wippy_queue.lua.runtime import KILLED, Runtime
from wippy_queue.security import DeclaredPolicy, Guard

MODULES = ("funcs", "ctx", "security", "time")
HEAD = "".join(f'local {name} = require("{name}")\n' for name in MODULES)


class Functions:
    """Functions in Lua and Python that may call one another."""

    def __init__(self, guard: Guard | None = None, **python: Callable[..., Any]) -> None:
        self._functions: dict[str, Any] = {
            f"app:{name}": PythonFunction(EntryId(f"app:{name}"), function) for name, function in python.items()
        }
        settings: dict[str, Any] = {} if guard is None else {"access": guard}
        self.host: Host = make_host(function=self._find, **settings)

    def _find(self, function_id: str) -> Any:
        if function_id not in self._functions:
            raise NotFound(f"no function {function_id!r} is declared")
        return self._functions[function_id]

    def add(self, name: str, body: str, *, timeout: float | None = None, head: str = "") -> LuaFunction:
        text = f"{HEAD}{head}return function(...)\n{body}\nend"
        source = Source(id=EntryId(f"app:{name}"), text=text, name=f"{name}.lua", modules=MODULES)
        function = self._functions[source.id] = LuaFunction(source, self.host, timeout)
        return function

    def run(self, body: str, *arguments: Any, **settings: Any) -> Any:
        return self.add("main", body).call(arguments, **settings)


def allowing(*actions: str, resources: tuple[str, ...] = ("*",), name: str = "policy") -> DeclaredPolicy:
    return DeclaredPolicy(id=EntryId(f"app:{name}"), actions=actions, resources=resources, effect="allow")


def test_arguments_and_the_first_result_are_plain_data() -> None:
    functions = Functions()
    functions.add("echo", "return {count = select('#', ...), first = (...), last = select(-1, ...)}, 7")
    seen = functions.run("return funcs.call('app:echo', 'a\\0', nil, {x = {1, 2.5, true}})")
    assert seen == {"count": 3, "first": "a\0", "last": {"x": [1, 2.5, True]}}
    assert functions.run("return funcs.call('app:echo', '\\xff')")["first"] == b"\xff"


def test_many_arguments_pass() -> None:
    functions = Functions(total=lambda *numbers: sum(numbers))
    functions.add("count", "return select('#', ...)")
    body = "local list = {} for i = 1, 200 do list[i] = i end return funcs.call(..., table.unpack(list))"
    assert functions.run(body, "app:count") == 200
    assert functions.run(body, "app:total") == 20100
    with pytest.raises(Invalid, match="more than 200 arguments"):
        functions.run(body.replace("200", "201"), "app:count")


@pytest.mark.parametrize("value", ["false", "nil", "0", "''", "{}"])
def test_any_first_value_is_a_result(value: str) -> None:
    functions = Functions(no=lambda: False)
    functions.add("give", f"return {value}")
    assert functions.run("local v, err = funcs.call('app:give'); return {err == nil, type(v)}") == [
        True,
        {"false": "boolean", "nil": "nil", "0": "number", "''": "string", "{}": "table"}[value],
    ]
    assert functions.run("local v, err = funcs.call('app:no'); return {v, err == nil}") == [False, True]


@pytest.mark.parametrize(
    "body",
    [
        "return nil, errors.new{message = 'sold out', kind = 'Conflict', retryable = true, details = {left = 0}}",
        "error(errors.new{message = 'sold out', kind = 'Conflict', retryable = true, details = {left = 0}})",
    ],
)
def test_an_error_passes_through_with_all_that_it_says(body: str) -> None:
    functions = Functions()
    functions.add("inner", body)
    functions.add("outer", "return funcs.call('app:inner')")
    seen = functions.run(
        "local v, e = funcs.call('app:outer'); return {v == nil, e:kind(), e:message(), e:retryable(), e:details()}"
    )
    assert seen == [True, "Conflict", "sold out", True, {"left": 0}]


def test_a_plain_error_of_a_callee_names_its_line() -> None:
    functions = Functions(broken=lambda: 1 / 0)
    functions.add("inner", "error('boom')")
    with pytest.raises(WippyQueueError, match=r"inner\.lua:6: boom"):
        functions.run("local v, err = funcs.call('app:inner'); return v, err")
    with pytest.raises(WippyQueueError, match="ZeroDivisionError"):
        functions.run("return funcs.call('app:broken')")


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("funcs.call('')", "expected the id of a function, namespace:name, found ''"),
        ("funcs.call(7)", "expected the id of a function, namespace:name, found number"),
        ("funcs.call('app:main', print)", "argument 1: .*cannot encode a function"),
        ("funcs.new():with_context('x')", "expected a table of values"),
        ("funcs.new():with_context({1})", "the keys must be text"),
        ("funcs.new():with_actor('alice')", "expected an actor, got string"),
        ("funcs.new():with_actor(nil)", "expected an actor, got nil"),
        ("funcs.new():with_scope({})", "expected a scope, got table"),
        ("funcs.new():with_options({tiemout = 1})", "unknown option tiemout; expected timeout"),
        ("funcs.new():with_options({timeout = 0})", "expected seconds, more than 0"),
        ("funcs.new():with_options({timeout = 'soon'})", "with_options: timeout"),
        ("funcs.new().call('app:main')", "called with a colon"),
    ],
)
def test_a_mistake_is_told_as_an_error(call: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        Functions().run(f"local v, err = {call}; return v, err")


def test_an_unknown_function_is_not_found() -> None:
    with pytest.raises(NotFound, match="app:nobody"):
        Functions().run("return funcs.call('app:nobody')")


@pytest.mark.parametrize("call", ["funcs.async('app:main')", "funcs.new():async('app:main')"])
def test_async_raises_what_it_cannot_do(call: str) -> None:
    ok, why = Functions().run(f"return {{pcall(function() {call} end)}}")
    assert not ok and "main.lua:6: funcs.async is not supported" in why and "use funcs.call" in why


# Context


def test_values_are_passed_on_and_added_to() -> None:
    functions = Functions()
    functions.add("inner", "return ctx.all()")
    functions.add("outer", "return funcs.new():with_context{b = 3, c = {1}}:call('app:inner')")
    base = "local base = funcs.new():with_context{a = 1}:with_context{b = 2}\n"
    assert functions.run(f"{base}return base:call('app:outer')") == {"a": 1, "b": 3, "c": [1]}
    assert functions.run(f"{base}return base:call('app:inner')") == {"a": 1, "b": 2}
    assert functions.run(f"{base}return funcs.call('app:inner')") == {}
    assert functions.run(f"{base}return base:with_context{{}}:call('app:inner')") == {"a": 1, "b": 2}


def test_ctx_gives_one_value_or_says_that_there_is_none() -> None:
    functions = Functions()
    functions.add(
        "inner",
        """
        local _, missing = ctx.get('y')
        local _, unnamed = ctx.get('')
        return {ctx.get('x'), missing:kind(), unnamed:kind()}""",
    )
    seen = functions.run("return funcs.new():with_context{x = 'here'}:call('app:inner')")
    assert seen == ["here", "NotFound", "Invalid"]


# Security

ALICE = Actor("alice", {"role": "admin"})
CALLS = allowing("funcs.*", "security.*", name="calls")
READS = allowing("read", name="reads")


def acting_as(*policies: DeclaredPolicy) -> SecurityContext:
    return SecurityContext(actor=ALICE, scope=Scope(policies))


WHO = """
local actor = security.actor()
return {actor and actor:id() or '', security.can('read', 'x'), security.can('funcs.call', 'x')}"""


def test_a_callee_inherits_the_actor_and_the_scope_of_its_caller() -> None:
    functions = Functions(Guard([CALLS, READS]))
    functions.add("who", WHO)
    security = acting_as(CALLS, READS)
    assert functions.run("return funcs.call('app:who')", security=security) == ["alice", True, True]
    assert functions.run("return funcs.call('app:who')") == ["", False, False]  # nothing is left in a pooled runtime


def test_with_actor_and_with_scope_replace_them_for_the_callee_alone() -> None:
    functions = Functions(Guard([CALLS, READS]))
    functions.add("who", WHO)
    body = f"""
    local as_bob = funcs.new():with_actor(security.new_actor('bob'))
    local reading = as_bob:with_scope(security.new_scope{{security.policy('app:reads')}})
    local me = (function() {WHO} end)()
    return {{as_bob:call('app:who'), reading:call('app:who'), funcs.call('app:who'), me}}"""
    assert functions.run(body, security=acting_as(CALLS)) == [
        ["bob", False, True],
        ["bob", True, False],
        ["alice", False, True],
        ["alice", False, True],
    ]


@pytest.mark.parametrize(
    ("body", "action"),
    [
        ("return funcs.call('app:who')", "funcs.call on app:who"),
        ("return funcs.call('app:nobody')", "funcs.call on app:nobody"),
        ("local e, err = funcs.new():with_context{a = 1}; return e, err", "funcs.context on context"),
        ("local e, err = funcs.new():with_actor(security.actor()); return e, err", "funcs.security on security"),
        ("local e, err = funcs.new():with_scope(security.scope()); return e, err", "funcs.security on security"),
    ],
)
def test_calls_and_changes_of_the_context_must_be_allowed(body: str, action: str) -> None:
    functions = Functions(Guard([READS]))
    functions.add("who", WHO)
    with pytest.raises(PermissionDenied, match=action):
        functions.run(body, security=acting_as(READS))


def test_a_chunk_acts_as_whoever_makes_it_load() -> None:
    functions = Functions(Guard([CALLS, READS]))
    functions.add("loads", "return loaded_by", head="local loaded_by = security.actor() and security.actor():id()\n")
    assert functions.run("return funcs.call('app:loads')", security=acting_as(CALLS)) == "alice"


def test_a_python_callee_acts_with_the_context_of_its_caller() -> None:
    seen: list[SecurityContext | None] = []
    functions = Functions(Guard([CALLS]), look=lambda: seen.append(acting()))
    security = acting_as(CALLS)
    functions.run("return funcs.call('app:look')", security=security)
    assert seen == [security] and acting() is None


# Limits


def test_functions_that_call_one_another_for_ever_get_an_error() -> None:
    functions = Functions()
    functions.add("loop", "local n, err = funcs.call('app:loop', (...) + 1); if err then return nil, err end; return n")
    with pytest.raises(Invalid, match=f"{MAX_DEPTH} functions have called one another already"):
        functions.run("return funcs.call('app:loop', 1)")


def test_the_deepest_chain_works_on_a_thread_of_its_own() -> None:
    functions, results = Functions(), list[Any]()
    functions.add("down", "local n = ...; if n == 0 then return 'deep' end; return funcs.call('app:down', n - 1)")
    call = f"return funcs.call('app:down', {MAX_DEPTH - 1})"
    thread = threading.Thread(target=lambda: results.append(functions.run(call)))
    thread.start()
    thread.join(DEADLINE)
    assert results == ["deep"]


SPIN = "while true do end"


def test_an_option_and_the_limit_of_the_callee_end_the_callee_alone() -> None:
    functions = Functions()
    functions.add("spin", SPIN)
    functions.add("limited", SPIN, timeout=0.05)
    for call in (
        "funcs.new():with_options{timeout = 0.05}:call('app:spin')",
        "funcs.new():with_options{timeout = '50ms'}:call('app:spin')",
        "funcs.call('app:limited')",
    ):
        kind, message = functions.run(f"local v, err = {call}; return {{err:kind(), err:message()}}")
        assert kind == "Timeout" and "0.05 s" in message


@pytest.mark.parametrize("callee", ["app:spin", "app:sleep", "app:nested", "app:patient"])
def test_the_time_of_the_caller_is_the_time_of_the_callee(callee: str) -> None:
    functions = Functions()
    functions.add("spin", SPIN)
    functions.add("sleep", "return time.sleep('60s')")
    functions.add("nested", "return funcs.call('app:spin')")
    functions.add("patient", "return funcs.new():with_options{timeout = 60}:call('app:spin')", timeout=60)
    began = time.monotonic()
    with pytest.raises(Timeout, match=r"app:main: the handler exceeded its time limit of 0\.1 s"):
        functions.run("pcall(funcs.call, ...) while true do end", callee, timeout=0.1)
    assert time.monotonic() - began < DEADLINE / 2


def test_a_time_limit_for_a_python_function_is_refused() -> None:
    functions = Functions(look=lambda: 1)
    with pytest.raises(Invalid, match="cannot be given a time limit"):
        functions.run("return funcs.new():with_options{timeout = 1}:call('app:look')")


class Worker:
    """A session of `main` on a thread, whose innermost callee says when it runs."""

    def __init__(self, innermost: str) -> None:
        self.cancel = threading.Event()
        self.outcome: Outcome | None = None
        self.running = threading.Event()
        self._ready = threading.Event()
        functions = Functions(started=self.running.set)
        functions.add("inner", f"funcs.call('app:started')\n{innermost}")
        functions.add("middle", "return funcs.call('app:inner')")
        main = functions.add("main", "return funcs.call('app:middle')")
        self.session: LuaSession = main.open(make_worker(cancel=self.cancel))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self.running.wait(DEADLINE)

    def _run(self) -> None:
        self.outcome = self.session.handle([make_delivery(b"1")])[0]

    def end(self) -> Outcome:
        self._thread.join(DEADLINE)
        assert self.outcome is not None, "the handler still runs"
        return self.outcome

    def again(self) -> Outcome:
        self.running.clear()
        self.outcome = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self.running.wait(DEADLINE)
        self.session.kill()
        return self.end()


@pytest.mark.parametrize("innermost", [SPIN, "return time.sleep('60s')", "pcall(function() while true do end end)"])
def test_a_kill_of_the_caller_kills_the_callee_that_runs(innermost: str) -> None:
    worker = Worker(innermost)
    worker.session.kill()
    if "sleep" in innermost:
        worker.cancel.set()  # a stop sets it before it kills; a wait of ours is no running Lua
    outcome = worker.end()
    assert isinstance(outcome.error, Canceled)
    if "sleep" not in innermost:
        assert isinstance(worker.again().error, Canceled)  # with new runtimes


def test_a_cancel_of_the_worker_reaches_the_callee() -> None:
    worker = Worker("return time.sleep('60s')")
    worker.cancel.set()
    outcome = worker.end()
    assert outcome.error is not None and outcome.error.kind is Kind.CANCELED
    assert outcome.canceled, "so that the message is released, not counted"


def test_a_kill_that_comes_late_spares_what_took_the_place_of_the_killed() -> None:
    """It once marked the context that both runtimes share, and every call by the new one was killed at once."""
    functions = Functions()
    functions.add("inner", "return 1")
    session = functions.add("main", "return funcs.call('app:inner')").open(make_worker())
    killed = session._runtime
    killed.kill()
    assert session.handle([make_delivery(b"1")])[0].ok
    killed.kill()
    assert session.handle([make_delivery(b"1")])[0].ok


def test_a_callee_that_is_killed_before_it_has_loaded_is_cancelled() -> None:
    functions = Functions()
    inner = functions.add("inner", "return 1")
    runtime = Runtime(inner.new_context(None))
    runtime.kill()
    assert runtime.load(inner._source) == (KILLED,)


def test_a_kill_between_two_calls_spares_the_runtimes_that_were_given_back() -> None:
    functions = Functions()
    inner = functions.add("inner", "return 1")
    main = functions.add("main", "return funcs.call('app:inner')")
    session = main.open(make_worker())
    assert session.handle([make_delivery(b"1")])[0].ok
    session.kill()
    assert inner.call([]) == 1
