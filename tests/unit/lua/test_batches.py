"""Several messages in one crossing into Lua: nobody waits behind a slow one, and each has its own outcome."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from tests.support import DEADLINE, eventually
from wippy_queue import Engine
from wippy_queue.lua.modules import hash as hash_module

SLOW_STEP = "local n = 0 for i = 1, 2e9 do n = n + i % 7 end"


def engine_of(source: str, concurrency: int = 2, modules: Sequence[str] = (), **fields: Any) -> Engine:
    return Engine.from_entries(
        [
            {"name": "memory", "kind": "queue.driver.memory"},
            {"name": "tasks", "kind": "queue.queue", "driver": "memory", "retry": {"initial_delay": 0}},
            {"name": "seen", "kind": "queue.queue", "driver": "memory"},
            {
                "name": "handler",
                "kind": "function.lua",
                "source": source,
                "modules": ["queue", "test", "time", *modules],
            },
            {
                "name": "worker",
                "kind": "queue.consumer",
                "queue": "tasks",
                "func": "handler",
                "concurrency": concurrency,
                "prefetch": 100,
                "lifecycle": {"auto_start": True},
            },
        ],
        **fields,
    )


class Notes:
    """What handlers tell, in the order in which they did."""

    def __init__(self, engine: Engine) -> None:
        self.values: list[Any] = []
        self.go_on = threading.Event()
        engine.module("test", {"note": self.values.append, "block": lambda: self.go_on.wait(DEADLINE)})


def warm_up(engine: Engine) -> None:
    """Have the workers find out that the handler is fast."""
    engine.publish_many("app:tasks", ["fast"] * 2000)
    engine.join("app:tasks", timeout=DEADLINE)


HANDLER = f"""
local test, queue = require("test"), require("queue")
return function(body)
    if body == "fast" then return end
    if body == "block" then test.block() return end
    if body == "compute" then {SLOW_STEP} return end
    if body == "compute in a coroutine" then coroutine.wrap(function() {SLOW_STEP} end)() return end
    if body == "fail" and queue.message():header("attempts") == 0 then return nil, "failed" end
    if body == "raise" then error("raised") end
    test.note(body)
