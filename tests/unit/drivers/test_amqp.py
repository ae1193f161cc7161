"""What the AMQP driver does beyond the contract, on a real RabbitMQ."""

from __future__ import annotations

import logging
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import msgspec
import pytest

pytest.importorskip("pika", reason="pika is not installed: pip install 'wippy_queue[amqp]'")

from contextlib import ExitStack

import pika
import pika.data
from pika import exceptions

from tests.faults.proxy import Proxy
from tests.rabbit import Bench, goes_on, receive, settle
from tests.support import DEADLINE, eventually, message
from wippy_queue import Engine, current_message
from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.drivers.amqp.driver import AmqpDriver
from wippy_queue.drivers.amqp.options import AmqpConfig, AmqpConsumerOptions, AmqpQueueOptions, AmqpTls
from wippy_queue.drivers.amqp.outbox import Outbox
from wippy_queue.drivers.amqp.topology import Declared
from wippy_queue.errors import Conflict, Invalid, NotFound, Unavailable, WippyQueueError
from wippy_queue.ids import EntryId
from wippy_queue.queues import DeadLetter, Queue


@pytest.fixture
def bench(amqp_url: str) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(amqp_url, stack)


@pytest.fixture
def driver(bench: Bench) -> AmqpDriver:
    return bench.driver()


def die(driver: AmqpDriver) -> None:
    """Lose the connections as a killed process does: nothing is settled or handed back."""
    broker, driver._broker = driver._broker, None
    assert broker is not None
    broker._outbox.close()
    for link in (broker._publishing, broker._consuming):
        link.begin_stop()
        link.finish_stop(time.monotonic() + 1.0)


# attempts


def test_a_message_that_kills_its_process_is_counted_each_time(bench: Bench) -> None:
    """RabbitMQ remembers one return alone: the driver counts, or the message would come for ever."""
    queue = bench.queue(bench.driver())
    seen = []
    for life in range(4):
        driver = bench.driver()
        driver.declare(queue)
        if life == 0:
            driver.publish(queue, [message("poison", headers={"n": 9})], 5)
        subscription = driver.subscribe(queue, 1)
        (delivery,) = receive(subscription)
        assert dict(delivery.message.headers) == {"n": 9}
        seen.append(delivery.message.attempts)
        assert subscription.begin([delivery])
        die(driver)
    assert seen == [0, 1, 2, 3]


def test_what_a_graceful_stop_hands_back_is_no_attempt_for_others_either(bench: Bench) -> None:
    """However often: a rolling deployment must not give up messages that no handler has seen."""
    queue = bench.queue(bench.driver())
    driver = bench.driver()
    driver.declare(queue)
    names = [f"m-{number}" for number in range(10)]
    driver.publish(queue, [message(name) for name in names], 5)
    for _ in range(4):
        subscription = driver.subscribe(queue, 6)
        held = receive(subscription, 3)
        on_their_way = subscription.cancel()
        settle(subscription, *held, *on_their_way, action="release")
        subscription.close(5.0)
        driver.stop(5.0)
        driver = bench.driver()
        driver.declare(queue)
    deliveries = receive(driver.subscribe(queue, 10), 10)
    assert {delivery.message.attempts for delivery in deliveries} == {0}
    assert [delivery.message.id for delivery in deliveries] == names, "what was handed back comes first, in order"


def test_a_driver_that_stops_hands_back_what_nobody_has_begun(bench: Bench) -> None:
    driver = bench.driver()
    queue = bench.queue(driver)
    driver.publish(queue, [message("begun"), message("buffered"), message("on its way")], 5)
    subscription = driver.subscribe(queue, 3)
    begun, _ = receive(subscription, 2)
    assert subscription.begin([begun])
    driver.stop(5.0)
    other = bench.driver()
    other.declare(queue)
    attempts = {d.message.id: d.message.attempts for d in receive(other.subscribe(queue, 3), 3)}
    assert attempts == {"begun": 1, "buffered": 0, "on its way": 0}


