"""The bare client libraries do the work that they are compared with, and all of it."""

from __future__ import annotations

import math
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import boto3
import msgspec
import pika
import pytest
from pika.exceptions import ChannelClosedByBroker
from redis import Redis

from tests.support import DEADLINE, eventually
from wippy_queue.bench.client import Client
from wippy_queue.bench.client_amqp import Pika
from wippy_queue.bench.client_contestant import ClientContestant
from wippy_queue.bench.client_redis import RedisStreams
from wippy_queue.bench.client_sqlite import Sqlite
from wippy_queue.bench.client_sqs import Boto3
from wippy_queue.bench.contestant import Task
from wippy_queue.bench.measure import Run, measure
from wippy_queue.bench.workloads import WORKLOADS
from wippy_queue.errors import Internal, Invalid, Timeout


class Backend:
    """A place for queues, and what it says of them."""

    driver: str
    kind: type[Client]

    def __init__(self, url: str) -> None:
        self.url = url

    def waiting(self, name: str) -> int | None:
        """Return how many messages nobody has fetched; None: there is no such queue."""
        raise NotImplementedError

    def held(self, name: str) -> int:
        """Return how many are not settled, as far as the backend tells that."""
        raise NotImplementedError


class OnAmqp(Backend):
    driver, kind = "amqp", Pika

    def waiting(self, name: str) -> int | None:
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            try:
                found = connection.channel().queue_declare(name, passive=True)
            except ChannelClosedByBroker:
                return None
            return int(found.method.message_count)

    def held(self, name: str) -> int:
        return self.waiting(name) or 0


class OnRedis(Backend):
    driver, kind = "redis", RedisStreams

    def waiting(self, name: str) -> int | None:
        server: Any
        with Redis.from_url(self.url, protocol=2) as server:
            return server.xlen(name) - server.xpending(name, "group")["pending"] if server.exists(name) else None

    def held(self, name: str) -> int:
        server: Any
        with Redis.from_url(self.url, protocol=2) as server:
            return int(server.xlen(name))


class OnSqs(Backend):
    driver, kind = "sqs", Boto3

    def waiting(self, name: str) -> int | None:
        return self._count(name, "")

    def held(self, name: str) -> int:
        return self._count(name, "NotVisible") or 0

    def _count(self, name: str, what: str) -> int | None:
        sqs = boto3.client("sqs", endpoint_url=self.url)
        urls = [url for url in sqs.list_queues().get("QueueUrls", ()) if url.endswith(f"/{name}")]
        attribute = f"ApproximateNumberOfMessages{what}"
        for url in urls:
            return int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[attribute])["Attributes"][attribute])
        return None


class OnSqlite(Backend):
    driver, kind = "sqlite", Sqlite

    def waiting(self, name: str) -> int | None:
        return sum(not claimed for _, claimed in self.rows(name)) if self.files else None

    def held(self, name: str) -> int:
        return len(self.rows(name))

    @property
    def files(self) -> list[Path]:
        """Those in the folder where the file is to be."""
        return list(Path(self.url).parent.rglob("*.db"))

    def rows(self, name: str) -> list[tuple[bytes, int]]:
        """Return the bodies, and whether they are claimed."""
        [file] = self.files
        connection = sqlite3.connect(file)
        found = connection.execute("SELECT body, claimed FROM message WHERE queue = ?", (name,)).fetchall()
        connection.close()
        return found


@pytest.fixture
def on_amqp(amqp_url: str) -> OnAmqp:
    return OnAmqp(amqp_url)


@pytest.fixture
def on_redis(redis_url: str) -> OnRedis:
    return OnRedis(redis_url)


