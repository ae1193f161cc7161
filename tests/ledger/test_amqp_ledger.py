"""The ledger on a RabbitMQ of its own, whose connections are closed, and which is restarted, while everybody works."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.child import DYING, WINDOW, mood
from tests.ledger.ledger import PATIENCE, Account, Run
from tests.ledger.test_ledger import disturb, seed
from tests.rabbit_server import RabbitServer

# Seconds without a handler that starts, after which nothing is left: longer than any delay, and where something is
# missing, than any reconnect.
_QUIET = 0.6
_MISSING = 5.0


class AmqpRun(Run):
    """Faults of connections beside those of processes."""

    def __init__(self, folder: Path, server: RabbitServer, queue_type: str = "classic") -> None:
        driver: dict[str, Any] = {
            "kind": "queue.driver.amqp",
            "url": server.url,
            "reconnect_delay": "50ms",
            "reconnect_max_delay": "500ms",
            "meta": {"prefix": f"ledger-{uuid.uuid4().hex[:8]}-", "options": {"queue_type": queue_type}},
        }
        super().__init__(folder, driver, seed())
        self.server = server

    def close_connections(self) -> None:
        """What each consumer holds is void, and comes again."""
        self.server.close_connections()
        self.allowed += 2 * WINDOW
        self.faults["close_all_connections"] += 1

    def close_channels(self) -> None:
        self.server.close_channels()
        self.allowed += 2 * WINDOW
        self.faults["closed channels"] += 1

    def restart(self) -> None:
        """A broker that is away for a moment while everybody works."""
        self.server.ctl("stop_app")
        self.let_work(0.05, 0.3)
        self.server.ctl("start_app")
        self.allowed += 2 * WINDOW
        self.faults["broker restart"] += 1

    def settle(self) -> Account:
        """RabbitMQ tells nobody what others delay or hold, so `join` cannot wait for that: the journal does."""
        while self.children:
            self.stop()
        self.spawn(publishers=0)
        journal = self.folder / "effects"
        missing = {message_id for message_id in self.confirmed() if mood(message_id) not in DYING}
        size, since, end = -1, time.monotonic(), time.monotonic() + PATIENCE
        while time.monotonic() - since < (_MISSING if missing else _QUIET):
            assert time.monotonic() < end
            if (now := journal.stat().st_size) != size:
                size, since = now, time.monotonic()
                missing -= {line[3:] for line in journal.read_text().splitlines() if line.startswith("ok ")}
            time.sleep(0.05)
        return super().settle()


Start = Callable[..., AmqpRun]


@pytest.fixture
def start(tmp_path: Path, own_rabbit: RabbitServer) -> Iterator[Start]:
    """Begin a run, whose processes end with the test."""
    with ExitStack() as stack:

        def end(run: AmqpRun) -> None:
            for child in run.children:
                child.kill()

        def start(queue_type: str = "classic") -> AmqpRun:
            run = AmqpRun(tmp_path, own_rabbit, queue_type)
            stack.callback(end, run)
            return run

        yield start


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_amqp_loses_nothing(start: Start, queue_type: str) -> None:
    run = start(queue_type)
    faults = {
        run.kill: 3,
        run.stop: 3,
        run.stop_during_start: 1,
        run.close_connections: 3,
        run.close_channels: 1,
        run.restart: 1,
    }
    for fault in faults:  # each of them once, then some by chance
        run.spawn(2 - len(run.children))
        run.let_work()
        fault()
    disturb(run, faults, lambda: run.faults.total() >= 7)
    run.check(run.settle(), exact_attempts=False)


def test_graceful_stops_alone_repeat_nothing_on_amqp(start: Start) -> None:
    run = start()
    disturb(run, {run.stop: 3, run.stop_during_start: 1}, lambda: run.faults.total() >= 6)
    account = run.settle()
    run.check(account, exact_attempts=True)
    assert account.repeated == 0
