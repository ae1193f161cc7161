"""The ledger on Redis: servers of its own whose connections are cut, and which are restarted, emptied and replaced."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.child import WINDOW
from tests.ledger.ledger import Run
from tests.ledger.test_ledger import LEASE, LONG, disturb, seed
from tests.redis_servers import RedisServer, durable_server, kill_master, sentinel_group


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with durable_server(tmp_path / "redis") as server:
        yield server


class RedisRun(Run):
    """Faults of a server beside those of processes."""

    def __init__(self, folder: Path, server: RedisServer, lease: float = LEASE) -> None:
        driver: dict[str, Any] = {
            "kind": "queue.driver.redis",
            "url": server.url,
            "lease": lease,
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

    def lose_data(self) -> None:
        """A server that comes back empty: what it had is its loss, and nothing else."""
        self.server.stop()
        self.let_work(0.3, 0.5)
        self.doomed |= self.server.message_ids_on_disk()
        self.server.forget()
        self.server.start()
        self.more()
        self.allowed += 2 * WINDOW
        self.faults["server lost its data"] += 1

    def fail_over(self, replica: RedisServer) -> None:
        """A master that dies; what its replica had not heard of is the group's loss, and nothing else."""
        lost, returned = kill_master(self.server, replica, meanwhile=partial(self.more, 50))
        self.doomed |= lost
        self.more()
        self.allowed += 2 * WINDOW + len(returned)
        self.faults["failover"] += 1


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
        run.spawn(2 - len(run.children))
        run.let_work()
        fault()
    disturb(run, faults, lambda: run.faults.total() >= 9)
    run.check(run.settle(), exact_attempts=True)


def test_cut_connections_and_graceful_stops_repeat_nothing(tmp_path: Path, server: RedisServer) -> None:
    run = RedisRun(tmp_path, server, LONG)
    disturb(run, {run.stop: 1, run.cut: 3}, lambda: run.faults.total() >= 7)
    account = run.settle()
    run.check(account, exact_attempts=True)
    assert account.repeated == 0


def test_only_a_server_that_loses_its_data_loses_messages(tmp_path: Path, server: RedisServer) -> None:
    run = RedisRun(tmp_path, server)
    for fault in (run.cut, run.lose_data, run.kill, run.lose_data, run.stop):
        run.spawn(2 - len(run.children))
        run.let_work()
        fault()
    run.check(run.settle(), exact_attempts=False)


def test_a_failover_loses_nothing_but_what_was_not_replicated(tmp_path: Path) -> None:
    with sentinel_group(tmp_path / "group") as (master, replica, sentinel):
        run = RedisRun(tmp_path, master)
        del run.driver["url"]
        run.driver["sentinel"] = {"hosts": [f"127.0.0.1:{sentinel.port}"], "master": "main"}
        for fault in (run.kill, partial(run.fail_over, replica), run.stop):
            run.spawn(2 - len(run.children))
            run.let_work()
            fault()
        run.check(run.settle(), exact_attempts=False)
