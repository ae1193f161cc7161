"""The ledger on SQS: processes that are killed and stopped. moto is slow, so it is a small one."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.ledger import Run
from tests.ledger.test_ledger import seed

VISIBILITY = 3.0  # seconds until what a killed process held comes back


@pytest.fixture
def run(sqs_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name, value in (
        ("ACCESS_KEY_ID", "testing"),
        ("SECRET_ACCESS_KEY", "testing"),
        ("DEFAULT_REGION", "eu-west-1"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    driver: dict[str, Any] = {
        "kind": "queue.driver.sqs",
        "endpoint": sqs_endpoint,
        "visibility_timeout": VISIBILITY,
        "wait_time": 1,
        "meta": {"prefix": f"ledger-{uuid.uuid4().hex[:8]}-"},
    }
    return Run(tmp_path, driver, seed())


def spawn(run: Run) -> None:
    while len(run.children) < 2:
        run.spawn(publishers=1, pause=0.3)


def test_sqs_loses_nothing(run: Run) -> None:
    for fault in run.chance.sample([run.kill, run.stop, run.kill, run.stop], 4):
        spawn(run)
        run.let_work(0.5, 1.0)
        fault()
    run.check(run.settle(), exact_attempts=False)


def test_graceful_stops_alone_repeat_nothing_on_sqs(run: Run) -> None:
    for _ in range(3):
        spawn(run)
        run.let_work(0.5, 1.0)
        run.stop()
    account = run.settle()
    run.check(account, exact_attempts=False)
    assert account.repeated == 0
