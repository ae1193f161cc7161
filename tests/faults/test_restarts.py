"""Servers that end and come back while an application publishes and consumes, on each driver that has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from tests.faults.application import RESUMES, Application, driver_entry
from tests.moto_sqs import MotoSqs
from tests.redis_servers import durable_server
from tests.support import eventually


@attrs.frozen(kw_only=True)
class Server:
    """A server that nobody else uses, which keeps what it has confirmed."""

    name: str
    url: str
    stop: Callable[[], None]
    start: Callable[[], None]


@pytest.fixture(params=["amqp", "redis", "sqs"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    name = request.param
    if name == "amqp":
        rabbit = request.getfixturevalue("own_rabbit")
        yield Server(
            name=name, url=rabbit.url, stop=lambda: rabbit.ctl("stop_app"), start=lambda: rabbit.ctl("start_app")
        )
    elif name == "redis":
        with durable_server(tmp_path) as redis:
            yield Server(name=name, url=redis.url, stop=redis.stop, start=redis.start)
    else:
        moto = MotoSqs()
        yield Server(name=name, url=moto.url, stop=moto.stop, start=moto.start)
        moto.stop()


@pytest.fixture
def application(server: Server) -> Iterator[Application]:
    application = Application(driver_entry(server.name, server.url))
    yield application
    application.stop()


def test_a_restart_under_load_loses_nothing_that_was_confirmed(server: Server, application: Application) -> None:
    load = application.load()
    application.more()
    server.stop()
    application.until_refused(application.refused.total() + 2)
    server.start()
    application.goes_on(RESUMES)
    application.balance(load, server.name)


def test_a_handler_that_outlives_a_restart_costs_a_repetition_at_most(server: Server, application: Application) -> None:
    """It ends while the server is away; whoever holds the message then, it is handled, and nothing stays behind."""
    application.release.clear()
    held = application.engine.publish("app:tasks", "held")
    eventually(application.running.is_set, "the handler runs")
    server.stop()
    application.release.set()
    eventually(lambda: held in application.handled, "the handler has ended")
    server.start()
    application.goes_on(RESUMES)
    application.engine.join("app:tasks", timeout=20.0)
    assert 1 <= application.handled[held] <= 2