def test_a_feeder_does_not_spin_while_the_broker_has_not_answered_to_a_cancel(bench: Bench) -> None:
    """A hundred that did so took a stop's processor time from the connection whose answer they waited for."""
    driver = bench.driver()
    subscription = driver.subscribe(bench.queue(driver), 1)
    asked = 0
    over = threading.Event()

    def feed() -> None:
        nonlocal asked
        while not over.is_set():
            asked += 1
            subscription.receive(1, 5.0)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    eventually(lambda: asked, "the feeder asks")
    bench.proxy.latency = 0.1
    since, used = time.monotonic(), time.process_time()
    over_soon = threading.Timer(0.15, over.set)  # the answer takes 0.2 s for each of the two queues
    over_soon.start()
    subscription.cancel()
    assert time.monotonic() - since >= 0.15, "this test has come too late"
    over.set()
    feeder.join(5.0)
    assert not feeder.is_alive(), "receive returns once the cancel is over"
    assert asked <= 2
    assert time.process_time() - used < 0.15


def test_messages_on_their_way_at_a_cancel_are_not_counted(bench: Bench) -> None:
    """pika would reject them, and so mark them as if they came from a crash."""
    driver = bench.driver()
    queue = bench.queue(driver)
    subscription = driver.subscribe(queue, 100)
    bench.proxy.latency = 0.1
    properties = pika.BasicProperties(content_type="application/json", message_id="theirs")
    bench.broker(lambda channel: [channel.basic_publish("", queue.name, b"1", properties) for _ in range(100)])
    settle(subscription, *subscription.cancel(), action="release")
    subscription.close(5.0)
    bench.proxy.latency = 0.0
    other = bench.driver()
    other.declare(queue)
    deliveries = receive(other.subscribe(queue, 100), 100)
    assert {delivery.message.attempts for delivery in deliveries} == {0}


def test_a_consumer_that_waits_gets_messages_from_the_thread_of_the_connection(
    driver: AmqpDriver, bench: Bench
) -> None:
    queue = bench.queue(driver)
    subscription = driver.subscribe(queue, 10)
    driver.publish(queue, [message("a"), message("b")], DEADLINE)
    given: list[tuple[str, str]] = []

    def sink(deliveries: Sequence[Delivery]) -> bool:
        given.extend((delivery.message.id, threading.current_thread().name) for delivery in deliveries)
        return True

    def publish() -> None:
        driver.publish(queue, [message("c")], DEADLINE)
        driver.publish(queue, [message("d")], DEADLINE)

    there = receive(subscription, 2)
    assert [delivery.message.id for delivery in there] == ["a", "b"]
    publisher = threading.Thread(target=publish)
    publisher.start()
    while len(given) < 2:
        assert subscription.receive_into(sink, 2 - len(given), DEADLINE) == []
    publisher.join(DEADLINE)
    assert [message_id for message_id, _ in given] == ["c", "d"]
    assert threading.current_thread().name not in {thread for _, thread in given}


def test_one_lost_connection_alone_gives_no_message_up(bench: Bench) -> None:
    """Nobody knows whether its handler had begun; the second time it counts."""
    first = bench.queue(bench.driver())
    queue = attrs.evolve(first, dead_letter=DeadLetter(queue=EntryId("test:dead"), max_attempts=1))
    seen = []
    for life in range(3):
        driver = bench.driver()
        driver.declare(queue)
        if life == 0:
            driver.publish(queue, [message("a")], 5)
        seen.append(receive(driver.subscribe(queue, 1))[0].message.attempts)
        die(driver)
    assert seen == [0, 0, 2]


def test_a_look_at_the_queue_costs_no_attempt(driver: AmqpDriver, bench: Bench) -> None:
    queue = bench.queue(driver)
    driver.publish(queue, [message("a"), message("b")], 5)
    assert [one.id for one in driver.peek(queue, 5)] == ["a", "b"]
    assert [d.message.attempts for d in receive(driver.subscribe(queue, 2), 2)] == [0, 0]


