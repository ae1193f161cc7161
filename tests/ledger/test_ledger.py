"""Faults, and the books afterwards: nothing confirmed is lost, and only what was in flight repeats.

The seed is printed; to repeat a run: WIPPY_QUEUE_LEDGER_SEED=123 make test ARGS="tests/ledger".
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.ledger import Run

LEASE = 1.0
LONG = 30.0  # a lease that no busy machine outlasts, for runs in which nothing may repeat


def seed() -> int:
    return int(os.environ.get("WIPPY_QUEUE_LEDGER_SEED") or random.randrange(2**32))


def sqlite_run(folder: Path, lease: float = LEASE) -> Run:
    driver: dict[str, Any] = {
        "kind": "queue.driver.sqlite",
        "file": str(folder / "queue.db"),
        "lease": lease,
        "meta": {"prefix": ""},
    }
    return Run(folder, driver, seed())


def sqlite_faults(run: Run) -> dict[Callable[[], None], int]:
    """Return the faults and how likely they are."""
    return {
        run.kill: 4,
        run.stop: 4,
        run.stop_during_start: 2,
        lambda: run.suspend(LEASE): 1,
        run.fill_disk: 1,
    }


def disturb(run: Run, faults: dict[Callable[[], None], int], until: Callable[[], bool]) -> None:
    """Keep two processes at work, and hurt them."""
    while not until():
        run.spawn(2 - len(run.children))
        run.let_work()
        run.chance.choices(list(faults), list(faults.values()))[0]()


def test_sqlite_loses_nothing(tmp_path: Path) -> None:
    run = sqlite_run(tmp_path)
    faults = sqlite_faults(run)
    for fault in faults:  # each of them once, then some by chance
        run.spawn(2 - len(run.children))
        run.let_work()
        fault()
    disturb(run, faults, lambda: run.faults.total() >= 10)
    run.check(run.settle(), exact_attempts=True)


def test_graceful_stops_alone_repeat_nothing(tmp_path: Path) -> None:
    run = sqlite_run(tmp_path, LONG)
    disturb(run, {run.stop: 3, run.stop_during_start: 1}, lambda: run.faults.total() >= 6)
    account = run.settle()
    run.check(account, exact_attempts=True)
    assert account.repeated == 0


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_sqlite_loses_nothing_for_ten_minutes(tmp_path: Path) -> None:
    run = sqlite_run(tmp_path)
    end = time.monotonic() + 600
    disturb(run, sqlite_faults(run), lambda: time.monotonic() > end)
    run.check(run.settle(), exact_attempts=True)
