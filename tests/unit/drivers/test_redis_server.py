"""What the scripts of the redis driver promise each other, on a server of our own."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.redis_servers import RedisServer, redis_server
from tests.support import DEADLINE, eventually, message
from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.drivers.redis.driver import RedisDriver
from wippy_queue.drivers.redis.life import Life
from wippy_queue.drivers.redis.options import RedisConfig, RedisQueueOptions, TlsConfig
from wippy_queue.drivers.redis.subscription import RedisSubscription
from wippy_queue.drivers.redis.transport import Request
from wippy_queue.errors import Conflict, Invalid, PermissionDenied, QueueFull, Unavailable
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import Queue

LARGE = bytes(3 * 512 * 1024)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    shared.ask("FLUSHALL")
    return shared


@pytest.fixture
def make(server: RedisServer, request: pytest.FixtureRequest) -> Callable[..., RedisDriver]:
    def driver(**config: Any) -> RedisDriver:
        made = RedisDriver(EntryId("test:redis"), RedisConfig(**{"url": server.url, "lease": 10.0, **config}))
        request.addfinalizer(lambda: made.stop(DEADLINE))
        made.start()
        return made

    return driver


def declared(driver: RedisDriver, **options: Any) -> Queue:
    queue = Queue(
        id=EntryId("test:tasks"),
        name="tasks",
        driver=EntryId("test:redis"),
        options=RedisQueueOptions(**options),
    )
    driver.declare(queue)
    return queue


def publish(driver: RedisDriver, queue: Queue, *ids: str, **fields: Any) -> None:
    driver.publish(queue, [message(one, **fields) for one in ids], DEADLINE)


def life(driver: RedisDriver) -> Life:
    assert driver._life is not None
    return driver._life


def run(driver: RedisDriver, script: str, *arguments: Any) -> Any:
    return life(driver)._consuming.attempt(Request(script, b"wq:{tasks}:", arguments), time.monotonic() + DEADLINE)


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.message.id for delivery in deliveries]


def ack(subscription: RedisSubscription, deliveries: list[Delivery]) -> list[Exception | None]:
    results: list[Exception | None] = []
    for delivery in deliveries:
        assert delivery.claim()
    subscription.settle([Settlement(delivery, done=results.append) for delivery in deliveries])
    eventually(lambda: len(results) == len(deliveries), "the acks are reported")
    return results


class TestClaims:
    def test_an_older_claim_that_comes_late_takes_nothing(self, make: Callable[..., RedisDriver]) -> None:
        """A request whose sender gave up may still be in the server's buffers."""
        driver = make()
        queue = declared(driver)
        publish(driver, queue, "a")
        assert run(driver, "claim", "token", 2, 0, 10_000, "inbox", 1, 0)[0] == 0
        assert run(driver, "claim", "token", 1, 5, 10_000, "inbox", 0, 0) == [-2]
        assert driver.info(queue).ready == 1

    def test_what_a_lost_answer_brought_is_given_back_by_the_next_claim(self, make: Callable[..., RedisDriver]) -> None:
        driver = make()
        queue = declared(driver)
        publish(driver, queue, "a", "b", "c")
        assert len(run(driver, "claim", "token", 1, 1, 10_000, "inbox", 1, 0)) == 3 + 4  # known
        assert len(run(driver, "claim", "token", 2, 1, 10_000, "inbox", 0, 0)) == 3 + 4  # its answer is lost
        answer = run(driver, "claim", "token", 3, 5, 10_000, "inbox", 0, 1, "a")
        assert answer[3::4] == [b"b", b"c"], "in the old order"

    def test_an_owner_that_is_not_known_gets_nothing(self, make: Callable[..., RedisDriver]) -> None:
        driver = make()
        declared(driver)
        assert run(driver, "claim", "token", 1, 5, 10_000, "inbox", 0, 0) == [-1]
        assert run(driver, "settle", "token", 1, 10_000, 0, 0, 0, 0) == [-1]
        assert run(driver, "beat", "token", 10_000, 0) == [-1]


class TestLargeAnswers:
    """An answer has to come through the network in its time, or it is thrown away and asked for again, for ever."""

    def test_a_claim_stops_after_some_megabytes_and_the_next_one_goes_on(
        self, make: Callable[..., RedisDriver]
    ) -> None:
        driver = make()
        queue = declared(driver)
        for number in range(6):
            publish(driver, queue, f"m-{number}", body=LARGE, priority=9)
        first = run(driver, "claim", "token", 1, 6, 10_000, "inbox", 1, 0)[3::4]
        assert 0 < len(first) < 6
        assert (driver.info(queue).in_flight, driver.info(queue).ready) == (len(first), 6 - len(first))
        second = run(driver, "claim", "token", 2, 6, 10_000, "inbox", 0, 0)[3::4]
        assert [*first, *second][:6] == [f"m-{number}".encode() for number in range(6)], "the rest kept its place"
        assert driver.info(queue).message_count == 6

    def test_what_a_claim_left_behind_still_expires(self, make: Callable[..., RedisDriver]) -> None:
        """Held messages do not expire, and those that only nearly came along are not held."""
        driver = make()
        queue = declared(driver)
        for number in range(6):
            publish(driver, queue, f"m-{number}", body=LARGE, expires_at=time.time() + 3600)
        came = len(run(driver, "claim", "token", 1, 6, 10_000, "inbox", 1, 0)[3::4])
        assert 0 < came < 6
        assert _ask(driver, "ZRANGE", "wq:{tasks}:expire", 0, -1) == [f"m-{number}" for number in range(came, 6)]

    def test_a_message_that_is_larger_than_an_answer_should_be_comes_alone(
        self, make: Callable[..., RedisDriver]
    ) -> None:
        driver = make()
        queue = declared(driver)
        for name in ("huge", "small"):
            publish(driver, queue, name, body=4 * LARGE if name == "huge" else b"1")
        subscription = driver.subscribe(queue, 2)
        assert [ids(subscription.receive(2, DEADLINE)) for _ in range(2)] == [["huge"], ["small"]]

    def test_a_look_at_large_messages_goes_in_parts_and_shows_all(self, make: Callable[..., RedisDriver]) -> None:
        driver = make()
        queue = declared(driver)
        for number in range(6):
            publish(driver, queue, f"m-{number}", body=LARGE)
        looked, *shown = run(driver, "peek", 0, 6)
        assert 0 < looked < 6
        assert len(shown) == 3 * looked
        assert [one.id for one in driver.peek(queue, 6)] == [f"m-{number}" for number in range(6)]

    def test_large_messages_that_expired_are_handed_over_in_parts(self, make: Callable[..., RedisDriver]) -> None:
        driver = make()
        queue = declared(driver)
        for number in range(6):
            publish(driver, queue, f"m-{number}", body=LARGE, expires_at=time.time() + 3600)
        _expire_all(driver)
        more, first, *parts = run(driver, "drop", 10_000, 6)
        assert 0 <= more < 100, "there is more, at once"
        assert 0 < first < 6
        assert len(parts) == 3 * first
        taken = parts[::3]
        while len(taken) < 6:
            _, came, *parts = run(driver, "drop", 10_000, 6)
            assert came, "the rest is handed over"
            taken += parts[::3]
        assert sorted(taken) == [f"m-{number}".encode() for number in range(6)], "each once"


class TestExpiredBacklogs:
    def test_one_claim_looks_at_some_expired_messages_and_the_next_one_goes_on(
        self, make: Callable[..., RedisDriver]
    ) -> None:
        """The server answers nobody else while it takes them out."""
        driver = make()
        queue = declared(driver)
        publish(driver, queue, *(f"m-{number}" for number in range(3000)), expires_at=time.time() + 3600)
        _expire_all(driver)
        publish(driver, queue, "fresh")
        status, due, expired, *came = run(driver, "claim", "token", 1, 500, 10_000, "inbox", 1, 0)
        assert (status, came) == (0, [])
        assert 0 < expired < 3000
        assert due == 0, "there is more to look at, at once"
        assert _ask(driver, "ZCARD", "wq:{tasks}:ready") == 3001 - expired

    def test_a_consumer_gets_what_waits_behind_them_without_another_wake_up(
        self, make: Callable[..., RedisDriver]
    ) -> None:
        driver = make()
        queue = declared(driver)
        publish(driver, queue, *(f"m-{number}" for number in range(3000)), expires_at=time.time() + 3600)
        publish(driver, queue, "fresh")
        _expire_all(driver)
        assert ids(driver.subscribe(queue, 1).receive(1, DEADLINE)) == ["fresh"]


class TestSettling:
    def test_a_flush_that_is_sent_twice_is_done_once(self, make: Callable[..., RedisDriver]) -> None:
        """Its message may be there again by then, even in the same hands."""
        driver = make()
        queue = declared(driver)
        publish(driver, queue, "a")
        run(driver, "claim", "token", 1, 1, 10_000, "inbox", 1, 0)
        flush = ("settle", "token", 1, 10_000, 0, 0, 1, 0, "a")
        assert run(driver, *flush) == [0]
        run(driver, "claim", "token", 2, 1, 10_000, "inbox", 0, 0)
        assert run(driver, *flush) == [0]
        assert driver.info(queue).in_flight == 1

    def test_what_an_owner_does_not_hold_is_told_and_left_alone(self, make: Callable[..., RedisDriver]) -> None:
        driver = make()
        queue = declared(driver)
        publish(driver, queue, "a", "b")
        run(driver, "claim", "token", 1, 1, 10_000, "inbox", 1, 0)
        assert run(driver, "settle", "token", 1, 10_000, 0, 2, 0, 0, "a", "b") == [0, b"b"]
        assert driver.info(queue).message_count == 1

    def test_nothing_is_left_behind_when_all_is_handled(
        self, server: RedisServer, make: Callable[..., RedisDriver]
    ) -> None:
        driver = make()
        queue = declared(driver)
        publish(driver, queue, "a", "b", priority=3, expires_at=time.time() + 3600)
        subscription = driver.subscribe(queue, 2)
        deliveries = subscription.receive(2, DEADLINE)
        assert subscription.begin(deliveries) == deliveries
        assert ack(subscription, deliveries) == [None, None]
        subscription.close(DEADLINE)
        lasting = {key for key in server.ask("KEYS", "*") if server.ask("TTL", key) == -1}
        assert lasting - {"wq:{tasks}:sleepers"} == {"wq:{tasks}:seq"}


class TestAttempts:
    @pytest.mark.parametrize("marks", [True, False], ids=["marked at once", "marked by the flusher"])
    def test_a_handler_that_began_is_marked(self, marks: bool, make: Callable[..., RedisDriver]) -> None:
        driver = make()
        queue = declared(driver)
        publish(driver, queue, "begun", "buffered")
        subscription = driver.subscribe(queue, 2)
        begun, _ = subscription.receive(2, DEADLINE)
        if not marks:
            life(driver)._marks.close()
        assert subscription.begin([begun])
        held = subscription._owner.held_key

        def places() -> dict[str, str]:
            names = iter(_ask(driver, "ZRANGE", held, 0, -1, "WITHSCORES"))
            return dict(zip(names, names, strict=True))

        eventually(lambda: places()["begun"] == "1.5", "the mark has arrived")
        assert places()["buffered"] == "2"

    def test_marks_are_sent_again_after_a_connection_was_lost(
        self, server: RedisServer, make: Callable[..., RedisDriver]
    ) -> None:
        driver = make()
        queue = declared(driver)
        publish(driver, queue, "a")
        subscription = driver.subscribe(queue, 1)
        (delivery,) = subscription.receive(1, DEADLINE)
        assert subscription.begin([delivery])
        held = subscription._owner.held_key
        eventually(lambda: _ask(driver, "ZSCORE", held, "a") == "1.5", "the mark has arrived")
        server.ask("ZADD", held.decode(), 1, "a")  # as if it had not
        server.kill_clients()
        publish(driver, queue, "b")  # the driver notices by what it does, at the latest when it extends its leases
        eventually(lambda: _ask(driver, "ZSCORE", held, "a") == "1.5", "it has been sent again")


class TestWakeUps:
    def test_a_wake_up_is_passed_on_by_who_does_not_want_it(self, make: Callable[..., RedisDriver]) -> None:
        """The first driver is woken when its consumer has gone already; the second one sleeps."""
        first, second = make(), make()
        queue = declared(first)
        declared(second)
        gone = first.subscribe(queue, 1)
        gone.cancel()
        came: list[Delivery] = []
        subscription = second.subscribe(queue, 1)
        thread = threading.Thread(target=lambda: came.extend(subscription.receive(1, DEADLINE)), daemon=True)
        thread.start()
        sleepers = "wq:{tasks}:sleepers"
        eventually(lambda: _ask(first, "SCARD", sleepers) == 1, "the second one sleeps")
        (inbox,) = _ask(first, "SMEMBERS", sleepers)
        _ask(first, "SREM", sleepers, inbox)
        _ask(first, "SADD", sleepers, life(first)._inbox)
        publish(first, queue, "a")  # wakes the first one
        _ask(first, "SADD", sleepers, inbox)
        life(first)._heard(b"wq:{tasks}:")  # or so, had it been slower
        thread.join(8.0)
        assert ids(came) == ["a"]

    def test_a_sleeper_that_has_died_swallows_no_wake_up(self, make: Callable[..., RedisDriver]) -> None:
        driver = make()
        queue = declared(driver)
        subscription = driver.subscribe(queue, 1)
        came: list[Delivery] = []
        thread = threading.Thread(target=lambda: came.extend(subscription.receive(1, DEADLINE)), daemon=True)
        thread.start()
        eventually(lambda: _ask(driver, "SCARD", "wq:{tasks}:sleepers") == 1, "it sleeps")
        _ask(driver, "SADD", "wq:{tasks}:sleepers", *(f"dead-{number}" for number in range(50)))
        publish(driver, queue, "a")
        thread.join(8.0)
        assert ids(came) == ["a"]

    def test_one_wake_up_reaches_as_many_consumers_as_there_are_messages(
        self, make: Callable[..., RedisDriver]
    ) -> None:
        drivers = [make() for _ in range(3)]
        queue = declared(drivers[0])
        came: list[str] = []
        threads = []
        for driver in drivers:
            declared(driver)
            subscription = driver.subscribe(queue, 1)

            def consume(subscription: RedisSubscription = subscription) -> None:
                came.extend(ids(subscription.receive(1, DEADLINE)))

            threads.append(threading.Thread(target=consume, daemon=True))
            threads[-1].start()
        eventually(lambda: _ask(drivers[0], "SCARD", "wq:{tasks}:sleepers") == 3, "all sleep")
        publish(drivers[0], queue, "a", "b", "c")
        for thread in threads:
            thread.join(8.0)
        assert sorted(came) == ["a", "b", "c"]


class TestPublishing:
    def test_a_large_batch_goes_in_parts_and_says_which_are_in(self, make: Callable[..., RedisDriver]) -> None:
        driver = make()
        queue = declared(driver, max_length=600, overflow="reject")
        messages = [message(f"m-{number}") for number in range(700)]
        with pytest.raises(QueueFull) as caught:
            driver.publish(queue, messages, DEADLINE)
        assert caught.value.details["accepted"] == [one.id for one in messages[:500]]
        assert driver.info(queue).ready == 500
        assert [one.id for one in driver.peek(queue, 1000)] == [one.id for one in messages[:500]]
        assert driver.purge(queue) == 500

    def test_an_id_may_be_used_again_once_its_message_is_handled(self, make: Callable[..., RedisDriver]) -> None:
        driver = make()
        queue = declared(driver)
        subscription = driver.subscribe(queue, 1)
        for _ in range(2):
            publish(driver, queue, "a", "a")
            assert ack(subscription, subscription.receive(1, DEADLINE)) == [None]
        assert driver.info(queue).message_count == 0

    def test_drop_oldest_keeps_the_new_ones_when_consumers_hold_the_rest(
        self, make: Callable[..., RedisDriver]
    ) -> None:
        dropped: list[str] = []
        driver = make()
        queue = declared(driver, max_length=2, overflow="drop_oldest")
        queue = Queue(
            id=queue.id, name=queue.name, driver=queue.driver, options=queue.options, on_drop=_collect(dropped)
        )
        driver.declare(queue)
        publish(driver, queue, "a", "b")
        subscription = driver.subscribe(queue, 2)
        assert len(subscription.receive(2, DEADLINE)) == 2
        publish(driver, queue, "c")
        publish(driver, queue, "d")
        eventually(lambda: dropped == ["c"], "the older one is pushed out")


class TestStart:
    def test_a_server_that_may_evict_is_refused(self, server: RedisServer, make: Callable[..., RedisDriver]) -> None:
        server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        try:
            with pytest.raises(Invalid, match=r"test:redis.*allkeys-lru.*noeviction"):
                make()
        finally:
            server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")

    def test_a_wrong_password_is_told_and_not_shown(
        self, server: RedisServer, make: Callable[..., RedisDriver]
    ) -> None:
        server.ask("ACL", "SETUSER", "worker", "on", ">right", "allkeys", "allchannels", "+@all")
        with pytest.raises(PermissionDenied, match=r"test:redis.*check the user and password") as caught:
            make(url=f"redis://worker:guess@127.0.0.1:{server.port}/0")
        assert "guess" not in str(caught.value)
        make(url=f"redis://worker:right@127.0.0.1:{server.port}/0")

    def test_a_user_that_may_not_ask_for_the_policy_works(
        self, server: RedisServer, make: Callable[..., RedisDriver], caplog: pytest.LogCaptureFixture
    ) -> None:
        server.ask(
            "ACL",
            "SETUSER",
            "worker",
            "on",
            ">right",
            "resetkeys",
            "resetchannels",
            "~wq:*",
            "&wq:*",
            "+@all",
            "-@dangerous",
        )
        driver = make(url=f"redis://worker:right@127.0.0.1:{server.port}/0")
        assert "maxmemory-policy" in caplog.text
        queue = declared(driver)
        publish(driver, queue, "a")
        assert ids(driver.subscribe(queue, 1).receive(1, DEADLINE)) == ["a"]

    def test_a_server_that_is_away_is_unavailable_and_named(self) -> None:
        driver = RedisDriver(EntryId("test:redis"), RedisConfig(url="redis://:secret@127.0.0.1:1/0"))
        with pytest.raises(Unavailable, match=r"test:redis.*127\.0\.0\.1:1.*cannot be reached") as caught:
            driver.start()
        assert caught.value.retryable
        assert "secret" not in str(caught.value)


def test_a_child_made_by_fork_is_told_to_start_its_own(make: Callable[..., RedisDriver]) -> None:
    driver = make()
    queue = declared(driver)
    mine, driver._process = driver._process, -1  # what a child sees
    with pytest.raises(Conflict, match="in the child"):
        publish(driver, queue, "a")
    driver._process = mine


def test_tls_checks_the_server(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """With the CA it works, without it the certificate is refused, unless that is not to be looked at."""
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
    command += " -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    with redis_server(tmp_path, tls=(cert, key)) as server:
        url = f"rediss://127.0.0.1:{server.tls_port}/0"

        def works(tls: TlsConfig | None) -> bool:
            driver = RedisDriver(EntryId("test:redis"), RedisConfig(url=url, tls=tls))
            try:
                driver.start()
                queue = declared(driver)
                publish(driver, queue, "a")
                subscription = driver.subscribe(queue, 1)
                deliveries = subscription.receive(1, DEADLINE)
                return bool(subscription.begin([deliveries[0]])) and ack(subscription, deliveries) == [None]
            except Unavailable:
                return False
            finally:
                driver.stop(DEADLINE)

        assert works(TlsConfig(ca=str(cert)))
        assert works(TlsConfig(insecure_skip_verify=True))
        assert not works(None)


def _collect(dropped: list[str]) -> Callable[..., None]:
    def on_drop(messages: list[Message], _: object) -> None:
        dropped.extend(one.id for one in messages)

    return on_drop


def _expire_all(driver: RedisDriver) -> None:
    """Move the ends of all mortal messages into the past, which the driver does not notice by itself."""
    mortal = _ask(driver, "ZRANGE", "wq:{tasks}:expire", 0, -1)
    _ask(driver, "ZADD", "wq:{tasks}:expire", *(part for one in mortal for part in (1, one)))


def _ask(driver: RedisDriver, *command: Any) -> Any:
    reply = life(driver)._publishing.command(*command, deadline=time.monotonic() + DEADLINE)
    if isinstance(reply, list):
        return [one.decode() for one in reply]
    return reply.decode() if isinstance(reply, bytes) else reply