def test_a_quorum_queue_counts_by_itself(bench: Bench) -> None:
    queue = bench.queue(bench.driver(), queue_type="quorum")
    seen = []
    for life in range(4):
        driver = bench.driver()
        driver.declare(queue)
        if life == 0:
            driver.publish(queue, [message("poison")], 5)
        subscription = driver.subscribe(queue, 1)
        (delivery,) = receive(subscription)
        seen.append(delivery.message.attempts)
        assert subscription.begin([delivery])
        die(driver)
    assert seen == [0, 1, 2, 3]


# other programs


def test_messages_of_other_programs_are_taken(driver: AmqpDriver, bench: Bench) -> None:
    queue = bench.queue(driver)

    def publish(channel: Any) -> None:
        channel.basic_publish("", queue.name, b"plain text", pika.BasicProperties(content_type="text/plain"))
        channel.basic_publish("", queue.name, b'{"n":1}', pika.BasicProperties(headers={"list": [1], "n": 2}, type="t"))

    bench.broker(publish)
    subscription = driver.subscribe(queue, 2)
    text, json = receive(subscription, 2)
    assert (text.message.encoding, text.message.body) == ("binary", b"plain text")
    assert (json.message.encoding, dict(json.message.headers)) == ("json", {"n": 2, "message_type": "t"})
    assert settle(subscription, text, json, action="requeue") == [None, None]
    assert {d.message.body for d in receive(subscription, 2)} == {b"plain text", b'{"n":1}'}


def test_a_queue_of_other_arguments_is_a_conflict_that_says_which(driver: AmqpDriver, bench: Bench) -> None:
    queue = bench.queue(driver, message_ttl=1.0)
    other = attrs.evolve(queue, options=AmqpQueueOptions(message_ttl=2.0))
    with pytest.raises(Conflict, match=r"x-message-ttl is 1000 there and 2000 here \(option message_ttl\)"):
        driver.declare(other)
    driver.publish(queue, [message("still works")], 5)


def test_a_queue_of_other_arguments_can_be_used_as_it_is(driver: AmqpDriver, bench: Bench) -> None:
    name = f"theirs-{id(bench)}"
    bench.names.append(name)
    bench.broker(lambda channel: channel.queue_declare(name, durable=True))
    options = AmqpQueueOptions(on_mismatch="use_existing")
    queue = Queue(id=EntryId("test:theirs"), name=name, driver=driver.id, options=options)
    driver.declare(queue)
    driver.publish(queue, [message("a")], 5)
    subscription = driver.subscribe(queue, 1)
    assert settle(subscription, *receive(subscription)) == [None]


class Raw:
    """A value of a header, as bytes that pika would not write."""

    def __init__(self, data: bytes) -> None:
        self.data = data


def table(inner: bytes) -> bytes:
    return b"F" + struct.pack(">I", len(inner)) + inner


def nested(depth: int) -> bytes:
    made = table(b"")
    for _ in range(depth):
        made = table(b"\x01a" + made)
    return made


@pytest.mark.parametrize(
    "value",
    [
        b"T" + struct.pack(">Q", 1_700_000_000_000),
        b"T" + struct.pack(">Q", 2**64 - 1),
        table(b"\x01t" + b"T" + struct.pack(">Q", 2**62)),
        nested(500),
    ],
    ids=["milliseconds", "before 1970", "in a table", "deep"],
)
def test_headers_that_pika_cannot_read_do_not_stop_a_consumer(
    driver: AmqpDriver, bench: Bench, monkeypatch: pytest.MonkeyPatch, value: bytes
) -> None:
    """Each connection of the driver got the message again, and was lost by it again, for ever."""
    queue = bench.queue(driver)
    subscription = driver.subscribe(queue, 5)
    write: Any = pika.data.encode_value

    def encode(pieces: list[bytes], value: Any) -> int:
        if isinstance(value, Raw):
            pieces.append(value.data)
            return len(value.data)
        return int(write(pieces, value))

    monkeypatch.setattr(pika.data, "encode_value", encode)
    headers: dict[str, Any] = {"before": 1, "odd": Raw(value), "after": "x"}
    properties = pika.BasicProperties(message_id="odd", headers=headers)
    bench.broker(lambda channel: channel.basic_publish("", queue.name, b"{}", properties))
    (delivery,) = receive(subscription)
    assert delivery.message.id == "odd"
    assert (delivery.message.headers["before"], delivery.message.headers["after"]) == (1, "x")
    assert settle(subscription, delivery) == [None]
    goes_on(driver, queue, subscription)
    assert bench.proxy.accepted == 2, "no connection was lost"


