"""The ledger on SQS: processes that are killed and stopped, a moto that is away. It is slow, so this is a small one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.child import WINDOW
from tests.ledger.ledger import Run
from tests.ledger.test_ledger import LONG, seed
from tests.moto_sqs import MotoSqs

VISIBILITY = 3.0  # seconds until what a killed process held comes back


class SqsRun(Run):
    """A fault of a server beside those of processes."""

    def __init__(self, folder: Path, driver: dict[str, Any], server: MotoSqs) -> None:
        super().__init__(folder, driver, seed())
        self.server = server

    def restart(self) -> None:
        """A server that is away for a moment and has all its messages afterwards."""
        self.server.stop()
        self.let_work(0.05, 0.3)
        self.server.start()
        self.allowed += 2 * WINDOW
        self.faults["server restart"] += 1


@pytest.fixture
def server() -> Iterator[MotoSqs]:
    server = MotoSqs()
    yield server
    server.stop()


@pytest.fixture
def run(server: MotoSqs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqsRun:
    for name, value in (
        ("ACCESS_KEY_ID", "testing"),
        ("SECRET_ACCESS_KEY", "testing"),
        ("DEFAULT_REGION", "eu-west-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    driver: dict[str, Any] = {
        "kind": "queue.driver.sqs",
        "endpoint": server.url,
        "visibility_timeout": VISIBILITY,
        "wait_time": 1,
        "meta": {"prefix": f"ledger-{uuid.uuid4().hex[:8]}-"},
    }
    return SqsRun(tmp_path, driver, server)


def spawn(run: Run) -> None:
    run.spawn(2 - len(run.children), publishers=1, pause=0.3)


def test_sqs_loses_nothing(run: SqsRun) -> None:
    for fault in run.chance.sample([run.kill, run.stop, run.kill, run.stop, run.restart], 5):
        spawn(run)
        run.let_work(0.5, 1.0)
        fault()
    run.check(run.settle(), exact_attempts=False)


def test_graceful_stops_alone_repeat_nothing_on_sqs(run: SqsRun) -> None:
    run.driver["visibility_timeout"] = LONG
    for _ in range(3):
        spawn(run)
        run.let_work(0.5, 1.0)
        run.stop()
    account = run.settle()
    run.check(account, exact_attempts=False)
    assert account.repeated == 0
