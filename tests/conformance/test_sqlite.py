"""The sqlite driver keeps the contract."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.conformance.leases import lease_for
from wippy_queue.driver import Driver, Subscription
from wippy_queue.drivers.sqlite import KIND, statements
from wippy_queue.drivers.sqlite.driver import SqliteDriver
from wippy_queue.drivers.sqlite.options import SqliteConfig
from wippy_queue.drivers.sqlite.subscription import SqliteSubscription
from wippy_queue.ids import EntryId
from wippy_queue.testing.conformance import DriverConformance


class TestSqlite(DriverConformance):
    kind = KIND
    moment = 0.05
    delay = 0.15

    @pytest.fixture(autouse=True)
    def _keep_file(self, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        self.file = tmp_path / "queues.db"
        self.kept_for = lease_for(self, request)

    def make_driver(self) -> Driver:
        return SqliteDriver(EntryId("test:sqlite"), SqliteConfig(file=os.fspath(self.file), lease=self.kept_for))

    def crash(self, driver: Driver) -> None:
        """What a SIGKILL leaves behind: rows and boards as they are, the locks of the boards gone."""
        assert isinstance(driver, SqliteDriver)
        opened, driver._open = driver._open, None
        assert opened is not None
        opened._keeper.stop(time.monotonic() + self.patience)
        opened._dropper.stop(time.monotonic() + self.patience)
        for subscription in opened._subscriptions:
            if subscription._board is not None:
                subscription._board.close()
        opened.writer.close()
        opened.reader.close()

    def lose_lease(self, driver: Driver, subscription: Subscription) -> None:
        """Do what the keeper of another process does when it has seen no beat for too long."""
        assert isinstance(driver, SqliteDriver)
        assert isinstance(subscription, SqliteSubscription)
        opened = driver._open
        assert opened is not None
        for token, queue, _, beat in opened.reader.run(statements.owners):
            if token == subscription.token:
                opened._keeper._take(token, queue, beat, "a test says so")
