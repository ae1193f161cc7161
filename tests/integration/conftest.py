"""What tests of whole applications share: the command line, in this process and in one of its own."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import APP, Command, Done, Run, Running, write_app
from wippy_queue.cli import main


@pytest.fixture
def queue_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_FILE", str(tmp_path / "queues.db"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # where `run` writes how it is


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return write_app(tmp_path, APP)


@pytest.fixture
def wippy_queue(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Run a command in this process, which is fast, and return what it printed."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    handlers, level = list(logging.root.handlers), logging.root.level

    def command(*arguments: object, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    yield command
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture
def run() -> Iterator[Run]:
    """Start ``wippy-queue run``, and end it however the test ends."""
    started: list[Running] = []

    def start(*arguments: object) -> Running:
        started.append(Running("run", *arguments))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.wait()
        assert running.process.stderr is not None
        running.process.stderr.close()
