"""Stops while the broker is silent: they keep their deadline, say what could not be settled, and lose nothing."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import attrs
import pytest

from tests.faults.application import driver_entry
from tests.faults.proxy import Proxy
from tests.moto_sqs import MotoSqs
from tests.redis_servers import redis_server
from tests.support import DEADLINE, eventually
from wippy_queue import Engine, ShutdownTimeout, StopReport, current_message
from wippy_queue.driver import GRACE

SLOW = 1.0  # seconds that a slow machine may take for what takes none
MESSAGES = 4  # of each queue: one runs, the others are buffered
MANY = {"amqp": 100, "redis": 100, "sqs": 40}  # consumers; moto is slow, and 40 are more than the driver has threads
AWAY = 1.0  # seconds
# After that, what a consumer that has vanished held comes back.
LEASE = {"amqp": {}, "redis": {"lease": "3s"}, "sqs": {"visibility_timeout": "3s"}}
PATIENT = {"amqp": {}, "redis": {"lease": "60s"}, "sqs": {"visibility_timeout": "60s"}}


@attrs.frozen
class Network:
    """A driver and the way to its server."""

    name: str
    proxy: Proxy
    url: str

    def entry(self) -> dict[str, Any]:
        return {**driver_entry(self.name, self.url), **LEASE[self.name]}


Scenario = Callable[[Network], None]


@pytest.fixture(scope="module", params=LEASE)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The name of a driver, and the url of its server."""
    if request.param == "amqp":
        yield request.param, request.getfixturevalue("amqp_url")
    elif request.param == "redis":
        with redis_server(tmp_path_factory.mktemp("redis")) as redis:
            yield request.param, redis.url
    else:
        moto = MotoSqs()
        yield request.param, moto.url
        moto.stop()


@contextmanager
def network_to(server: tuple[str, str]) -> Iterator[Network]:
    name, url = server
    with Proxy.to(url, 5672) as proxy:
        yield Network(name, proxy, proxy.url(url))


@pytest.fixture
def network(server: tuple[str, str]) -> Iterator[Network]:
    with network_to(server) as network:
        yield network


class Crowd:
    """An application of some queues, each with a consumer."""

    def __init__(self, driver: dict[str, Any], count: int) -> None:
        self._driver = driver
        self._run = uuid.uuid4().hex[:12]
        self.queues = [f"q{number}" for number in range(count)]
        self.handled: Counter[str] = Counter()
        self.running = threading.Semaphore(0)
        self.release = threading.Event()
        self._lock = threading.Lock()

    def engine(self) -> Engine:
        """Return an engine that runs; each consumer handles one message at a time, when it may."""
        aws = {"region": "eu-west-1", "access_key_id": "testing", "secret_access_key": "testing"}
        entries: list[dict[str, Any]] = [{**self._driver, "name": "driver"}]
        if self._driver.get("config") == "aws":
            entries.append({"name": "aws", "kind": "config.aws", **aws})
        for queue in self.queues:
            entries += [
                {"name": queue, "kind": "queue.queue", "driver": "driver", "queue_name": f"{self._run}-{queue}"},
                {
                    "name": f"{queue}-worker",
                    "kind": "queue.consumer",
                    "queue": queue,
                    "func": "handler",
                    "lifecycle": {"auto_start": True, "start_timeout": "60s"},
                },
            ]
        engine = Engine.from_entries(entries)
        engine.function("app:handler")(self._handle)
        engine.start()
        return engine

    def _handle(self, _: object) -> None:
        self.running.release()
        assert self.release.wait(DEADLINE)
        with self._lock:
            self.handled[current_message().id] += 1

    def publish(self, engine: Engine) -> set[str]:
        """Give each consumer something to do, and return the ids once all of them are busy."""
        published = [
            message_id
            for queue in self.queues
            for message_id in engine.publish_many(f"app:{queue}", ["body"] * MESSAGES, timeout=DEADLINE)
        ]
        for _ in self.queues:
            assert self.running.acquire(timeout=DEADLINE)
        return set(published)

    def all_come_again(self, published: set[str]) -> None:
        """See to it that another engine gets all of them."""
        self.handled.clear()
        engine = self.engine()
        eventually(lambda: published <= set(self.handled), "all of it comes again")
        engine.stop(DEADLINE)


