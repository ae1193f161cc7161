"""Scripts always come to their end: with a forgotten stop, an exception, or a handler that is stuck."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PROLOGUE = """
import sys, threading, time
from wippy_queue import Engine

def engine_of(source=None, function=None, concurrency=3):
    entries = [
        {"name": "memory", "kind": "queue.driver.memory"},
        {"name": "tasks", "kind": "queue.queue", "driver": "memory"},
        {"name": "worker", "kind": "queue.consumer", "queue": "tasks", "func": "handler",
         "concurrency": concurrency, "lifecycle": {"auto_start": True}},
    ]
    if source:
        entries.append({"name": "handler", "kind": "function.lua", "source": source, "modules": ["time"]})
    engine = Engine.from_entries(entries)
    if function:
        engine.function("app:handler")(function)
    return engine

def stuck(_):
    begun.set()
    threading.Event().wait()

begun = threading.Event()
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script; one that hangs fails by its timeout."""
    return subprocess.run(
        [sys.executable, "-c", PROLOGUE + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("script", "code", "error"),
    [
        pytest.param(
            """
            engine = engine_of("return function() end")
            engine.start()
            engine.publish("app:tasks", 1)
            """,
            0,
            "",
            id="a forgotten stop",
        ),
        pytest.param(
            """
            engine_of("return function() end").start()
            raise RuntimeError("mine")
            """,
            1,
            "RuntimeError: mine",
            id="an exception before the stop",
        ),
        pytest.param(
            """
            engine = engine_of(function=stuck)
            engine.start()
            engine.publish_many("app:tasks", [1, 2, 3])
            assert begun.wait(20)
            """,
            0,
            "",
            id="a stuck handler in Python",
        ),
        pytest.param(
            """
            engine = engine_of(function=stuck)
            with engine:
                engine.publish("app:tasks", 1)
                assert begun.wait(20)
                engine.stop(timeout=0.1)
            """,
            1,
            "ShutdownTimeout",
            id="a stop that a stuck handler outlives",
        ),
        pytest.param(
            """
            engine = engine_of("return function() while true do end end")
            engine.start()
            engine.publish_many("app:tasks", [1, 2, 3])
            while engine.info("app:tasks").in_flight < 3:
                pass
            """,
            0,
            "",
            id="a handler in Lua that never ends",
        ),
        pytest.param(
            """
            engine = engine_of("return function() require('time').sleep('1h') end")
            engine.start()
            engine.publish_many("app:tasks", [1, 2, 3])
            while engine.info("app:tasks").in_flight < 3:
                pass
            sys.exit(3)
            """,
            3,
            "",
            id="a handler in Lua that sleeps",
        ),
        pytest.param(
            """
            for _ in range(3):
                engine = engine_of("return function() end", concurrency=50)
                engine.start()
                engine.publish("app:tasks", 1)
            engine.stop()
            """,
            0,
            "",
            id="several engines, one of them stopped",
        ),
    ],
)
def test_a_script_exits(script: str, code: int, error: str) -> None:
    done = run(script)
    assert done.returncode == code, done.stderr
    assert error in done.stderr
    if not error:
        assert done.stderr == ""
