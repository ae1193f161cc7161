"""What made no sense, and was taken, or ended with an error of Python's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_engine import consumer, engine_of
from wippy_queue import Actor, ConfigurationError, Engine, Invalid, WippyQueueError
from wippy_queue.deadletters import Selection


@pytest.mark.parametrize(
    "fields",
    [
        {"ids": "12"},  # it took the messages 1 and 2
        {"ids": 12},
        {"reason": "atempts"},
        {"function": 5},
        {"older_than": "1h"},
        {"newer_than": float("nan")},
    ],
)
def test_a_selection_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=next(iter(fields))):
        Selection(**fields)


CALLS: list[Callable[[Any], Any]] = [
    lambda engine: engine.publish("app:tasks", 1, actor="joe"),
    lambda engine: engine.call("app:handler", 1, actor="joe"),
    lambda engine: engine.publish("app:tasks", 1, actor=Actor("joe", policies=5)),  # type: ignore[arg-type]
    lambda engine: engine.pause(None),
    lambda engine: engine.resume(5),
    lambda engine: engine.start_service(["app:memory"]),
    lambda engine: engine.stop_service(5),
    lambda engine: engine.subscribe(5),
    lambda engine: engine.module(5, {}),
    lambda engine: engine.module("mail", {3: len}),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_argument_is_an_error_of_ours(call: Callable[[Any], Any]) -> None:
    engine = engine_of(consumer())
    engine.function("app:handler")(lambda body: None)
    with engine, pytest.raises(WippyQueueError, match="expected"):
        call(engine)


@pytest.mark.parametrize("paths", [5, None, ["app"], b"app"])
def test_what_is_no_path_cannot_be_loaded(paths: Any) -> None:
    with pytest.raises(WippyQueueError, match="expected the path"):
        Engine.load(paths)


def test_a_misspelt_setting_is_a_mistake_although_unsupported_ones_are_skipped(tmp_path: Path) -> None:
    """`securty: {strict_mode: true}` was skipped with a warning, and the application ran without strict mode."""
    (tmp_path / "_index.yaml").write_text("version: '1.0'\nnamespace: app\nentries: []\n")
    settings = tmp_path / "wippy.yaml"
    for misspelt in ("securty: {strict_mode: true}", "security: {strict_mod: true}"):
        settings.write_text(misspelt)
        with pytest.raises(ConfigurationError, match="did you mean"):
            Engine.load(tmp_path, skip_unsupported=True)
    settings.write_text("prometheus: {enabled: true}")
    Engine.load(tmp_path, skip_unsupported=True)


def test_what_only_wippy_knows_is_skipped_where_that_is_asked_for() -> None:
    tasks = {"name": "more", "kind": "queue.queue", "driver": "memory", "lifecycle": {"auto_start": True}}
    with pytest.raises(ConfigurationError, match="exists in Wippy"):
        engine_of(tasks)
    engine_of(tasks, skip_unsupported=True)


def test_a_default_of_a_variable_holds_no_other_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gave `myhost}`."""
    monkeypatch.setenv("WQ_HOST", "myhost")
    with pytest.raises(ConfigurationError, match="cannot hold another"):
        engine_of(
            {"name": "more", "kind": "queue.queue", "driver": "memory", "queue_name": "${env:WQ_HOST|${env:X|y}}"}
        )


@pytest.mark.parametrize("size", ["99999999999GB", "1e9GB"])
def test_a_size_beyond_64_bits_is_a_mistake(size: str) -> None:
    with pytest.raises(ConfigurationError, match="memory_limit"):
        engine_of(consumer(memory_limit=size))


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e10", "-1"])
def test_a_stop_timeout_that_no_timer_takes_is_refused_at_once(tmp_path: Path, seconds: str) -> None:
    """It was found at Ctrl-C, and there was no stop at all."""
    (tmp_path / "_index.yaml").write_text("version: '1.0'\nnamespace: app\nentries: []\n")
    command = [sys.executable, "-m", "wippy_queue", "run", str(tmp_path), "--stop-timeout", seconds]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "stop-timeout" in done.stderr
