"""The fixture `wippy_engine`: an application in memory, whose time the test moves."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support import DEADLINE
from wippy_queue import ConfigurationError, Invalid, Kind, Timeout, Unavailable, WippyQueueError, current_message
from wippy_queue.testing.plugin import EngineFactory

HOUR = 3600.0

APP = """
version: "1.0"
namespace: app
entries:
  - {name: sqlite, kind: queue.driver.sqlite, file: /nowhere/at/all/queues.db, lifecycle: {auto_start: true}}
  - name: tasks
    kind: queue.queue
    driver: sqlite
    dead_letter: {queue: dead, max_attempts: 3}
    retry: {initial_delay: 1h, max_delay: 24h}
  - {name: dead, kind: queue.queue, driver: sqlite}
  - {name: worker, kind: queue.consumer, queue: tasks, func: handle, concurrency: 2, lifecycle: {auto_start: true}}
  - name: handle
    kind: function.lua
    source: |
      return function(body)
        if body.fail then return nil, errors.new{message = "no " .. body.fail, kind = errors.UNAVAILABLE} end
      end
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    path = tmp_path / "_index.yaml"
    path.write_text(APP)
    return path


def _python_app(**queue: Any) -> list[dict[str, Any]]:
    auto = {"auto_start": True}
    return [
        {"name": "memory", "kind": "queue.driver.memory", "lifecycle": auto},
        {"name": "tasks", "kind": "queue.queue", "driver": "memory", **queue},
        {"name": "next", "kind": "queue.queue", "driver": "memory"},
        {"name": "worker", "kind": "queue.consumer", "queue": "tasks", "func": "handle", "lifecycle": auto},
        {"name": "second", "kind": "queue.consumer", "queue": "next", "func": "finish", "lifecycle": auto},
    ]


def test_an_application_runs_without_its_broker(wippy_engine: EngineFactory, app: Path) -> None:
    """The file of the sqlite driver cannot even be made; the test does not touch it."""
    engine = wippy_engine(app)
    for number in range(20):
        engine.publish("app:tasks", {"n": number})
    assert engine.drain() == []
    assert engine.info("app:tasks").message_count == 0


def test_drain_does_not_wait_for_delays_in_real_time(wippy_engine: EngineFactory, app: Path) -> None:
    engine = wippy_engine(app)
    before = engine.clock.time()
    engine.publish("app:tasks", {"n": 1}, delay=HOUR)
    engine.publish("app:tasks", {"n": 2}, delay=24 * HOUR)
    engine.drain()
    assert engine.info("app:tasks").message_count == 0
    assert engine.clock.time() - before == pytest.approx(24 * HOUR)


def test_time_stands_still_until_it_is_moved(wippy_engine: EngineFactory, app: Path) -> None:
    engine = wippy_engine(app)
    engine.publish("app:tasks", {"n": 1}, delay=0.05)
    with pytest.raises(Timeout):
        engine.join("app:tasks", timeout=0.2)
    engine.advance(0.05)
    engine.join("app:tasks", timeout=10)


def test_messages_expire_when_the_clock_says_so(wippy_engine: EngineFactory) -> None:
    """Also those that are published after the clock was moved."""
    engine = wippy_engine.from_entries(_python_app()[:2])
    engine.advance(24 * HOUR)
    engine.publish("app:tasks", "a", ttl=60)
    engine.advance(59)
    assert engine.info("app:tasks").ready == 1
    engine.advance(1)
    assert engine.info("app:tasks").message_count == 0


def test_an_error_of_a_handler_is_raised_in_the_test(wippy_engine: EngineFactory, app: Path) -> None:
    engine = wippy_engine(app)
    engine.publish("app:tasks", {"fail": "network"}, message_id="m-1")
    with pytest.raises(WippyQueueError, match="no network") as caught:
        engine.drain()
    assert caught.value.kind == Kind.UNAVAILABLE
    assert caught.value.__notes__[0] == "app:worker: message m-1 of app:tasks, attempt 1"


def test_an_exception_of_a_python_handler_is_the_cause(wippy_engine: EngineFactory) -> None:
    engine = wippy_engine.from_entries(_python_app(), start=False)
    engine.function("app:finish")(lambda body: None)

    @engine.function("app:handle")
    def handle(body: Any) -> None:
        raise KeyError("customer")

    engine.start()
    engine.publish("app:tasks", "a")
    with pytest.raises(WippyQueueError, match="customer") as caught:
        engine.drain()
    assert isinstance(caught.value.__cause__, KeyError)


