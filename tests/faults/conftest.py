"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.faults.application import Application
from tests.redis_servers import RedisServer, cluster

Start = Callable[..., Application]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start applications, which are stopped when the test ends."""
    with ExitStack() as stack:

        def start(driver: dict[str, Any], **queue: Any) -> Application:
            application = Application(driver, **queue)
            stack.callback(application.stop)
            return application

        yield start


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """Three masters, and a replica of the first."""
    with cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes
