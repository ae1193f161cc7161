"""The SQS driver on moto: names, attributes, delays, FIFO groups, leases, threads, and what its errors say."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import boto3
import msgspec
import pytest

from tests.moto_sqs import aws_config, sqs_config
from tests.support import DEADLINE, eventually
from wippy_queue import ConfigurationError, Engine, current_message
from wippy_queue.deadletters import revived
from wippy_queue.delivery import Action, Delivery, Settlement
from wippy_queue.driver import Subscription
from wippy_queue.drivers.sqs import KIND
from wippy_queue.drivers.sqs import queue as queue_module
from wippy_queue.drivers.sqs.driver import SqsDriver
from wippy_queue.drivers.sqs.options import SqsConfig, SqsQueueOptions
from wippy_queue.drivers.sqs.queue import name_on_sqs
from wippy_queue.drivers.sqs.subscription import SqsSubscription
from wippy_queue.errors import Conflict, Invalid, PermissionDenied, Unavailable
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import Queue

DRIVER = EntryId("app:sqs")
Opener = Callable[..., SqsDriver]


def a_queue(name: str, **options: Any) -> Queue:
    return Queue(id=EntryId("app:tasks"), name=name, driver=DRIVER, options=SqsQueueOptions(**options))


def a_message(name: str, **fields: Any) -> Message:
    return Message(**{"id": name, "body": b'"body"', "timestamp": time.time(), **fields})


def ids(found: Sequence[Delivery]) -> list[str]:
    return [one.message.id for one in found]


@pytest.fixture
def opener(sqs_endpoint: str) -> Iterator[Opener]:
    drivers: list[SqsDriver] = []

    def open_driver(**fields: Any) -> SqsDriver:
        driver = SqsDriver(DRIVER, sqs_config(sqs_endpoint, **{"wait_time": 0.0, **fields}))
        drivers.append(driver)
        driver.start()
        return driver

    yield open_driver
    for driver in drivers:
        driver.stop(DEADLINE)


@pytest.fixture
def raw(sqs_endpoint: str) -> Any:
    """A client of our own, to look and to meddle."""
    session = boto3.Session("testing", "testing", region_name="eu-west-1")
    return session.client("sqs", endpoint_url=sqs_endpoint)


@pytest.fixture
def name() -> str:
    return f"q-{uuid.uuid4().hex[:12]}"


def receive(subscription: Subscription, count: int) -> list[Delivery]:
    deadline = time.monotonic() + DEADLINE
    received: list[Delivery] = []
    while len(received) < count and time.monotonic() < deadline:
        received += subscription.receive(count - len(received), 0.5)
    assert len(received) == count, ids(received)
    return received


def settle(subscription: Subscription, delivery: Delivery, action: Action = "ack", **fields: Any) -> Exception | None:
    told: list[Exception | None] = []
    done = threading.Event()

    def finished(error: Exception | None) -> None:
        told.append(error)
        done.set()

    assert delivery.claim()
    subscription.settle([Settlement(delivery, action, done=finished, **fields)])
    assert done.wait(DEADLINE)
    return told[0]


def failed(delivery: Delivery) -> Message:
    return msgspec.structs.replace(delivery.message, attempts=delivery.message.attempts + 1)


# names and attributes


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("tasks", {}, "tasks"),
        ("tasks.parked", {}, "tasks-parked"),
        ("orders", {"fifo": True}, "orders.fifo"),
        ("orders.fifo", {}, "orders.fifo"),
        ("orders.fifo.parked", {}, "orders-fifo-parked"),
        ("x" * 80, {}, "x" * 80),
    ],
)
def test_a_queue_has_a_name_that_sqs_takes(name: str, options: dict[str, Any], expected: str) -> None:
    assert name_on_sqs(a_queue(name, **options)) == expected


@pytest.mark.parametrize("name", ["x" * 81, "with space", "ünï", "x" * 76 + ".fifo"])
def test_a_name_that_sqs_does_not_take_is_refused_with_the_cure(name: str) -> None:
    with pytest.raises(Invalid, match="set `queue_name`"):
        name_on_sqs(a_queue(name))


def test_two_queues_that_would_be_one_on_sqs_are_refused(opener: Opener, name: str) -> None:
    driver = opener()
    driver.declare(a_queue(f"{name}.a"))
    with pytest.raises(Invalid, match="and so is app:tasks"):
        driver.declare(a_queue(f"{name}-a"))


def test_a_queue_is_made_with_the_attributes_of_its_options_and_its_driver(opener: Opener, raw: Any, name: str) -> None:
    opener(message_retention_period=7200.0, default_delay_seconds=3.0).declare(a_queue(name, visibility_timeout=9.5))
    url = raw.get_queue_url(QueueName=name)["QueueUrl"]
    found = raw.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert {key: found[key] for key in ("MessageRetentionPeriod", "VisibilityTimeout", "DelaySeconds")} == {
        "MessageRetentionPeriod": "7200",
        "VisibilityTimeout": "10",
        "DelaySeconds": "3",
    }


def test_a_queue_that_is_there_is_used_unless_its_options_say_otherwise(opener: Opener, raw: Any, name: str) -> None:
    raw.create_queue(QueueName=name, Attributes={"MessageRetentionPeriod": "600"})
    driver = opener()
    driver.declare(a_queue(name))
    with pytest.raises(Conflict, match="MessageRetentionPeriod is 600, and 3600 is asked for") as caught:
        opener().declare(a_queue(name, message_retention_period=3600.0))
    assert "set-queue-attributes" in str(caught.value)


# publishing


def test_a_delay_that_sqs_does_not_keep_goes_in_hops(
    opener: Opener, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "LONGEST_DELAY", 1.0)
    driver, queue = opener(), a_queue(name)
    driver.declare(queue)
    subscription = driver.subscribe(queue, 5)
    since = time.monotonic()
    driver.publish(queue, [a_message("a", delay=2.2, headers={"n": 1})], DEADLINE)
    (delivery,) = receive(subscription, 1)
    assert time.monotonic() - since >= 2.2
    assert (delivery.message.attempts, dict(delivery.message.headers)) == (0, {"n": 1})
    assert settle(subscription, delivery) is None
    assert driver.wait_idle(queue, DEADLINE)


def test_the_header_for_a_delay_acts_and_arrives(opener: Opener, name: str) -> None:
    driver, queue = opener(), a_queue(name)
    driver.declare(queue)
    driver.publish(queue, [a_message("a", headers={"sqs.delay_seconds": 1})], DEADLINE)
    assert driver.info(queue).delayed == 1
    (delivery,) = receive(driver.subscribe(queue, 1), 1)
    assert dict(delivery.message.headers) == {"sqs.delay_seconds": 1}
    with pytest.raises(Invalid, match=r"sqs.delay_seconds: expected seconds"):
        driver.publish(queue, [a_message("a", headers={"sqs.delay_seconds": "soon"})], DEADLINE)


def test_the_delay_of_a_queue_holds_for_what_says_nothing(opener: Opener, name: str) -> None:
    driver, queue = opener(), a_queue(name, delay_seconds=60.0)
    driver.declare(queue)
    driver.publish(queue, [a_message("a")], DEADLINE)
    assert driver.info(queue).delayed == 1


def test_what_sqs_refuses_is_told_with_what_it_has_taken(opener: Opener, raw: Any, name: str) -> None:
    driver, queue = opener(), a_queue(name)
    driver.declare(queue)
    assert driver._open is not None
    client = driver._open.client
    send = client.send

    def refuse_one(url: str, entries: Sequence[Mapping[str, Any]]) -> Any:
        kept = [entry for entry in entries if "bad" not in entry["MessageBody"]]
        send(url, kept)
        return {i: Invalid("not this one") for i, entry in enumerate(entries) if "bad" in entry["MessageBody"]}

    client.send = refuse_one  # type: ignore[method-assign]
    with pytest.raises(Invalid, match="1 of 3 messages were not published: not this one") as caught:
        driver.publish(queue, [a_message("a"), a_message("b", body=b'"bad"'), a_message("c")], DEADLINE)
    assert caught.value.details["accepted"] == ["a", "c"]


def test_a_body_that_changed_on_its_way_is_not_confirmed(opener: Opener, name: str) -> None:
    driver, queue = opener(), a_queue(name)
    driver.declare(queue)
    assert driver._open is not None
    sdk = driver._open.client._client
    send = sdk.send_message_batch

    def break_checksum(**arguments: Any) -> Any:
        answer = send(**arguments)
        answer["Successful"][0]["MD5OfMessageBody"] = "0" * 32
        return answer

    sdk.send_message_batch = break_checksum
    with pytest.raises(Exception, match="another body"):
        driver.publish(queue, [a_message("a")], DEADLINE)
    driver._open.client._checked = False
    driver.publish(queue, [a_message("b")], DEADLINE)


# settling


def test_a_requeue_that_only_counts_leaves_the_message_where_it_is(opener: Opener, name: str) -> None:
    """No copy, so no duplicate can come of it: the message is hidden, and its next receive counts the attempt."""
    driver, queue = opener(), a_queue(name)
    driver.declare(queue)
    driver.publish(queue, [a_message("a")], DEADLINE)
    subscription = driver.subscribe(queue, 1)
    assert driver._open is not None
    sent: list[Any] = []

    def refuse(_: str, entries: Sequence[Mapping[str, Any]]) -> Any:
        sent.extend(entries)
        raise Invalid("no copies")

    driver._open.client.send = refuse  # type: ignore[method-assign, assignment]
    for attempts in range(3):
        (delivery,) = receive(subscription, 1)
        assert delivery.message.attempts == attempts
        assert settle(subscription, delivery, "requeue", message=failed(delivery)) is None
    assert sent == []


def test_a_message_that_sqs_would_soon_delete_for_its_age_is_copied(opener: Opener, raw: Any, name: str) -> None:
    """For ever means for ever: a copy begins its retention anew."""
    driver, queue = opener(), a_queue(name)
    driver.declare(queue)
    driver.publish(queue, [a_message("a")], DEADLINE)
    subscription = driver.subscribe(queue, 1)
    (delivery,) = receive(subscription, 1)
    delivery.receipt.sent -= 3 * 86_400
    assert settle(subscription, delivery, "requeue", message=failed(delivery)) is None
    (again,) = receive(subscription, 1)
    assert again.message.attempts == 1
    url = raw.get_queue_url(QueueName=name)["QueueUrl"]
    counts = raw.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert counts["ApproximateNumberOfMessagesNotVisible"] == "1", "the old one is gone"


def test_an_extension_under_way_does_not_hide_what_goes_back(opener: Opener, name: str) -> None:
    """Were it overtaken, the message would be hidden from everybody for another visibility timeout."""
    driver, queue = opener(visibility_timeout=3.0), a_queue(name)
    driver.declare(queue)
    driver.publish(queue, [a_message("a")], DEADLINE)
    subscription = driver.subscribe(queue, 20)
    (first,) = receive(subscription, 1)
    assert driver._open is not None
    client = driver._open.client
    hide, seen, overtaken, release = client.hide, threading.Event(), threading.Event(), threading.Event()

    def slow(url: str, entries: Sequence[Mapping[str, Any]]) -> Any:
        mine = [entry for entry in entries if entry["ReceiptHandle"] == first.receipt.handle]
        if mine and mine[0]["VisibilityTimeout"] == 3:
            seen.set()
            assert release.wait(DEADLINE)
        elif mine and not release.is_set():
            overtaken.set()
        return hide(url, entries)

    client.hide = slow  # type: ignore[method-assign]
    assert seen.wait(DEADLINE)
    # More than fit into a batch, or nothing would be sent before the extension is through.
    driver.publish(queue, [a_message(str(number)) for number in range(15)], DEADLINE)
    held = [first, *receive(subscription, 15)]
    assert all(delivery.claim() for delivery in held)
    subscription.settle([Settlement(delivery, "requeue", failed(delivery)) for delivery in held])
    assert not overtaken.wait(0.3)
    release.set()
    assert "a" in ids(receive(subscription, 16))


def test_what_is_on_its_way_back_is_not_extended(opener: Opener, name: str) -> None:
    """SQS may be slow to answer: an extension meanwhile would hide the message again."""
    driver, queue = opener(visibility_timeout=1.5), a_queue(name)
    driver.declare(queue)
    driver.publish(queue, [a_message("a")], DEADLINE)
    subscription = driver.subscribe(queue, 1)
    (delivery,) = receive(subscription, 1)
    assert driver._open is not None
    client = driver._open.client
    hide, extended, release = client.hide, threading.Event(), threading.Event()

    def slow(url: str, entries: Sequence[Mapping[str, Any]]) -> Any:
        if entries[0]["VisibilityTimeout"] == 0:
            assert release.wait(DEADLINE)
        else:
            extended.set()
        return hide(url, entries)

    client.hide = slow  # type: ignore[method-assign]
    assert delivery.claim()
    subscription.settle([Settlement(delivery, "requeue", failed(delivery))])
    eventually(lambda: time.monotonic() - delivery.receipt.renewed > 0.8, "it is time for an extension")
    release.set()
    assert not extended.wait(0.3)
    assert ids(receive(subscription, 1)) == ["a"]


def test_twelve_hours_are_the_end_of_a_lease(opener: Opener, name: str) -> None:
    driver, queue = opener(visibility_timeout=1.0), a_queue(name)
    driver.declare(queue)
    driver.publish(queue, [a_message("a")], DEADLINE)
    subscription = driver.subscribe(queue, 1)
    (delivery,) = receive(subscription, 1)
    assert subscription.begin([delivery])
    delivery.receipt.received -= 43_200
    eventually(lambda: not subscription.begin([delivery]), "the lease has ended")
    assert isinstance(settle(subscription, delivery), Conflict)
    assert ids(receive(subscription, 1)) == ["a"]


def test_what_was_handed_back_unhandled_has_no_attempts(opener: Opener, name: str) -> None:
    """Else a few restarts would use up the attempts of a message that no handler has seen."""
    driver, queue = opener(), a_queue(name)
    driver.declare(queue)
    driver.publish(queue, [a_message("a", attempts=1, headers={"n": 9})], DEADLINE)
    for _ in range(3):
        subscription = driver.subscribe(queue, 1)
        (delivery,) = receive(subscription, 1)
        assert (delivery.message.attempts, dict(delivery.message.headers)) == (1, {"n": 9})
        assert settle(subscription, delivery, "release") is None
        subscription.close(DEADLINE)
    assert driver.info(queue).message_count == 1


# FIFO queues


@pytest.fixture
def fifo(opener: Opener, name: str) -> tuple[SqsDriver, Queue]:
    driver, queue = opener(), a_queue(name, fifo=True)
    driver.declare(queue)
    return driver, queue


def test_one_message_of_a_group_at_a_time_in_order(fifo: tuple[SqsDriver, Queue]) -> None:
    driver, queue = fifo
    for number in range(4):
        for group in "ab":
            key = {"partition_key": group} if group == "a" else {"sqs.message_group_id": group}
            driver.publish(queue, [a_message(f"{group}{number}", headers=key)], DEADLINE)
    subscription = driver.subscribe(queue, 8)
    for number in range(4):
        held = receive(subscription, 2)
        assert sorted(ids(held)) == [f"a{number}", f"b{number}"]
        assert subscription.receive(8, 0.1) == [], "the next of a group comes after the one before it"
        for delivery in held:
            assert settle(subscription, delivery) is None
    assert driver.wait_idle(queue, DEADLINE)


def test_what_follows_a_failed_message_waits_for_it(fifo: tuple[SqsDriver, Queue]) -> None:
    driver, queue = fifo
    driver.publish(queue, [a_message(str(number)) for number in range(3)], DEADLINE)
    subscription = driver.subscribe(queue, 5)
    (first,) = receive(subscription, 1)
    assert settle(subscription, first, "requeue", message=failed(first), delay=1.0) is None
    for expected, attempts in (("0", 1), ("1", 0), ("2", 0)):
        (delivery,) = receive(subscription, 1)
        assert (delivery.message.id, delivery.message.attempts) == (expected, attempts)
        assert settle(subscription, delivery) is None


def test_a_repeated_id_is_a_no_op_on_a_fifo_queue_and_a_requeue_is_not(fifo: tuple[SqsDriver, Queue]) -> None:
    """A copy with the old deduplication id would be swallowed, and the message lost with the original."""
    driver, queue = fifo
    for _ in range(2):
        driver.publish(queue, [a_message("a b", headers={"n": 1})], DEADLINE)
    subscription = driver.subscribe(queue, 5)
    (delivery,) = receive(subscription, 1)
    changed = msgspec.structs.replace(delivery.message, headers={"n": 2})
    assert settle(subscription, delivery, "requeue", message=changed) is None
    (again,) = receive(subscription, 1)
    assert dict(again.message.headers) == {"n": 2}
    assert settle(subscription, again) is None
    assert driver.wait_idle(queue, DEADLINE)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"delay": 1.0}, "delay: queue app:tasks is FIFO"),
        ({"headers": {"sqs.delay_seconds": 1}}, "sqs.delay_seconds: queue app:tasks is FIFO"),
        ({"headers": {"sqs.message_group_id": "not a group"}}, "sqs.message_group_id"),
    ],
)
def test_what_a_fifo_queue_cannot_do_is_invalid(
    fifo: tuple[SqsDriver, Queue], fields: dict[str, Any], named: str
) -> None:
    driver, queue = fifo
    with pytest.raises(Invalid, match=named):
        driver.publish(queue, [a_message("a", **fields)], DEADLINE)


# polling


def test_a_poll_that_comes_too_late_hands_back_what_it_brings(opener: Opener, name: str) -> None:
    """A cancel cannot end a long poll; what it still brings must not stay hidden for a visibility timeout."""
    driver, queue = opener(wait_time=2.0), a_queue(name)
    driver.declare(queue)
    leaving = driver.subscribe(queue, 1)
    assert leaving.receive(1, 0.05) == []
    since = time.monotonic()
    assert leaving.cancel() == []
    assert leaving.receive(1, DEADLINE) == []
    assert time.monotonic() - since < 0.5
    driver.publish(queue, [a_message("a")], DEADLINE)
    (delivery,) = receive(driver.subscribe(queue, 1), 1)
    assert time.monotonic() - since < 10, "not after the visibility timeout of 30 s"
    assert delivery.message.attempts <= 1


def test_a_poll_asks_for_no_more_than_there_is_room(opener: Opener, name: str) -> None:
    driver, queue = opener(), a_queue(name)
    driver.declare(queue)
    driver.publish(queue, [a_message(str(number)) for number in range(30)], DEADLINE)
    subscription = driver.subscribe(queue, 12)
    assert isinstance(subscription, SqsSubscription)
    receive(subscription, 12)
    subscription.receive(10, 0.1)
    info = driver.info(queue)
    assert (info.ready, info.in_flight) == (18, 12)


def test_many_queues_share_a_few_threads(opener: Opener, name: str) -> None:
    driver = opener(wait_time=1.0)
    queues = [a_queue(f"{name}-{number}") for number in range(16)]
    received: list[str] = []

    def consume(subscription: Subscription) -> None:
        received.extend(ids(receive(subscription, 1)))

    threads = []
    for queue in queues:
        driver.declare(queue)
        subscription = driver.subscribe(queue, 5)
        threads.append(threading.Thread(target=consume, args=(subscription,), daemon=True))
        threads[-1].start()
    for queue in queues:
        driver.publish(queue, [a_message(queue.name)], DEADLINE)
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(received) == sorted(queue.name for queue in queues)
    assert sum(thread.name.startswith("app:sqs-poll") for thread in threading.enumerate()) <= 12


# looking


def test_a_purge_hands_back_what_was_published_since(
    opener: Opener, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, queue = opener(), a_queue(name)
    driver.declare(queue)
    driver.publish(queue, [a_message("new")], DEADLINE)
    before = time.time() - 60
    monkeypatch.setattr("wippy_queue.drivers.sqs.looking.time.time", lambda: before)
    assert driver.purge(queue) == 0
    assert ids(receive(driver.subscribe(queue, 1), 1)) == ["new"]


# configuration and errors


def test_without_boto3_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.delitem(sys.modules, "wippy_queue.drivers.sqs.client", raising=False)
    driver = KIND.create(DRIVER, SqsConfig())
    with pytest.raises(Unavailable, match=r"pip install 'wippy_queue\[sqs\]'") as caught:
        driver.start()
    assert caught.value.retryable is False


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A machine on which AWS's default chain finds nothing."""
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def test_without_credentials_the_error_says_where_to_put_them(no_aws: None) -> None:
    with pytest.raises(PermissionDenied, match=r"app:sqs: no AWS credentials .* config.aws"):
        SqsDriver(DRIVER, SqsConfig(endpoint="http://127.0.0.1:9")).start()


