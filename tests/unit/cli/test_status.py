"""The file by which `run` tells `health` how it is."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import eventually
from wippy_queue import Engine
from wippy_queue.cli.status import FRESH, StatusFile, default_file, read_state
from wippy_queue.errors import NotFound, Unavailable


@pytest.fixture
def engine() -> Iterator[Engine]:
    entries: list[dict[str, Any]] = [
        {"name": "memory", "kind": "queue.driver.memory", "lifecycle": {"auto_start": True}},
        {"name": "tasks", "kind": "queue.queue", "driver": "memory"},
    ]
    engine = Engine.from_entries(entries)
    yield engine
    engine.stop()


def state(**changes: Any) -> str:
    well = {"live": True, "ready": True, "problems": [], "services": {}}
    return json.dumps({"pid": os.getpid(), "time": time.time(), **well, **changes})


def test_a_file_belongs_to_the_user_alone_and_is_gone_at_the_end(tmp_path: Path, engine: Engine) -> None:
    path = tmp_path / "state.json"
    with StatusFile(path, engine, required=True):
        assert path.stat().st_mode & 0o777 == 0o600
        assert read_state(path)["services"]["app:memory"]["state"] == "Unknown"
    assert list(tmp_path.iterdir()) == []


def test_a_change_is_written_at_once(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wippy_queue.cli.status._INTERVAL", 3600.0)
    with StatusFile(tmp_path / "state.json", engine, required=True):
        assert not read_state(tmp_path / "state.json")["ready"]
        engine.start()
        eventually(lambda: read_state(tmp_path / "state.json")["ready"], "the file tells that the driver runs")


def test_it_is_written_again_and_again(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wippy_queue.cli.status._INTERVAL", 0.01)
    path = tmp_path / "state.json"
    with StatusFile(path, engine, required=True):
        first = read_state(path)["time"]
        eventually(lambda: read_state(path)["time"] > first, "the file is written again")


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path, engine: Engine) -> None:
    victim = tmp_path / "victim"
    victim.write_text(precious := state(), encoding="utf-8")
    path = tmp_path / "state.json"
    path.symlink_to(victim)
    with pytest.raises(NotFound, match="cannot be read"):
        read_state(path)
    with StatusFile(path, engine, required=True):
        assert not path.is_symlink()
    assert victim.read_text(encoding="utf-8") == precious


def test_a_file_that_was_asked_for_and_cannot_be_written_is_an_error(tmp_path: Path, engine: Engine) -> None:
    with (
        pytest.raises(Unavailable, match="--health-file .*nowhere"),
        StatusFile(tmp_path / "nowhere" / "state.json", engine, required=True),
    ):
        pass


def test_without_a_place_for_the_default_file_the_application_runs_all_the_same(
    tmp_path: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with StatusFile(tmp_path / "nowhere" / "state.json", engine, required=False):
        engine.start()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "--health-file" in caplog.text


def test_the_end_leaves_the_file_of_another_process(tmp_path: Path, engine: Engine) -> None:
    path = tmp_path / "state.json"
    with StatusFile(path, engine, required=True):
        path.write_text(state(pid=1), encoding="utf-8")
    assert path.exists()


def test_passwords_do_not_get_into_it(tmp_path: Path) -> None:
    entries = [
        {
            "name": "rabbit",
            "kind": "queue.driver.amqp",
            "url": "amqp://guest:secret@127.0.0.1:1/",
            "connection_timeout": "100ms",
            "lifecycle": {"auto_start": True},
        }
    ]
    pytest.importorskip("pika")
    engine = Engine.from_entries(entries)
    path = tmp_path / "state.json"
    with StatusFile(path, engine, required=True):
        engine.start(wait=False)
        eventually(lambda: read_state(path)["problems"] and "127.0.0.1:1" in str(read_state(path)), "it has failed")
        assert "secret" not in path.read_text(encoding="utf-8")
        engine.stop()


def _old() -> str:
    return state(time=time.time() - FRESH - 1)


def _from_the_future() -> str:
    return state(time=time.time() + FRESH + 1)


def _of_a_dead_process() -> str:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return state(pid=child.pid)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (_old, "s old"),
        (_from_the_future, "s old"),
        (_of_a_dead_process, "is gone"),
        (lambda: "{", "not written by"),
        (lambda: "[]", "not written by"),
        (lambda: "{}", "not written by"),
        (lambda: json.dumps({"pid": os.getpid(), "time": time.time()}), "not written by"),
        (lambda: state(services={"app:files": "Running"}), "not written by"),
    ],
)
def test_what_is_no_proof_of_life_is_not_believed(tmp_path: Path, text: Any, expected: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text(), encoding="utf-8")
    with pytest.raises(NotFound, match=expected):
        read_state(path)


def test_the_file_of_another_user_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    path.write_text(state(), encoding="utf-8")
    me = os.getuid()
    for name in ("getuid", "geteuid"):
        monkeypatch.setattr(os, name, lambda: me + 1)
    with pytest.raises(NotFound, match="another user"):
        read_state(path)


def test_a_pipe_in_its_place_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotFound, match="is no file"):
        read_state(tmp_path / "pipe")


def test_all_names_of_an_application_lead_to_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    app = tmp_path / "app"
    app.mkdir()
    (tmp_path / "link").symlink_to(app)
    monkeypatch.chdir(tmp_path)
    assert default_file(app) == default_file(Path("app")) == default_file(tmp_path / "link")
    assert default_file(app) != default_file(tmp_path)
    assert default_file(app).parent == Path("/run/user/7")
