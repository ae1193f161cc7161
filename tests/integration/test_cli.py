"""The command line as a user meets it; `run` in a process of its own, with real signals."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.commands import APP, MEMORY_APP, Command, Run, write_app

pytestmark = pytest.mark.usefixtures("queue_file")


def test_the_demo_shows_what_happens_and_ends_by_itself(wippy_queue: Command) -> None:
    done = wippy_queue("demo")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum("published" in line and "task-" in line for line in lines) == 5
    assert sum("Done" in line for line in lines) == 5
    (failed,) = (line for line in lines if "failed  " in line)
    assert "the server is busy" in failed
    assert "again in" in failed
    assert "5 tasks published, 5 handled, 1 failed attempt retried, 0 left" in lines[-1]
    assert done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_gracefully(app: Path, run: Run, number: signal.Signals) -> None:
    running = run(app)
    running.line_with("running")
    running.process.send_signal(number)
    running.line_with("stopping")
    running.line_with("stopped")
    assert running.exit_code() == 0


def test_run_handles_what_another_process_has_published(app: Path, run: Run, wippy_queue: Command) -> None:
    published = wippy_queue("publish", app, "app:tasks", '{"id": 7}')
    assert published.returncode == 0, published.stderr
    running = run(app)
    running.line_with("ended")
    running.process.terminate()
    assert running.exit_code() == 0
    counts = json.loads(wippy_queue("info", app, "--json").stdout)
    assert counts["app:tasks"]["message_count"] == 0


def test_the_log_can_be_read_by_a_program(app: Path, run: Run, wippy_queue: Command) -> None:
    wippy_queue("publish", app, "app:tasks", '{"id": 7}')
    running = run(app, "--log-format", "json")
    entry = json.loads(running.line_with('"ended"'))
    assert entry["logger"] == "wippy_queue.app.app:handler"
    assert entry["fields"]["id"] == 7
    running.process.terminate()
    assert running.exit_code() == 0
    assert [line for line in running.seen if not line.startswith("{")] == []


def test_a_handler_that_had_to_be_cut_is_reported_and_its_message_stays(
    app: Path, run: Run, wippy_queue: Command
) -> None:
    message_id = wippy_queue("publish", app, "app:tasks", '{"endless": true}').stdout.strip()
    running = run(app, "--stop-timeout", "0.5")
    running.line_with("began")
    running.process.terminate()
    assert message_id in running.line_with("abandoned")
    assert running.exit_code() == 1
    counts = json.loads(wippy_queue("info", app, "--json").stdout)
    assert counts["app:tasks"]["message_count"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_cuts_at_once(app: Path, run: Run, number: signal.Signals, wippy_queue: Command) -> None:
    wippy_queue("publish", app, "app:tasks", '{"endless": true}')
    running = run(app, "--stop-timeout", "600")
    running.line_with("began")
    running.process.terminate()
    running.line_with("stopping")
    running.process.send_signal(number)
    assert running.exit_code() == 128 + number


def test_a_body_comes_from_stdin_and_what_waits_can_be_looked_at_and_dropped(app: Path, wippy_queue: Command) -> None:
    published = wippy_queue("publish", app, "app:tasks", "-", "--id", "m-1", "-H", "color=red", stdin='{"id": 7}')
    assert published.stdout == "m-1\n", published.stderr
    (message,) = json.loads(wippy_queue("peek", app, "app:tasks", "--json").stdout)
    assert (message["id"], message["body"], message["headers"]["color"]) == ("m-1", {"id": 7}, "red")
    assert "m-1" in wippy_queue("peek", app, "app:tasks").stdout
    assert "app:tasks" in wippy_queue("info", app).stdout
    assert wippy_queue("purge", app, "app:tasks", "--yes").stdout == "1 message dropped\n"
    assert wippy_queue("peek", app, "app:tasks").stdout == "no message waits\n"


def test_purge_asks_first(app: Path, wippy_queue: Command) -> None:
    wippy_queue("publish", app, "app:tasks", "1")
    refused = wippy_queue("purge", app, "app:tasks", stdin="n\n")
    assert refused.returncode == 1
    assert len(json.loads(wippy_queue("peek", app, "app:tasks", "--json").stdout)) == 1


def test_dead_letters_are_listed_shown_replayed_and_removed(tmp_path: Path, run: Run, wippy_queue: Command) -> None:
    entries = APP.replace(
        "name: tasks\n    kind: queue.queue\n",
        "name: tasks\n    kind: queue.queue\n    dead_letter: {queue: failed, max_attempts: 1}\n",
    )
    app = write_app(tmp_path, entries + "  - {name: failed, kind: queue.queue, driver: files}\n")
    for name in ("one", "two"):
        wippy_queue("publish", app, "app:tasks", json.dumps({"fail": True}), "--id", name)
    running = run(app)
    running.line_with("handler failed")
    running.line_with("handler failed")
    running.process.terminate()
    assert running.exit_code() == 0

    listed = json.loads(wippy_queue("dead-letters", "list", app, "app:tasks", "--json").stdout)
    assert {(dead["id"], dead["reason"], dead["queue"]) for dead in listed} == {
        ("one", "attempts", "app:tasks"),
        ("two", "attempts", "app:tasks"),
    }
    assert "told to" in wippy_queue("dead-letters", "list", app, "app:failed").stdout
    show = ("dead-letters", "show", app, "app:tasks", "one")
    assert json.loads(wippy_queue(*show, "--json").stdout)["body"] == {"fail": True}
    assert 'body:     {"fail": true}' in wippy_queue(*show).stdout
    assert wippy_queue("dead-letters", "show", app, "app:tasks", "none").returncode == 1

    replay = ("dead-letters", "replay", app, "app:tasks", "--id", "one")
    assert wippy_queue(*replay, "--dry-run").stdout == "1 would be replayed\n"
    assert wippy_queue(*replay).stdout == "1 replayed\n"
    (message,) = json.loads(wippy_queue("peek", app, "app:tasks", "--json").stdout)
    assert (message["id"], message["headers"]["attempts"]) == ("one", 0)

    assert wippy_queue("dead-letters", "purge", app, "app:tasks", "--reason", "expired", "--yes").stdout.startswith(
        "0 "
    )
    assert wippy_queue("dead-letters", "purge", app, "app:tasks", "--yes").stdout == "1 dead letter removed\n"
    assert json.loads(wippy_queue("dead-letters", "list", app, "app:tasks", "--json").stdout) == []


def test_text_needs_to_be_called_text(app: Path, wippy_queue: Command) -> None:
    refused = wippy_queue("publish", app, "app:tasks", "hello")
    assert refused.returncode == 2
    assert "--text" in refused.stderr
    wippy_queue("publish", app, "app:tasks", "hello", "--text")
    (message,) = json.loads(wippy_queue("peek", app, "app:tasks", "--json").stdout)
    assert message["body"] == "hello"


@pytest.mark.parametrize(
    "command", [["publish", "app:tasks", "1"], ["info"], ["peek", "app:tasks"], ["purge", "app:tasks"]]
)
def test_a_memory_queue_cannot_be_reached_from_another_process(
    tmp_path: Path, command: list[str], wippy_queue: Command
) -> None:
    name, *arguments = command
    done = wippy_queue(name, write_app(tmp_path, MEMORY_APP), *arguments)
    assert done.returncode == 2
    assert "a memory queue lives inside" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["publish", "peek"])
def test_a_queue_that_does_not_exist_is_an_error_without_a_traceback(
    app: Path, command: str, wippy_queue: Command
) -> None:
    done = wippy_queue(command, app, "app:task", *(["1"] if command == "publish" else []))
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "app:tasks" in done.stderr  # did you mean
    assert "Traceback" not in done.stderr


def test_check_is_silent_about_an_application_without_mistakes(app: Path, wippy_queue: Command) -> None:
    done = wippy_queue("check", app)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no mistakes" in done.stdout


def test_check_tells_every_mistake_with_its_place(tmp_path: Path, wippy_queue: Command) -> None:
    app = write_app(tmp_path, APP.replace("queue: tasks", "queue: taks\n    concurency: 4"))
    done = wippy_queue("check", app)
    assert done.returncode == 1
    assert "_index.yaml:12" in done.stdout + done.stderr
    assert "_index.yaml:13" in done.stdout + done.stderr
    assert "did you mean 'concurrency'" in done.stdout + done.stderr
    places = {
        (problem["line"], problem["column"])
        for problem in json.loads(wippy_queue("check", app, "--json").stdout)["problems"]
    }
    assert {line for line, _ in places} == {12, 13}


def test_check_compiles_lua(app: Path, wippy_queue: Command) -> None:
    (app / "handler.lua").write_text("return function(body)\n  if then\nend\n", encoding="utf-8")
    done = wippy_queue("check", app)
    assert done.returncode == 1
    assert "handler.lua:2" in done.stdout + done.stderr


def test_check_warns_of_names_that_only_python_can_register(app: Path, wippy_queue: Command) -> None:
    index = app / "_index.yaml"
    index.write_text(index.read_text(encoding="utf-8").replace("[logger]", "[logger, mail]"), encoding="utf-8")
    done = wippy_queue("check", app)
    assert done.returncode == 0
    assert "Warning: " in done.stderr
    assert "mail" in done.stderr


def test_queues_can_be_asked_though_a_script_registers_what_the_handlers_need(app: Path, wippy_queue: Command) -> None:
    index = app / "_index.yaml"
    index.write_text(index.read_text(encoding="utf-8").replace("[logger]", "[logger, mail]"), encoding="utf-8")
    done = wippy_queue("info", app, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["app:tasks"]["message_count"] == 0


def test_run_refuses_an_application_with_mistakes(tmp_path: Path, wippy_queue: Command) -> None:
    done = wippy_queue("run", write_app(tmp_path, APP.replace("kind: queue.queue", "kind: queue.kew")))
    assert done.returncode == 1
    assert "_index.yaml:8" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_override_swaps_the_driver(tmp_path: Path, wippy_queue: Command) -> None:
    app = write_app(tmp_path, APP + "  - {name: memory, kind: queue.driver.memory}\n")
    done = wippy_queue("info", app, "-o", "app:tasks:driver=app:memory")
    assert done.returncode == 2


def test_every_command_has_help_with_an_example(wippy_queue: Command) -> None:
    listed = wippy_queue("--help").stdout
    for command in ("run", "check", "publish", "info", "peek", "purge"):
        assert command in listed
        assert f"wippy-queue {command} app/" in wippy_queue(command, "--help").stdout
    assert "Exit codes" in listed