def test_without_a_region_the_error_says_where_to_put_it(no_aws: None) -> None:
    with pytest.raises(Invalid, match="app:sqs: no AWS region"):
        SqsDriver(DRIVER, SqsConfig(config=aws_config(region=None))).start()


def test_an_endpoint_that_does_not_answer_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9") as caught:
        SqsDriver(DRIVER, sqs_config("http://127.0.0.1:9")).start()
    assert caught.value.retryable


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "AccessDenied", "SomethingElse"])
def test_no_error_shows_a_secret(opener: Opener, name: str, code: str) -> None:
    """AWS repeats what was signed in what it says of a wrong signature."""
    driver, queue = opener(), a_queue(name)
    driver.declare(queue)
    assert driver._open is not None
    client = driver._open.client
    error = client._scrubber.fault("app:sqs", code, "signed with testing-secret by testing", ours=True)
    assert "testing" not in str(error)
    assert "testing-secret" not in repr(driver._config)


def test_fips_and_an_endpoint_of_ones_own_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="remove them, or endpoint"):
        SqsConfig(endpoint="http://127.0.0.1:9", use_fips=True)


# the engine


def application(endpoint: str, name: str, **tasks: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": "aws",
            "kind": "config.aws",
            "region": "eu-west-1",
            "access_key_id": "testing",
            "secret_access_key": "testing-secret",
        },
        {"name": "sqs", "kind": "queue.driver.sqs", "config": "aws", "endpoint": endpoint, "wait_time": 0},
        {"name": "tasks", "kind": "queue.queue", "driver": "sqs", "queue_name": name, **tasks},
        {
            "name": "worker",
            "kind": "queue.consumer",
            "queue": "tasks",
            "func": "handler",
            "concurrency": 2,
            "lifecycle": {"auto_start": True},
        },
    ]


