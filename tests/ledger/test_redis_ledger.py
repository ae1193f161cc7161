"""The ledger on Redis: a server of its own that has all on disk; its connections are cut and it is restarted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.child import WINDOW
from tests.ledger.ledger import Run
from tests.ledger.test_ledger import LEASE, disturb, seed
from tests.redis_servers import RedisServer, durable_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with durable_server(tmp_path / "redis") as server:
        yield server


class RedisRun(Run):
    """Faults of a server beside those of processes."""

    def __init__(self, folder: Path, server: RedisServer) -> None:
        driver: dict[str, Any] = {
            "kind": "queue.driver.redis",
            "url": server.url,
            "lease": LEASE,
            "meta": {"prefix": ""},
        }
        super().__init__(folder, driver, seed())
        self.server = server

    def cut(self) -> None:
        """End all connections while everybody works; nothing may repeat, for who holds what stands in the data."""
        self.server.kill_clients()
        self.faults["CLIENT KILL"] += 1

    def restart(self) -> None:
        """A server that is killed and comes back before the leases end."""
        self.server.stop()
        self.let_work(0.05, 0.3)
        self.server.start()
        self.allowed += 2 * WINDOW  # where coming back takes longer than the lease after all
        self.faults["server restart"] += 1


def test_redis_loses_nothing(tmp_path: Path, server: RedisServer) -> None:
    run = RedisRun(tmp_path, server)
    faults = {
        run.kill: 3,
        run.stop: 3,
        run.stop_during_start: 1,
        lambda: run.suspend(LEASE): 1,
        run.cut: 4,
        run.restart: 2,
    }
    for fault in faults:  # each of them once, then some by chance
        while len(run.children) < 2:
            run.spawn()
        run.let_work()
        fault()
    disturb(run, faults, lambda: run.faults.total() >= 9)
    run.check(run.settle(), exact_attempts=True)


def test_cut_connections_and_graceful_stops_repeat_nothing(tmp_path: Path, server: RedisServer) -> None:
    run = RedisRun(tmp_path, server)
    disturb(run, {run.stop: 1, run.cut: 3}, lambda: run.faults.total() >= 7)
    account = run.settle()
    run.check(account, exact_attempts=True)
    assert account.repeated == 0
