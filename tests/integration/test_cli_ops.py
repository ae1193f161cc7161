"""Commands of whoever operates an application: `health`, `move` and `check --connect`."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.commands import APP, MEMORY_APP, Command, Run, Running, write_app
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("queue_file")

TWO_QUEUES = APP + "  - {name: other, kind: queue.queue, driver: files, codec: msgpack}\n"


# health


def test_health_follows_the_life_of_an_application(app: Path, run: Run, wippy_queue: Command) -> None:
    before = wippy_queue("health", app)
    assert (before.returncode, before.stdout.count("\n")) == (1, 1)
    assert "not running: there is no file" in before.stdout
    running = run(app)
    running.line_with("running")
    eventually(lambda: wippy_queue("health", app, "--ready").returncode == 0, "it is ready")
    assert wippy_queue("health", app).stdout == "live, ready: 2 services run\n"
    told = json.loads(wippy_queue("health", app, "--json").stdout)
    assert (told["pid"], told["live"], told["ready"]) == (running.process.pid, True, True)
    assert told["services"]["app:worker"]["state"] == "Running"
    running.process.terminate()
    assert running.exit_code() == 0
    after = json.loads(wippy_queue("health", app, "--json").stdout)
    assert (after["live"], after["ready"], after["services"]) == (False, False, {})


def test_a_process_that_was_killed_is_not_live(app: Path, run: Run, wippy_queue: Command) -> None:
    running = run(app)
    running.line_with("running")
    running.process.kill()
    running.exit_code()
    done = wippy_queue("health", app)
    assert done.returncode == 1
    assert f"the process {running.process.pid}" in done.stdout


def test_alive_is_not_ready_while_a_driver_is_away(tmp_path: Path, run: Run, wippy_queue: Command) -> None:
    app = write_app(tmp_path, APP)
    path = tmp_path / "state.json"
    running = run(app, "--health-file", path, "-o", f"app:files:file={tmp_path}/nowhere/queues.db")
    running.line_with("a service failed")
    ready = ("health", app, "--health-file", path, "--ready")
    eventually(lambda: "app:files" in wippy_queue(*ready).stdout, "the file tells of it")
    assert wippy_queue(*ready).returncode == 1
    assert wippy_queue("health", app, "--health-file", path).returncode == 0


def test_an_application_that_only_a_new_start_can_help_is_not_live(
    tmp_path: Path, run: Run, wippy_queue: Command
) -> None:
    app = write_app(tmp_path, APP)
    (tmp_path / "queues.db").write_text("no database, and long enough to be seen as none" * 9, encoding="utf-8")
    run(app).line_with("a service failed")
    eventually(lambda: "app:files is Exited" in wippy_queue("health", app).stdout, "the file tells of it")
    assert wippy_queue("health", app).returncode == 1


def test_a_health_file_that_cannot_be_written_is_an_error(app: Path, tmp_path: Path, wippy_queue: Command) -> None:
    done = wippy_queue("run", app, "--health-file", tmp_path / "nowhere" / "state.json")
    assert done.returncode == 1
    assert "--health-file" in done.stderr
    assert "Traceback" not in done.stderr


# move


@pytest.fixture
def two_queues(tmp_path: Path, wippy_queue: Command) -> Path:
    """An application with three messages in one of its queues."""
    app = write_app(tmp_path, TWO_QUEUES)
    for number in range(3):
        wippy_queue("publish", app, "app:tasks", json.dumps({"id": number}), "--id", f"m-{number}", "-H", "color=red")
    return app


def test_messages_move_with_their_ids_headers_and_bodies(two_queues: Path, wippy_queue: Command) -> None:
    done = wippy_queue("move", two_queues, "app:tasks", "app:other")
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 messages moved\n", "")
    moved = json.loads(wippy_queue("peek", two_queues, "app:other", "--json").stdout)
    assert [(one["id"], one["body"], one["headers"]["color"]) for one in moved] == [
        (f"m-{number}", {"id": number}, "red") for number in range(3)
    ]
    assert wippy_queue("peek", two_queues, "app:tasks").stdout == "no message waits\n"


def test_a_move_can_be_limited_and_goes_on_where_it_ended(two_queues: Path, wippy_queue: Command) -> None:
    move = ("move", two_queues, "app:tasks", "app:other")
    assert json.loads(wippy_queue(*move, "--limit", "2", "--json").stdout) == {"moved": 2, "failed": {}, "left": 1}
    assert json.loads(wippy_queue(*move, "--rate", "100", "--json").stdout) == {"moved": 1, "failed": {}, "left": 0}


def test_what_cannot_be_moved_stays_and_is_reported(two_queues: Path, wippy_queue: Command) -> None:
    wippy_queue("move", two_queues, "app:tasks", "app:other")
    with sqlite3.connect(os.environ["TEST_FILE"]) as database:
        database.execute("UPDATE payload SET body = X'C1' WHERE message_id = 'm-1'")
    database.close()
    done = wippy_queue("move", two_queues, "app:other", "app:tasks")
    assert done.returncode == 1
    assert done.stdout.startswith("2 messages moved, 1 failed; 1 left")
    assert done.stderr.startswith("Error: m-1: ")
    assert "m-1" in wippy_queue("peek", two_queues, "app:other").stdout


def test_a_target_that_is_full_ends_the_move_with_what_was_done(two_queues: Path, wippy_queue: Command) -> None:
    full = ("-o", "app:other:options={max_length: 2, overflow: reject}", "--rate", "50")
    done = wippy_queue("move", two_queues, "app:tasks", "app:other", *full)
    assert done.returncode == 1
    assert done.stdout.startswith("2 messages moved")
    assert "is full" in done.stderr
    assert "m-2" in wippy_queue("peek", two_queues, "app:tasks").stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_move_loses_nothing(two_queues: Path, wippy_queue: Command, number: signal.Signals) -> None:
    moving = Running("move", two_queues, "app:tasks", "app:other", "--rate", "0.1")
    eventually(lambda: "m-0" in wippy_queue("peek", two_queues, "app:other").stdout, "the first has been moved")
    moving.process.send_signal(number)
    moving.line_with("interrupted")
    assert moving.exit_code() == 128 + number
    assert moving.process.stderr is not None
    moving.process.stderr.close()
    counts = json.loads(wippy_queue("info", two_queues, "--json").stdout)
    assert (counts["app:tasks"]["ready"], counts["app:other"]["ready"]) == (2, 1)


def test_a_queue_is_not_moved_to_itself(two_queues: Path, wippy_queue: Command) -> None:
    done = wippy_queue("move", two_queues, "app:tasks", "app:tasks")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the same queue" in done.stderr


@pytest.mark.parametrize("queues", [("app:private", "app:tasks"), ("app:tasks", "app:private")])
def test_a_memory_queue_can_neither_be_moved_nor_moved_to(
    tmp_path: Path, wippy_queue: Command, queues: tuple[str, str]
) -> None:
    memory = "  - {name: memory, kind: queue.driver.memory}\n  - {name: private, kind: queue.queue, driver: memory}\n"
    done = wippy_queue("move", write_app(tmp_path, APP + memory), *queues)
    assert (done.returncode, done.stdout) == (2, "")
    assert "app:private: a memory queue lives inside" in done.stderr


# check --connect


def problems(wippy_queue: Command, app: Path, *options: str) -> list[dict[str, object]]:
    done = wippy_queue("check", app, "--connect", "--json", *options)
    found: list[dict[str, object]] = json.loads(done.stdout)["problems"]
    assert done.returncode == (1 if found else 0), done.stderr
    return found


def test_a_file_that_would_be_made_is_no_problem_and_is_not_made(
    app: Path, tmp_path: Path, wippy_queue: Command
) -> None:
    assert problems(wippy_queue, app) == []
    assert list(tmp_path.iterdir()) == [app]
    wippy_queue("publish", app, "app:tasks", "1")
    files = sorted(tmp_path.iterdir())
    assert problems(wippy_queue, app) == []
    assert sorted(tmp_path.iterdir()) == files


def test_a_file_of_a_running_application_is_no_problem(app: Path, run: Run, wippy_queue: Command) -> None:
    run(app).line_with("running")
    eventually(lambda: wippy_queue("health", app, "--ready").returncode == 0, "it is ready")
    assert problems(wippy_queue, app) == []


def test_a_file_that_cannot_be_used_is_told_with_the_place_of_its_driver(
    app: Path, tmp_path: Path, wippy_queue: Command
) -> None:
    (problem,) = problems(wippy_queue, app, "-o", f"app:files:file={tmp_path}/nowhere/queues.db")
    assert (problem["entry"], problem["line"]) == ("app:files", 4)
    assert "make the folder" in str(problem["message"])

    database = sqlite3.connect(tmp_path / "queues.db")
    database.execute("CREATE TABLE theirs (x)")
    (problem,) = problems(wippy_queue, app)
    assert "another program" in str(problem["message"])
    database.execute("PRAGMA user_version = 999")
    database.close()
    (problem,) = problems(wippy_queue, app)
    assert "newer wippy_queue" in str(problem["message"])
    (tmp_path / "queues.db").write_text("no database" * 99, encoding="utf-8")
    done = wippy_queue("check", app, "--connect")
    assert done.returncode == 1
    assert "_index.yaml:4" in done.stderr
    assert "is not an SQLite database" in done.stderr


def test_nobody_is_asked_about_an_application_with_mistakes(tmp_path: Path, wippy_queue: Command) -> None:
    app = write_app(tmp_path, APP.replace("queue: tasks", "queue: taks") + "  - {name: r, kind: queue.driver.redis}\n")
    (problem,) = problems(wippy_queue, app)
    assert problem["entry"] == "app:worker"


def test_memory_has_nothing_to_be_asked(tmp_path: Path, wippy_queue: Command) -> None:
    assert problems(wippy_queue, write_app(tmp_path, MEMORY_APP)) == []


@pytest.mark.parametrize(("kind", "library"), [("amqp", "pika"), ("redis", "redis")])
def test_a_broker_that_is_away_is_told_without_its_password(
    tmp_path: Path, wippy_queue: Command, kind: str, library: str
) -> None:
    pytest.importorskip(library)
    app = write_app(
        tmp_path, APP.replace("kind: queue.driver.sqlite", f"kind: queue.driver.{kind}").replace("file: ", "url: ")
    )
    url = f"{kind}://guest:hunter2@127.0.0.1:1/"
    options = ("-o", f"app:files:url={url}", "-o", "app:files:connection_timeout=300ms")
    done = wippy_queue("check", app, "--connect", *options)
    assert done.returncode == 1
    assert "_index.yaml:4" in done.stderr
    assert "cannot be reached" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