def test_an_application_on_sqs_from_its_entries_to_a_parked_message(sqs_endpoint: str, name: str) -> None:
    engine = Engine.from_entries(
        application(
            sqs_endpoint, name, retry={"initial_delay": 0, "max_attempts": 2}, options={"visibility_timeout": "20s"}
        )
    )
    handled: list[tuple[Any, int]] = []

    @engine.function("app:handler")
    def handler(body: Any) -> None:
        handled.append((body, current_message().attempts))
        if body == "poison":
            raise RuntimeError(body)

    with engine:
        engine.publish("app:tasks", {"n": 1}, headers={"traceparent": "00-1"})
        engine.publish("app:tasks", "poison")
        engine.join("app:tasks", timeout=DEADLINE)
        (parked,) = engine.dead_letters("app:tasks").list()
        assert (parked.reason, parked.attempts) == ("attempts", 2)
    assert sorted(handled, key=str) == [("poison", 0), ("poison", 1), ({"n": 1}, 0)]


@pytest.mark.parametrize(
    ("entry", "field", "value", "said"),
    [
        ("app:sqs", "config", "tasks", "expected the id of a config.aws, but app:tasks is a queue.queue"),
        ("app:sqs", "config", "awss", "did you mean 'app:aws'"),
        ("app:aws", "access_key_id", None, "go together"),
        ("app:sqs", "wait_time", "30s", "20s"),
        ("app:tasks", "options", {"max_length": 5}, "has no queue option 'max_length'"),
    ],
)
def test_mistakes_in_the_configuration_are_told(entry: str, field: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        Engine.from_entries(application("http://127.0.0.1:9", "tasks"), overrides={entry: {field: value}})
    assert "testing-secret" not in str(caught.value)


def test_a_replay_into_a_fifo_queue_is_stored_although_its_id_was_there_minutes_ago(
    fifo: tuple[SqsDriver, Queue],
) -> None:
    """SQS drops what has the same deduplication id within five minutes, and says yes: a replay would lose it."""
    driver, queue = fifo
    original = a_message("m-1")
    driver.publish(queue, [original], 5)
    subscription = driver.subscribe(queue, 10)
    [delivery] = subscription.receive(10, DEADLINE)
    assert delivery.claim()
    subscription.settle([Settlement(delivery)])
    subscription.close(DEADLINE)
    driver.publish(queue, [revived(original)], 5)
    assert [message.id for message in driver.peek(queue, 10)] == ["m-1"]
