"""What every test may ask for."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.rabbit_server import RabbitServer, start_server

settings.register_profile("ours", deadline=None)  # a machine that stalls is no failure of an example
settings.load_profile("ours")

REQUIRED = os.environ.get("WIPPY_QUEUE_REQUIRE_BROKERS") == "1"


def pytest_collection_finish() -> None:
    """What is here now stays to the end: the collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


def _broker(name: str, url: str, port: int) -> str:
    """Return the url of a broker that answers; else skip, or fail where CI says that all brokers must be there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError as error:
        message = f"{name} does not answer at {url}: {error.strerror or error}"
        if REQUIRED:
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    return url


@pytest.fixture(scope="session")
def redis_url() -> str:
    return _broker("Redis", "redis://127.0.0.1:6379/0", 6379)


@pytest.fixture(scope="session")
def amqp_url() -> str:
    return _broker("RabbitMQ", "amqp://guest:guest@127.0.0.1:5672/", 5672)


@pytest.fixture(scope="session")
def own_rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """A RabbitMQ that tests may stop, starve and kill, for nobody else uses it."""
    server = start_server(tmp_path_factory.mktemp("rabbit"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def sqs_endpoint() -> Iterator[str]:
    """SQS as moto has it, which runs here."""
    if not REQUIRED:
        pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[server]'")
    from tests.moto_sqs import MotoSqs

    server = MotoSqs()
    yield server.url
    server.stop()
