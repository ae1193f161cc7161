"""A RabbitMQ that the tests of this folder may stop and starve, for nobody else uses it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rabbit_server import RabbitServer, start_server


@pytest.fixture(scope="session")
def own_rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    server = start_server(tmp_path_factory.mktemp("rabbit"))
    yield server
    server.stop()