@pytest.fixture
def on_sqs(sqs_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> OnSqs:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    return OnSqs(sqs_endpoint)


@pytest.fixture
def on_sqlite(tmp_path: Path) -> OnSqlite:
    return OnSqlite(str(tmp_path / "bench.db"))


@pytest.fixture(params=["sqlite", "amqp", "redis", "sqs"])
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.getfixturevalue(f"on_{request.param}")
    return found


@pytest.fixture
def client(backend: Backend) -> Iterator[Client]:
    """A client with a window of six."""
    made = backend.kind(backend.url, 6)
    yield made
    made.close()


def contestant(driver: str, url: str | None, workload: str = "noop") -> ClientContestant:
    found = WORKLOADS[workload]
    task = Task(
        workload=found,
        source=found.text(1),
        started=lambda _: None,
        driver=driver,
        url=url,
        concurrency=2,
        prefetch=4,
    )
    return ClientContestant(task)


@pytest.mark.parametrize("workload", ["noop", "json"])
def test_the_library_is_measured_on_every_driver(backend: Backend, workload: str) -> None:
    run = Run(
        engine="client",
        workload=workload,
        driver=backend.driver,
        url=backend.url,
        concurrency=2,
        prefetch=10,
        messages=40,
        loops=100,
        rate=500.0,
        latencies=20,
    )
    numbers = attrs.asdict(measure(run))
    numbers.pop("quantiles")
    assert all(math.isfinite(number) and number > 0 for number in numbers.values())


def test_every_message_is_handled_once_and_settled(client: Client, backend: Backend) -> None:
    bodies = [b"%d" % number for number in range(25)]
    handled: list[bytes] = []
    client.send_many(client.tasks, bodies[:-1])
    client.start([handled.append] * 3)
    client.send(client.tasks, bodies[-1])
    client.wait(25, DEADLINE)
    assert sorted(handled) == sorted(bodies)
    assert backend.held(client.tasks) == 0


def test_no_more_than_the_window_is_in_the_process(client: Client, backend: Backend) -> None:
    go = threading.Event()
    client.send_many(client.tasks, [b"x"] * 20)
    client.start([lambda _: go.wait(DEADLINE)] * 2)
    try:
        eventually(lambda: backend.waiting(client.tasks) == 14, "the window is full")
        with pytest.raises(Timeout, match="0 of 1 messages"):
            client.wait(1, 0.3)
        assert backend.waiting(client.tasks) == 14
    finally:
        go.set()
    client.wait(20, DEADLINE)


def test_what_a_handler_publishes_is_in_the_second_queue(backend: Backend) -> None:
    made = contestant(backend.driver, backend.url, "json")
    try:
        made.publish([WORKLOADS["json"].body(number) for number in range(10)])
        made.start()
        made.wait(10, DEADLINE)
        eventually(lambda: backend.waiting(made._client.done) == 10, "all ten are there")
    finally:
        made.stop()


def test_what_a_handler_publishes_is_what_lua_has_encoded(on_sqlite: OnSqlite) -> None:
    made = contestant("sqlite", on_sqlite.url, "json")
    made.publish([WORKLOADS["json"].body(7)])
    made.start()
    made.wait(1, DEADLINE)
    [(body, _)] = on_sqlite.rows(made._client.done)
    made.stop()
    expected = WORKLOADS["json"].body(7)
    expected["status"] = "packed"
    expected["customer"]["visits"] += 1
    expected["items"][1]["count"] = 0
    expected["tags"].append("seen")
    expected["notes"].pop("internal")  # null is nil in Lua
    assert msgspec.json.decode(body) == expected


def test_nothing_is_left_in_the_backend(backend: Backend) -> None:
    made = contestant(backend.driver, backend.url)
    names = made._client.tasks, made._client.done
    made.publish([{"n": 1}, {"n": 2}])
    assert [backend.waiting(name) for name in names] == [2, 0]
    made.stop()
    assert [backend.waiting(name) for name in names] == [None, None]


def test_a_handler_that_fails_ends_the_wait_and_is_named(client: Client) -> None:
    def handle(body: bytes) -> None:
        raise ValueError(f"no use for {body!r}")

    client.send(client.tasks, b"this")
    client.start([handle])
    with pytest.raises(Internal, match="ValueError: no use for b'this'"):
        client.wait(1, DEADLINE)


@pytest.mark.parametrize(("driver", "library"), [("amqp", "pika"), ("redis", "redis"), ("sqs", "boto3")])
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    driver: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"wippy_queue.bench.client_{driver}")
    with pytest.raises(Invalid, match=rf"needs {library}, .*: pip install 'wippy_queue\[{driver}\]'"):
        contestant(driver, None)