def dying(amqp_url: str, tasks: str, dead: str, **worker: Any) -> Engine:
    """Return an engine with a worker of the queue ``tasks``, whose messages die after two attempts."""
    return Engine.from_entries(
        [
            {"name": "rabbit", "kind": "queue.driver.amqp", "url": amqp_url},
            {"name": "dead", "kind": "queue.queue", "driver": "rabbit", "queue_name": dead},
            {
                "name": "tasks",
                "kind": "queue.queue",
                "driver": "rabbit",
                "queue_name": tasks,
                "retry": {"initial_delay": "10ms"},
                "dead_letter": {"queue": "dead", "max_attempts": 2},
            },
            {
                "name": "worker",
                "kind": "queue.consumer",
                "queue": "tasks",
                "func": "handler",
                "lifecycle": {"auto_start": True},
                **worker,
            },
        ]
    )


def test_messages_of_other_programs_are_retried_and_dead_lettered_whatever_they_say(
    bench: Bench, amqp_url: str
) -> None:
    """Their handlers failed each second for ever, uncounted; or they were given up before any handler saw them."""
    said: dict[str, dict[str, Any]] = {
        "mandatory": {"headers": {"amqp.mandatory": "true"}},
        "timestamp": {"timestamp": 2**64 - 1},
        "count": {"headers": {"x-delivery-count": 3}},
        "attempts": {"headers": {"attempts": "many"}},
    }
    driver = bench.driver()
    tasks, dead = bench.queue(driver).name, bench.queue(driver, "dead").name
    engine = dying(amqp_url, tasks, dead)
    handled: list[tuple[str, object]] = []

    @engine.function("app:handler")
    def handler(_: Any) -> None:
        one = current_message()
        handled.append((one.id, one.headers["attempts"]))
        raise ValueError("no")

    def publish(channel: Any) -> None:
        for name, more in said.items():
            channel.basic_publish("", tasks, b"{}", pika.BasicProperties(message_id=name, **more))

    with engine:
        bench.broker(publish)
        eventually(lambda: engine.info("app:dead").ready == len(said), "all are dead letters")
        letters = engine.dead_letters("app:dead").list()
    assert [(one.reason, one.attempts) for one in letters] == [("attempts", 2)] * len(said)
    assert sorted(handled, key=str) == sorted(((name, count) for name in said for count in (0, 1)), key=str)


# delays