def stop(engine: Engine, timeout: float) -> tuple[StopReport, float]:
    """Return what the stop reports, and how long it took."""
    since = time.monotonic()
    try:
        report = engine.stop(timeout)
    except ShutdownTimeout as error:
        report = error.report
    return report, time.monotonic() - since


def in_a_black_hole(network: Network, count: int, timeout: float) -> None:
    """Handlers end in time, and what they did cannot be settled; the report says so."""
    crowd = Crowd(network.entry(), count)
    engine = crowd.engine()
    published = crowd.publish(engine)
    network.proxy.swallow()
    crowd.release.set()
    report, took = stop(engine, timeout)
    print(f"{network.name}, {count} consumers: a stop of {timeout} s took {took:.2f} s")
    assert took < timeout + 2 * GRACE + SLOW
    assert report.finished == ()
    assert set(crowd.handled) <= set(report.abandoned)
    network.proxy.restore()
    crowd.all_come_again(published)


def in_a_black_hole_with_one_consumer(network: Network) -> None:
    in_a_black_hole(network, 1, 0.5)


def in_a_black_hole_with_five_consumers(network: Network) -> None:
    in_a_black_hole(network, 5, 1.0)


def while_connections_are_refused(network: Network) -> None:
    crowd = Crowd(network.entry(), 5)
    engine = crowd.engine()
    published = crowd.publish(engine)
    network.proxy.refuse()
    crowd.release.set()
    _, took = stop(engine, 0.5)
    assert took < 0.5 + 2 * GRACE + SLOW
    network.proxy.restore()
    crowd.all_come_again(published)


def in_a_black_hole_while_handlers_run(network: Network) -> None:
    """They are cut at the deadline."""
    crowd = Crowd(network.entry(), 5)
    engine = crowd.engine()
    published = crowd.publish(engine)
    network.proxy.swallow()
    report, took = stop(engine, 0.5)
    crowd.release.set()
    assert took < 0.5 + 2 * GRACE + SLOW
    assert len(report.abandoned) == 5
    assert set(report.abandoned) | set(report.handed_back) <= published
    network.proxy.restore()
    crowd.all_come_again(published)


def in_a_black_hole_without_anything_to_settle(network: Network) -> None:
    """It does not wait for the silent broker."""
    crowd = Crowd({**network.entry(), **PATIENT[network.name]}, 5)
    engine = crowd.engine()
    network.proxy.swallow()
    report, took = stop(engine, DEADLINE)
    assert report == StopReport()
    assert took < 4.0 + SLOW


SCENARIOS: list[Scenario] = [
    in_a_black_hole_with_one_consumer,
    in_a_black_hole_with_five_consumers,
    while_connections_are_refused,
    in_a_black_hole_while_handlers_run,
    in_a_black_hole_without_anything_to_settle,
]


@pytest.fixture(scope="module")
def begun(server: tuple[str, str]) -> Iterator[Mapping[Scenario, Future[None]]]:
    """All of them at the same time, each on a network of its own, for nearly all that they do is wait."""

    def run(scenario: Scenario) -> None:
        with network_to(server) as network:
            scenario(network)

    with ThreadPoolExecutor(len(SCENARIOS)) as pool:
        yield {scenario: pool.submit(run, scenario) for scenario in SCENARIOS}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.__name__ for scenario in SCENARIOS])
def test_a_stop_keeps_its_deadline_and_loses_nothing(
    begun: Mapping[Scenario, Future[None]], scenario: Scenario
) -> None:
    begun[scenario].result()


def test_a_stop_of_many_consumers_keeps_its_deadline_and_loses_nothing(network: Network) -> None:
    in_a_black_hole(network, MANY[network.name], 0.5)


@pytest.mark.parametrize("server", ["redis", "sqs"], indirect=True)
def test_a_stop_uses_its_time_to_settle_when_the_broker_comes_back(network: Network) -> None:
    """A lease outlives a connection, so nothing repeats. RabbitMQ gives to others what a lost connection held."""
    crowd = Crowd({**network.entry(), **PATIENT[network.name]}, 5)
    engine = crowd.engine()
    published = crowd.publish(engine)
    network.proxy.swallow()
    returning = threading.Timer(AWAY, network.proxy.restore)
    crowd.release.set()
    returning.start()
    report, _ = stop(engine, DEADLINE)
    assert report.abandoned == ()
    assert set(report.handed_back) | set(crowd.handled) == published
    handled = Counter(crowd.handled)
    crowd.all_come_again(published - set(handled))
    assert crowd.handled.keys().isdisjoint(handled)