end
"""


@pytest.mark.parametrize("hook_mode", ["async", "count"])
@pytest.mark.parametrize("slow", ["block", "compute", "compute in a coroutine"])
def test_no_message_waits_behind_a_slow_one_while_another_worker_idles(slow: str, hook_mode: str) -> None:
    engine = engine_of(HANDLER, settings={"lua.hook_mode": hook_mode})
    notes = Notes(engine)
    engine.start()
    warm_up(engine)
    engine.publish_many("app:tasks", ["fast"] * 20 + [slow] + list(range(30)))
    eventually(lambda: len(notes.values) == 30, "all others are handled while one is slow")
    eventually(lambda: engine.info("app:tasks").message_count == 1, "and settled")
    notes.go_on.set()
    if slow.startswith("compute"):
        with pytest.raises(Exception, match="at the deadline of the stop"):
            engine.stop(timeout=0)
    else:
        engine.stop()
    assert sorted(notes.values) == list(range(30))


def test_one_that_was_slow_before_the_others_were_fast_keeps_nobody_waiting() -> None:
    engine = engine_of(HANDLER)
    notes = Notes(engine)
    with engine:
        engine.publish("app:tasks", "block")
        eventually(lambda: engine.info("app:tasks").ready == 0, "it is in hand")
        engine.publish_many("app:tasks", ["fast"] * 2000)
        eventually(lambda: engine.info("app:tasks").message_count == 1, "the other worker has found out")
        engine.publish("app:tasks", 1)
        eventually(lambda: notes.values == [1], "it is handled while the first one is slow")
        notes.go_on.set()


@pytest.mark.parametrize("hook_mode", ["async", "count"])
def test_nor_does_one_that_no_hook_can_reach(monkeypatch: pytest.MonkeyPatch, hook_mode: str) -> None:
    """As in a call of C that takes its time; here it is one of a module of ours that does not, as a rule."""
    engine = engine_of(
        """
        local test, hash = require("test"), require("hash")
        return function(body)
            if body == "fast" then return end
            if body == "slow" then hash.md5(body) return end
            test.note(body)
        end
        """,
        modules=("hash",),
        settings={"lua.hook_mode": hook_mode},
    )
    notes, begun = Notes(engine), threading.Event()

    def digest(*_: object) -> bytes:
        begun.set()
        notes.go_on.wait(3 * DEADLINE)
        return b""

    monkeypatch.setattr(hash_module, "_digest", digest)
    with engine:
        warm_up(engine)
        engine.publish("app:tasks", "slow")
        assert begun.wait(DEADLINE)
        engine.publish("app:tasks", 1)
        eventually(lambda: notes.values == [1], "it is handled while the first one is slow")
        notes.go_on.set()


@pytest.mark.parametrize("hook_mode", ["async", "count"])
def test_nor_does_a_python_function_that_was_quick_so_far(hook_mode: str) -> None:
    engine = engine_of(
        'local visit = require("test").visit return function(body) visit(body) end',
        settings={"lua.hook_mode": hook_mode},
    )
    seen, go_on = list[Any](), threading.Event()

    def visit(body: Any) -> None:
        if body == "block":
            go_on.wait(3 * DEADLINE)
        seen.append(body)

    engine.module("test", {"visit": visit})
    with engine:
        warm_up(engine)
        seen.clear()
        engine.publish_many("app:tasks", ["fast"] * 20 + ["block"] + list(range(30)))
        eventually(lambda: len(seen) == 50, "all others are handled while that one blocks")
        assert "block" not in seen
        go_on.set()
        engine.join("app:tasks", timeout=DEADLINE)
    assert sorted(map(str, seen)) == sorted(map(str, ["fast"] * 20 + ["block"] + list(range(30))))


def test_each_message_of_a_batch_has_its_own_outcome() -> None:
    engine = engine_of(HANDLER, concurrency=1)
    notes = Notes(engine)
    with engine:
        warm_up(engine)
        engine.publish_many("app:tasks", ["fast", "fail", "fast", 1, "fast", "fail", 2, "fast"])
        engine.join("app:tasks", timeout=DEADLINE)
        assert engine.counters("app:tasks")["failed"] == 2
    assert notes.values == [1, 2, "fail", "fail"]


def test_a_message_knows_its_own_id_inside_a_batch() -> None:
    source = """
    local queue, test = require("queue"), require("test")
    return function(body)
        if body == "fast" then return end
        test.note({body, queue.message():id()})
    end
    """
    engine = engine_of(source, concurrency=1)
    notes = Notes(engine)
    with engine:
        warm_up(engine)
        bodies = ["fast"] * 5 + [1] + ["fast"] * 3 + [2, 3]
        ids = engine.publish_many("app:tasks", bodies)
        engine.join("app:tasks", timeout=DEADLINE)
    assert notes.values == [[1, ids[5]], [2, ids[9]], [3, ids[10]]]


def test_publishing_to_a_queue_in_memory_does_not_end_a_batch_and_each_copy_has_its_origin() -> None:
    source = """
    local queue = require("queue")
    return function(body)
        local message = queue.message()
        local ok, err = queue.publish("app:seen", body, {origin = message:id(), nth = message:header("nth")})
        if err then return nil, err end
    end
    """
    engine = engine_of(source, concurrency=2)
    Notes(engine)
    with engine:
        ids = engine.publish_many("app:tasks", list(range(1, 2001)), {"nth": 7})
        engine.join("app:tasks", timeout=DEADLINE)
        copies = engine.peek("app:seen", 10_000)
    assert {int(copy.body): copy.headers["origin"] for copy in copies} == dict(enumerate(ids, 1))
    assert {copy.headers["nth"] for copy in copies} == {7}


def test_order_is_kept_by_one_worker() -> None:
    source = """
    local test, seen = require("test"), {}
    return function(body)
        seen[#seen + 1] = body
        if #seen == 100 then
            test.note(seen)
            seen = {}
        end
    end
    """
    engine = engine_of(source, concurrency=1)
    notes = Notes(engine)
    with engine:
        engine.publish_many("app:tasks", list(range(3000)))
        engine.join("app:tasks", timeout=DEADLINE)
    assert [number for group in notes.values for number in group] == list(range(3000))