class Minutes:
    """The clock of a module of the driver: it jumps, until a delay queue is declared, which is written down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
        self.passed = 0.0
        self.declared: list[int] = []
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + self.passed, time=time.time)
        monkeypatch.setattr(f"wippy_queue.drivers.amqp.{module}.time", clock)
        declare = Declared.declare_delay

        def declare_delay(declared: Declared, channel: Any, ms: int) -> Any:
            self.passed = 0.0
            self.declared.append(ms)
            return declare(declared, channel, ms)

        monkeypatch.setattr(Declared, "declare_delay", declare_delay)


def test_a_delayed_message_that_had_to_wait_for_the_broker_gets_its_queue_anew(
    driver: AmqpDriver, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The delay queue lives for as long as nothing is put into it: it was gone before the message was due."""
    minutes = Minutes(monkeypatch, "outbox")
    queue = bench.queue(driver)
    subscription = driver.subscribe(queue, 5)
    driver.publish(queue, [message("before", delay=0.1)], 5)
    assert minutes.declared == [100]
    assert settle(subscription, *receive(subscription)) == [None]
    assert driver._broker is not None
    box = driver._broker._outbox
    bench.proxy.refuse()
    eventually(lambda: not box.able, "the connection is lost")
    errors: list[Exception] = []

    def publish() -> None:
        try:
            driver.publish(queue, [message("late", delay=0.1), message("at once")], 100)
        except WippyQueueError as error:
            errors.append(error)

    publisher = threading.Thread(target=publish)
    publisher.start()
    eventually(lambda: len(box._queue) == 2, "the messages wait for the broker")
    minutes.passed = 60.0
    bench.proxy.restore()
    publisher.join(DEADLINE)
    assert not publisher.is_alive()
    assert errors == []
    assert minutes.declared == [100, 100]
    assert {delivery.message.id for delivery in receive(subscription, 2)} == {"late", "at once"}


