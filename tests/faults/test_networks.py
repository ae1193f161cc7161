"""What networks do to an application under load, on each driver that has one in between."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.application import Application, driver_entry
from tests.faults.proxy import Proxy
from tests.moto_sqs import MotoSqs
from tests.redis_servers import redis_server


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(scope="module")
def sqs_url() -> Iterator[str]:
    server = MotoSqs()
    yield server.url
    server.stop()


@pytest.fixture(params=["amqp", "redis", "sqs"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def proxy(name: str, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    with Proxy.to(request.getfixturevalue(f"{name}_url"), 5672) as proxy:
        yield proxy


@pytest.fixture
def application(name: str, proxy: Proxy, request: pytest.FixtureRequest) -> Iterator[Application]:
    url = proxy.url(request.getfixturevalue(f"{name}_url"))
    application = Application(driver_entry(name, url))
    yield application
    application.stop()


def test_resets_lose_nothing_and_all_goes_on(name: str, proxy: Proxy, application: Application) -> None:
    load = application.load()
    for _ in range(3):
        application.more()
        proxy.reset()
    application.goes_on()
    application.balance(load, name)


def test_a_slow_network_only_slows_down(name: str, proxy: Proxy, application: Application) -> None:
    proxy.latency = 0.03
    application.patience = 5.0
    load = application.load()
    application.more(30)
    application.goes_on()
    application.balance(load, name)
    assert not application.refused


def test_a_black_hole_under_load_is_told_in_time_and_left(name: str, proxy: Proxy, application: Application) -> None:
    load = application.load()
    application.more()
    proxy.swallow()
    application.until_refused(application.refused.total() + 2)
    proxy.restore()
    application.goes_on()
    application.balance(load, name)