def test_allowed_errors_are_retried_and_dead_lettered_as_in_production(wippy_engine: EngineFactory, app: Path) -> None:
    """Three attempts with hours between them; then nobody reads the dead-letter queue, and drain leaves it alone."""
    engine = wippy_engine(app)
    engine.publish("app:tasks", {"fail": "network"})
    errors = engine.drain(allow_errors=True)
    assert [str(error) for error in errors] == ["no network"] * 3
    (dead,) = engine.peek("app:dead")
    assert (dead.headers["attempts"], dead.headers["x_dead_letter_reason"]) == (3, "attempts")
    assert engine.drain() == [], "what was returned is not told again"


def test_a_handler_that_always_fails_ends_at_the_timeout(wippy_engine: EngineFactory) -> None:
    engine = wippy_engine.from_entries(_python_app(), start=False)
    engine.function("app:finish")(lambda body: None)
    engine.function("app:handle")(lambda body: False)
    engine.start()
    engine.publish("app:tasks", "a")
    with pytest.raises(Timeout) as caught:
        engine.drain(timeout=0.3, allow_errors=True)
    assert any("retried for ever" in note for note in caught.value.__notes__)


def test_drain_follows_messages_from_queue_to_queue(wippy_engine: EngineFactory) -> None:
    """Also when a handler settles by hand before it publishes, which leaves every queue empty for a moment."""
    finished: list[Any] = []
    engine = wippy_engine.from_entries(_python_app(), start=False)
    engine.function("app:finish")(finished.append)

    @engine.function("app:handle")
    def handle(body: Any) -> None:
        current_message().ack()
        threading.Event().wait(0.05)
        engine.publish("app:next", body, delay=HOUR)

    engine.start()
    engine.publish_many("app:tasks", list(range(1, 4)))
    engine.drain()
    assert finished == [1, 2, 3]


def test_a_stuck_handler_ends_at_the_timeout(wippy_engine: EngineFactory) -> None:
    go = threading.Event()
    engine = wippy_engine.from_entries(_python_app(), start=False)
    engine.function("app:finish")(lambda body: None)
    engine.function("app:handle")(lambda body: go.wait(20))
    engine.start()
    engine.publish("app:tasks", "a")
    with pytest.raises(Timeout, match="1 handlers run; app:tasks"):
        engine.drain(timeout=0.2)
    go.set()
    engine.drain()


def test_drain_says_that_nothing_runs(wippy_engine: EngineFactory) -> None:
    engine = wippy_engine.from_entries(_python_app()[:2])
    engine.publish("app:tasks", "a")
    with pytest.raises(Unavailable, match="no consumer runs"):
        engine.drain()


def test_drain_inside_a_handler_is_refused(wippy_engine: EngineFactory) -> None:
    engine = wippy_engine.from_entries(_python_app(), start=False)
    engine.function("app:finish")(lambda body: None)
    engine.function("app:handle")(lambda body: engine.drain())
    engine.start()
    engine.publish("app:tasks", "a")
    with pytest.raises(Invalid, match="inside a handler"):
        engine.drain()


def test_the_application_is_checked_against_its_own_drivers(wippy_engine: EngineFactory, app: Path) -> None:
    app.write_text(APP.replace("file: /nowhere", "fyle: /nowhere"))
    with pytest.raises(ConfigurationError, match="fyle"):
        wippy_engine(app)


def test_options_of_a_queue_hold_in_memory(wippy_engine: EngineFactory, app: Path) -> None:
    options = {"app:tasks": {"options": {"max_length": 1, "overflow": "drop_oldest"}}}
    engine = wippy_engine(app, overrides=options, start=False)
    engine.start(consumers=False)
    engine.publish("app:tasks", "old")
    engine.publish("app:tasks", "new")
    assert [message.body for message in engine.peek("app:tasks")] == [b'"new"']
    assert engine.info("app:dead").ready == 1


def test_pytest_finds_the_fixture_by_itself_and_stops_the_engine(tmp_path: Path, app: Path) -> None:
    (tmp_path / "test_app.py").write_text(
        "def test_it(wippy_engine):\n"
        f"    engine = wippy_engine({os.fspath(app)!r})\n"
        "    engine.publish('app:tasks', {'n': 1}, delay=60)\n"
        "    engine.drain()\n"
        "\n"
        "def test_its_threads_are_gone():\n"
        "    import threading\n"
        "    for thread in threading.enumerate():\n"
        "        if 'app:' in thread.name:\n"
        f"            thread.join({DEADLINE})\n"
        "            assert not thread.is_alive(), thread.name\n"
    )
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", os.fspath(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