def test_the_queue_of_a_message_that_was_stored_late_is_kept_alive(
    driver: AmqpDriver, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is out of memory confirms after minutes; its delay queue must not vanish with the message."""
    minutes = Minutes(monkeypatch, "broker")
    publish = Outbox.publish

    def slowly(*arguments: Any) -> None:
        publish(*arguments)
        minutes.passed = 60.0

    monkeypatch.setattr(Outbox, "publish", slowly)
    driver.publish(bench.queue(driver), [message(delay=0.1), message("at once")], 100)
    assert minutes.declared == [100, 100]


# options


def test_a_priority_that_the_queue_has_no_place_for_is_refused(driver: AmqpDriver, bench: Bench) -> None:
    """But not where it is a neutral header, which may have any value, or that of a dead letter."""
    queue = bench.queue(driver)
    for headers in ({}, {"amqp.priority": 3}):
        with pytest.raises(Invalid, match=r"test:amqp .*max_priority"):
            driver.publish(queue, [message("a", priority=0 if headers else 3, headers=headers)], 5)
    driver.publish(queue, [message("a", priority=3, headers={"priority": 3})], 5)
    driver.publish(queue, [message("b", priority=3, headers={"x_dead_letter_reason": "attempts"})], 5)


def test_the_window_has_a_ceiling(bench: Bench) -> None:
    driver = bench.driver(prefetch_count=2)
    queue = bench.queue(driver)
    driver.publish(queue, [message(f"m-{number}") for number in range(5)], 5)
    subscription = driver.subscribe(queue, 100)
    receive(subscription, 2)
    assert subscription.receive(1, 0.1) == []


def test_an_exclusive_consumer_keeps_others_away_until_it_leaves(bench: Bench) -> None:
    driver = bench.driver()
    queue = bench.queue(driver)
    options = AmqpConsumerOptions(exclusive=True, consumer_tag="the-one")
    first = driver.subscribe(queue, 1, options)
    with pytest.raises(Unavailable, match="another consumer has it for itself") as caught:
        driver.subscribe(queue, 1)
    assert caught.value.retryable
    first.close(5.0)
    second = driver.subscribe(queue, 1)
    driver.publish(queue, [message("a")], 5)
    assert settle(second, *receive(second)) == [None]


def test_messages_without_a_ttl_get_that_of_the_driver(bench: Bench) -> None:
    dropped: list[str] = []
    driver = bench.driver(default_message_ttl=0.1)
    queue = attrs.evolve(bench.queue(driver), on_drop=lambda messages, reason: dropped.extend(m.id for m in messages))
    driver.declare(queue)
    driver.publish(queue, [message("short"), message("long", expires_at=time.time() + 60)], 5)
    eventually(lambda: dropped == ["short"], "the message has expired")
    assert [one.id for one in driver.peek(queue, 5)] == ["long"]


@pytest.mark.parametrize(
    ("config", "headers"),
    [({"default_message_ttl": 0.1}, {}), ({}, {"amqp.expiration": "1"})],
    ids=["default_message_ttl", "amqp.expiration"],
)
def test_dead_letters_do_not_expire_again(bench: Bench, config: dict[str, Any], headers: dict[str, Any]) -> None:
    """They are as old as their first publish: what had expired died in the dead-letter queue at once."""
    dropped: list[str] = []
    driver = bench.driver(**config)
    queue = attrs.evolve(bench.queue(driver), on_drop=lambda messages, reason: dropped.extend(m.id for m in messages))
    driver.declare(queue)
    old = time.time() - 60
    letter = message("letter", timestamp=old, headers={**headers, "x_dead_letter_reason": "expired"})
    driver.publish(queue, [message("short", expires_at=time.time() + 0.1), letter], 5)
    eventually(lambda: dropped, "what is before the letter has expired")
    assert [one.id for one in driver.peek(queue, 5)] == ["letter"]
    assert dropped == ["short"]


def test_a_delayed_message_that_has_expired_is_dropped_when_it_is_due(bench: Bench) -> None:
    dropped: list[tuple[str, str]] = []
    driver = bench.driver()
    queue = attrs.evolve(
        bench.queue(driver), on_drop=lambda messages, reason: dropped.extend((m.id, reason) for m in messages)
    )
    driver.declare(queue)
    driver.publish(queue, [message("a", delay=0.2, expires_at=time.time() + 0.1)], 5)
    assert driver.subscribe(queue, 1).receive(1, 0.5) == []
    eventually(lambda: dropped == [("a", "expired")], "the message was handed over")
    assert driver.wait_idle(queue, 5)


# connections


def test_a_driver_has_two_connections_whatever_its_queues_and_consumers(bench: Bench) -> None:
    driver = bench.driver()
    for _ in range(5):
        queue = bench.queue(driver)
        for _ in range(3):
            driver.subscribe(queue, 1)
        driver.publish(queue, [message("a")], 5)
    assert bench.proxy.accepted == 2


def test_amqplain_is_an_authentication_too(bench: Bench) -> None:
    bench.queue(bench.driver(auth_mechanism="AMQPLAIN"))


@pytest.mark.parametrize("mechanism", ["PLAIN", "AMQPLAIN"])
def test_a_wrong_password_is_told_at_once_and_not_shown(amqp_url: str, mechanism: Any) -> None:
    config = AmqpConfig(url=amqp_url.replace("guest:guest", "guest:s3cret"), auth_mechanism=mechanism)
    driver = AmqpDriver(EntryId("test:amqp"), config)
    since = time.monotonic()
    with pytest.raises(Unavailable, match="check user, password and vhost") as caught:
        driver.start()
    assert time.monotonic() - since < 5
    assert caught.value.retryable is False
    assert "s3cret" not in str(caught.value)


def test_a_broker_that_is_not_there_is_worth_another_try() -> None:
    driver = AmqpDriver(EntryId("test:amqp"), AmqpConfig(url="amqp://127.0.0.1:1/", connection_timeout=0.3))
    with pytest.raises(Unavailable, match=r"127.0.0.1:1/ cannot be reached: Connection refused") as caught:
        driver.start()
    assert caught.value.retryable
    driver.stop(5.0)


def test_a_broker_that_says_nothing_is_given_up_after_the_timeout(bench: Bench) -> None:
    bench.proxy.swallow()
    config = AmqpConfig(url=bench.proxy.url(bench.url), connection_timeout=0.5)
    since = time.monotonic()
    with pytest.raises(Unavailable):
        AmqpDriver(EntryId("test:amqp"), config).start()
    assert time.monotonic() - since < 4


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of localhost that signs itself, and its key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-out", str(cert), "-keyout", str(key)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except OSError:
        pytest.skip("there is no openssl")
    return cert, key


def test_tls_verifies_the_broker(bench: Bench, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    bench.proxy.close()
    bench.proxy = bench._stack.enter_context(Proxy("127.0.0.1", 5672, context))
    trusted = AmqpTls(enabled=True, ca=str(cert), server_name="localhost")
    driver = bench.driver(tls=trusted)
    queue = bench.queue(driver)
    driver.publish(queue, [message(f"m-{number}", bytes(1000)) for number in range(500)], 10)
    subscription = driver.subscribe(queue, 500)
    assert settle(subscription, *receive(subscription, 500)) == [None] * 500
    for wrong in (AmqpTls(enabled=True, server_name="localhost"), AmqpTls(enabled=True, ca=str(cert))):
        with pytest.raises(Unavailable, match="certificate verify failed"):
            bench.driver(tls=wrong)
    bench.driver(tls=AmqpTls(enabled=True, insecure_skip_verify=True))


def test_of_a_lost_connection_the_log_has_our_words_and_not_pikas(
    driver: AmqpDriver, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    queue = bench.queue(driver)
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.INFO, "pika")  # the command line, which other tests call, has it silent
    bench.proxy.reset()
    eventually(lambda: "the connection to RabbitMQ is gone" in caplog.text, "it is told")

    def published() -> bool:
        try:
            driver.publish(queue, [message("a")], 10.0)
        except Unavailable:  # it had not noticed yet
            return False
        return True

    eventually(published, "the connection is there again")
    driver.stop(5.0)
    theirs = logging.getLogger("pika.connection")
    theirs.error("about a connection of somebody else")
    assert [record.message for record in caplog.records if record.name.startswith("pika")] == [
        "about a connection of somebody else"
    ]


# publishing


def test_many_threads_share_the_window_of_confirms(driver: AmqpDriver, bench: Bench) -> None:
    """More messages than may be unconfirmed at once, in batches of all sizes."""
    queue = bench.queue(driver)

    def publish(thread: int) -> None:
        driver.publish(queue, [message(f"{thread}-{number}") for number in range(900)], 30)

    threads = [threading.Thread(target=publish, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert driver.info(queue).ready == 3600


def test_a_message_that_cannot_be_encoded_does_not_end_the_connection(driver: AmqpDriver, bench: Bench) -> None:
    queue = bench.queue(driver)
    with pytest.raises(Invalid):
        driver.publish(queue, [message("\ud800")], 5)
    driver.publish(queue, [message("fine")], 5)
    assert bench.proxy.accepted == 2


def test_a_queue_that_is_gone_while_it_is_looked_at_is_not_found(driver: AmqpDriver, bench: Bench) -> None:
    queue = bench.queue(driver)
    bench.broker(lambda channel: channel.queue_delete(queue.name))
    look: Callable[[], object]
    for look in (lambda: driver.info(queue), lambda: driver.purge(queue), lambda: driver.peek(queue, 1)):
        with pytest.raises(NotFound):
            look()
    driver.declare(queue)
    assert driver.info(queue).ready == 0


def test_a_queue_that_was_to_vanish_and_has_is_empty(driver: AmqpDriver, bench: Bench) -> None:
    """RabbitMQ deletes it with its last consumer, and whoever joins it then is done."""
    queue = bench.queue(driver, auto_delete=True)
    subscription = driver.subscribe(queue, 1)
    driver.publish(queue, [message("a")], 5)
    assert settle(subscription, *receive(subscription)) == [None]
    subscription.close(5.0)

    def gone() -> bool:
        try:
            bench.broker(lambda channel: channel.queue_declare(queue.name, passive=True))
        except exceptions.ChannelClosedByBroker:
            return True
        return False

    eventually(gone, "RabbitMQ has deleted it")
    info = driver.info(queue)
    assert (info.ready, info.delayed, info.in_flight) == (0, 0, 0)
    assert driver.wait_idle(queue, 5)


def test_a_refused_copy_goes_back_with_its_original(driver: AmqpDriver, bench: Bench) -> None:
    """Headers that have outgrown a frame cannot be published; nothing is lost and nobody waits for ever."""
    queue = bench.queue(driver)
    driver.publish(queue, [message("a")], 5)
    subscription = driver.subscribe(queue, 1)
    (delivery,) = receive(subscription)
    grown = msgspec.structs.replace(delivery.message, headers={"long": "x" * 200_000})
    told: list[Exception | None] = []
    assert delivery.claim()
    subscription.settle([Settlement(delivery, "requeue", grown, 0.0, told.append)])
    assert receive(subscription)[0].message.id == "a"
    assert "put more into the body" in str(told[0])


def test_an_application_runs_on_rabbitmq(amqp_url: str, bench: Bench) -> None:
    """From YAML's entries to the ack, with a retry and a dead letter on the way."""
    prefix = f"app-{id(bench)}"
    bench.names += [f"{prefix}-tasks", f"{prefix}-dead"]
    engine = dying(amqp_url, f"{prefix}-tasks", f"{prefix}-dead", concurrency=2)
    handled: list[object] = []

    @engine.function("app:handler")
    def handler(body: Any) -> None:
        handled.append(body["n"])
        if body["n"] == 13:
            raise ValueError("unlucky")

    with engine:
        engine.publish_many("app:tasks", [{"n": number} for number in range(20)])
        engine.join("app:tasks", timeout=20)
        (letter,) = engine.dead_letters("app:dead").list()
        assert (letter.reason, letter.attempts) == ("attempts", 2)
    assert sorted(handled, key=str) == sorted([*range(20), 13], key=str)


def test_an_error_on_the_thread_of_a_connection_costs_the_connection_alone(driver: AmqpDriver, bench: Bench) -> None:
    """The thread goes on: a dead one would leave everybody waiting."""
    queue = bench.queue(driver)
    subscription = driver.subscribe(queue, 5)
    assert driver._broker is not None

    def boom() -> None:
        raise ZeroDivisionError("a test does this")

    for link in (driver._broker._consuming, driver._broker._publishing):
        link.call(boom)
    goes_on(driver, queue, subscription)
    assert bench.proxy.accepted == 4


def test_a_stop_ends_a_start_that_waits(bench: Bench) -> None:
    bench.proxy.swallow()
    config = AmqpConfig(url=bench.proxy.url(bench.url), connection_timeout=60.0)
    driver = AmqpDriver(EntryId("test:amqp"), config)
    errors: list[Exception] = []

    def start() -> None:
        try:
            driver.start()
        except Unavailable as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    eventually(lambda: driver._next is not None and bench.proxy.accepted == 2, "it connects")
    since = time.monotonic()
    driver.stop(5.0)
    thread.join(20)
    assert time.monotonic() - since < 8
    assert "was stopped" in str(errors[0])


def test_a_message_that_cannot_be_copied_comes_again_but_not_in_a_hot_loop(bench: Bench, amqp_url: str) -> None:
    """Headers of another program, which fill a frame: there is no room for ours in a copy."""
    name, came, times = bench.queue(bench.driver()).name, threading.Event(), []
    engine = Engine.from_entries(
        [
            {"name": "rabbit", "kind": "queue.driver.amqp", "url": amqp_url},
            {
                "name": "tasks",
                "kind": "queue.queue",
                "driver": "rabbit",
                "queue_name": name,
                "retry": {"max_attempts": 9},
            },
            {
                "name": "worker",
                "kind": "queue.consumer",
                "queue": "tasks",
                "func": "handler",
                "lifecycle": {"auto_start": True},
            },
        ]
    )

    @engine.function("app:handler")
    def handler(_: Any) -> None:
        times.append(time.monotonic())
        if len(times) == 3:
            came.set()
            return
        raise WippyQueueError("no")

    with engine:
        with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
            properties = pika.BasicProperties(content_type="application/json", headers={"big": "y" * 130_500})
            connection.channel().basic_publish("", name, b'{"foreign": 1}', properties)
        assert came.wait(DEADLINE)
    assert times[1] - times[0] > 0.9
    assert times[2] - times[1] > 0.9
