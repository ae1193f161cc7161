"""What the redis driver does when its server is killed, paused, full, replaced or away."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.proxy import Proxy
from tests.redis_servers import RedisServer, durable_server, redis_server, sentinel_group
from tests.support import DEADLINE, eventually, message
from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.drivers.redis.driver import RedisDriver
from wippy_queue.drivers.redis.options import RedisConfig, SentinelConfig
from wippy_queue.drivers.redis.subscription import RedisSubscription
from wippy_queue.errors import Timeout, Unavailable
from wippy_queue.ids import EntryId
from wippy_queue.queues import Queue

SLACK = 3.0  # seconds by which a deadline may be missed on a slow machine


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server for faults that it survives as it is."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    shared.ask("FLUSHALL")
    return shared


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """A server for one test, which has on disk what it has confirmed."""
    with durable_server(tmp_path) as server:
        yield server


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", server.port) as proxy:
        yield proxy


# Fixtures are taken down in the order opposite to that of a test's arguments: `make` comes last, drivers stop first.


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Callable[..., RedisDriver]:
    """Return drivers that are stopped when the test ends."""

    def driver(url: str, **config: Any) -> RedisDriver:
        config = {"lease": 10.0, "connection_timeout": 2.0, "reconnect_max_delay": 0.5, **config}
        made = RedisDriver(EntryId("test:redis"), RedisConfig(url=url, **config))
        request.addfinalizer(lambda: made.stop(DEADLINE))
        made.start()
        return made

    return driver


def declared(driver: RedisDriver, name: str = "tasks") -> Queue:
    queue = Queue(id=EntryId(f"test:{name}"), name=name, driver=EntryId("test:redis"))
    driver.declare(queue)
    return queue


class Consumer:
    """A feeder that acks what comes; nobody but the driver mends what breaks."""

    def __init__(self, driver: RedisDriver, queue: Queue, window: int = 20) -> None:
        self.subscription = driver.subscribe(queue, window)
        self.seen: Counter[str] = Counter()
        self.errors: list[Exception] = []
        self.lost: list[Exception] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self.subscription._cancelled:
                for delivery in self.subscription.receive(10, 5.0):
                    if self.subscription.begin([delivery]):
                        self.seen[delivery.message.id] += 1
                        delivery.claim()
                        self.subscription.settle([Settlement(delivery, done=self._done)])
        except Exception as error:
            self.errors.append(error)

    def _done(self, error: Exception | None) -> None:
        if error is not None:
            self.lost.append(error)

    def waits_for(self, *ids: str) -> None:
        eventually(lambda: set(ids) <= set(self.seen), f"{len(ids)} messages are delivered")
        assert not self.errors


def publish(driver: RedisDriver, queue: Queue, *ids: str, timeout: float = DEADLINE) -> None:
    driver.publish(queue, [message(one) for one in ids], timeout)


def received(subscription: RedisSubscription) -> Delivery:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        for delivery in subscription.receive(1, 0.5):
            return delivery
    raise AssertionError("no message came")


def settled(subscription: RedisSubscription, delivery: Delivery) -> Exception | None:
    """Ack, and return what became of it."""
    results: list[Exception | None] = []
    assert delivery.claim()
    subscription.settle([Settlement(delivery, done=results.append)])
    eventually(lambda: results, "the ack is reported")
    return results[0]


def seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def test_killed_connections_lose_and_repeat_nothing(server: RedisServer, make: Callable[..., RedisDriver]) -> None:
    """Publishers and consumers go on by themselves; a publish whose answer was lost is not stored twice."""
    driver = make(server.url)
    queue = declared(driver)
    consumers = [Consumer(driver, queue) for _ in range(2)]
    confirmed: list[str] = []
    stop = threading.Event()

    def publisher(number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            publish(driver, queue, f"{number}-{count}")
            confirmed.append(f"{number}-{count}")

    threads = [threading.Thread(target=publisher, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for kill in range(1, 9):
        wanted = 50 * kill
        eventually(lambda wanted=wanted: len(confirmed) > wanted, "publishers go on")  # type: ignore[misc]
        server.kill_clients()
    stop.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert driver.wait_idle(queue, DEADLINE)
    seen = consumers[0].seen + consumers[1].seen
    assert set(confirmed) == set(seen)
    assert max(seen.values()) == 1
    assert not consumers[0].lost + consumers[1].lost


def test_a_paused_server_gives_a_timeout_within_the_deadline(
    server: RedisServer, make: Callable[..., RedisDriver]
) -> None:
    """And the same publish again, later, stores one message."""
    driver = make(server.url)
    queue = declared(driver)
    publish(driver, queue, "before")
    server.ask("CLIENT", "PAUSE", 60_000, "WRITE")
    with pytest.raises(Timeout):
        assert seconds(lambda: publish(driver, queue, "a", timeout=0.3)) < 0.3 + SLACK
    server.ask("CLIENT", "UNPAUSE")
    publish(driver, queue, "a")
    assert [one.id for one in driver.peek(queue, 10)] == ["before", "a"]


def test_a_consumer_goes_on_after_a_pause_and_repeats_nothing(
    server: RedisServer, make: Callable[..., RedisDriver]
) -> None:
    """The answers come late, on connections that were given up meanwhile."""
    driver = make(server.url, connection_timeout=0.3)
    queue = declared(driver)
    consumer = Consumer(driver, queue)
    publish(driver, queue, "before")
    consumer.waits_for("before")
    server.ask("CLIENT", "PAUSE", 1000, "ALL")
    publish(driver, queue, *(f"m-{number}" for number in range(50)))
    consumer.waits_for(*(f"m-{number}" for number in range(50)))
    assert driver.wait_idle(queue, DEADLINE)
    assert max(consumer.seen.values()) == 1


def test_a_publish_whose_answer_comes_late_is_not_stored_again_when_its_message_is_gone(
    server: RedisServer, proxy: Proxy, make: Callable[..., RedisDriver]
) -> None:
    """It is sent again after the consumer has acked the message, so the id is not there any more to tell."""
    driver = make(server.url)
    queue = declared(driver)
    consumer = Consumer(driver, queue)
    remote = make(proxy.url(server.url))
    declared(remote)
    publish(remote, queue, "before")
    proxy.latency = 1.0  # of the answer as well: it has not come when the connection is cut
    publishing = threading.Thread(target=publish, args=(remote, queue, "once"), daemon=True)
    publishing.start()
    consumer.waits_for("before", "once")
    assert driver.wait_idle(queue, DEADLINE)
    proxy.latency = 0.0
    proxy.reset()
    publishing.join(DEADLINE)
    assert not publishing.is_alive()
    publish(remote, queue, "after")
    consumer.waits_for("after")
    assert driver.wait_idle(queue, DEADLINE)
    assert consumer.seen == Counter(("before", "once", "after"))


def test_a_queue_that_was_deleted_is_made_again_under_its_consumer(
    server: RedisServer, make: Callable[..., RedisDriver]
) -> None:
    """And who held something of it is told."""
    driver = make(server.url, lease=1.0)
    queue = declared(driver)
    publish(driver, queue, "held")
    subscription = driver.subscribe(queue, 1)
    held = received(subscription)
    consumer = Consumer(driver, queue)
    server.ask("DEL", *server.ask("KEYS", "wq:{tasks}*"))
    assert isinstance(settled(subscription, held), Exception)
    publish(driver, queue, "new")
    consumer.waits_for("new")
    assert driver.wait_idle(queue, DEADLINE)


def test_a_restart_within_the_lease_costs_nothing(own: RedisServer, make: Callable[..., RedisDriver]) -> None:
    """Who holds what is in the data: a handler that ran meanwhile may still ack, and others still wait."""
    driver = make(own.url)
    queue = declared(driver)
    publish(driver, queue, "held", "waiting")
    subscription = driver.subscribe(queue, 1)
    held = received(subscription)
    assert subscription.begin([held])
    own.stop()
    own.start()
    assert settled(subscription, held) is None
    subscription.close(DEADLINE)
    consumer = Consumer(driver, queue)
    consumer.waits_for("waiting")
    publish(driver, queue, "new")
    consumer.waits_for("new")
    assert "held" not in consumer.seen


def test_a_server_that_comes_back_empty_is_used_again(own: RedisServer, make: Callable[..., RedisDriver]) -> None:
    """What it had is gone, and who held something is told; the consumer goes on."""
    driver = make(own.url)
    queue = declared(driver)
    publish(driver, queue, "held", "gone")
    subscription = driver.subscribe(queue, 1)
    held = received(subscription)
    consumer = Consumer(driver, queue)
    own.stop()
    own.forget()
    own.start()
    assert isinstance(settled(subscription, held), Exception)
    publish(driver, queue, "new")
    consumer.waits_for("new")
    assert driver.wait_idle(queue, DEADLINE)


def test_while_the_server_is_away_everything_ends_in_time(own: RedisServer, make: Callable[..., RedisDriver]) -> None:
    driver = make(own.url)
    queue = declared(driver)
    publish(driver, queue, "held")
    consumer = Consumer(driver, queue)
    consumer.waits_for("held")
    subscription = driver.subscribe(queue, 5)
    own.stop()
    with pytest.raises((Unavailable, Timeout)) as caught:
        assert seconds(lambda: publish(driver, queue, "a", timeout=0.5)) < 0.5 + SLACK
    assert caught.value.retryable
    assert caught.value.details["accepted"] == []
    assert seconds(lambda: subscription.receive(1, 0.3)) < 0.3 + SLACK
    assert seconds(lambda: subscription.close(0.5)) < SLACK
    assert seconds(lambda: driver.stop(0.5)) < 0.5 + SLACK
    with pytest.raises(Unavailable, match="cannot be reached"):
        driver.start()


def test_a_full_memory_refuses_publishes_and_nothing_else(
    server: RedisServer, make: Callable[..., RedisDriver]
) -> None:
    driver = make(server.url)
    queue = declared(driver)
    publish(driver, queue, "a", "b")
    subscription = driver.subscribe(queue, 5)
    server.ask("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(Unavailable, match="raise `maxmemory`"):
            publish(driver, queue, "c", timeout=5.0)
        first = received(subscription)
        assert subscription.begin([first])
        assert settled(subscription, first) is None
    finally:
        server.ask("CONFIG", "SET", "maxmemory", 0)
    publish(driver, queue, "c")
    assert driver.info(queue).message_count == 2


def test_a_server_that_forgot_the_scripts_gets_them_again(
    server: RedisServer, make: Callable[..., RedisDriver]
) -> None:
    driver = make(server.url)
    queue = declared(driver)
    consumer = Consumer(driver, queue)
    server.ask("SCRIPT", "FLUSH")
    publish(driver, queue, "a")
    consumer.waits_for("a")


def test_a_server_that_is_a_replica_for_a_while_is_waited_for(
    server: RedisServer, make: Callable[..., RedisDriver]
) -> None:
    driver = make(server.url)
    queue = declared(driver)
    consumer = Consumer(driver, queue)

    def is_refused() -> bool:
        with pytest.raises((Unavailable, Timeout)) as caught:
            publish(driver, queue, "refused", timeout=0.5)
        return isinstance(caught.value, Unavailable)  # a Timeout where the machine stalls

    server.ask("REPLICAOF", "127.0.0.1", 1)
    try:
        eventually(is_refused, "a publish is refused")
    finally:
        server.ask("REPLICAOF", "NO", "ONE")
    publish(driver, queue, "a")
    consumer.waits_for("a")
    assert "refused" not in consumer.seen


def test_a_failover_is_followed(tmp_path: Path, make: Callable[..., RedisDriver]) -> None:
    """The master dies; the sentinel makes the replica one; publishers and consumers find it."""
    with sentinel_group(tmp_path) as (master, replica, sentinel):
        group = SentinelConfig(hosts=(f"127.0.0.1:{sentinel.port}",), master="main")
        driver = make("redis://ignored", sentinel=group)
        queue = declared(driver)
        consumer = Consumer(driver, queue)
        publish(driver, queue, "before")
        consumer.waits_for("before")
        master.stop()
        publish(driver, queue, "after")
        consumer.waits_for("after")
        assert replica.ask("EXISTS", "wq:{tasks}:seq") == 1
        driver.stop(DEADLINE)


def test_a_cluster_spreads_queues_over_its_nodes(
    redis_cluster: list[RedisServer], make: Callable[..., RedisDriver]
) -> None:
    driver = make(redis_cluster[0].url, cluster=True)
    queues = [declared(driver, f"tasks-{number}") for number in range(8)]
    consumers = [Consumer(driver, queue) for queue in queues]
    for queue in queues:
        publish(driver, queue, "a", "b")
    for consumer in consumers:
        consumer.waits_for("a", "b")
    publish(driver, queues[0], "late")  # all of them sleep by now
    consumers[0].waits_for("late")
    for queue in queues:
        assert driver.wait_idle(queue, DEADLINE)
    assert all(node.ask("DBSIZE") for node in redis_cluster)
    for node in redis_cluster:
        node.kill_clients()
    publish(driver, queues[1], "after")
    consumers[1].waits_for("after")
