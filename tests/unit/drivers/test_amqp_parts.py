"""Parts of the AMQP driver that need no broker."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pika", reason="pika is not installed: pip install 'wippy_queue[amqp]'")

import pika
from pika import BasicProperties, exceptions, spec
from pika.adapters.utils import connection_workflow as workflow

from tests.support import DEADLINE, Receiving, eventually, message, queue
from wippy_queue.delivery import Delivery
from wippy_queue.drivers.amqp.connection import Connection
from wippy_queue.drivers.amqp.copier import Copier
from wippy_queue.drivers.amqp.delays import Delays
from wippy_queue.drivers.amqp.dropper import Drop, Dropper
from wippy_queue.drivers.amqp.inbox import Inbox
from wippy_queue.drivers.amqp.intake import Intake, Receipt
from wippy_queue.drivers.amqp.options import AmqpConfig, AmqpConsumerOptions, AmqpQueueOptions, AmqpTls
from wippy_queue.drivers.amqp.outbox import Batch, Outbox, Parcel
from wippy_queue.drivers.amqp.parameters import connection_parameters
from wippy_queue.drivers.amqp.topology import Declared, tier
from wippy_queue.drivers.amqp.trouble import channel_trouble, connection_trouble, words
from wippy_queue.errors import Conflict, Invalid, NotFound, PermissionDenied, Unavailable, WippyQueueError


def test_without_pika_everything_is_known_but_the_driver_cannot_be_made() -> None:
    """`check` reads applications on machines without the extra; a run says what to install."""
    code = """
import sys
import time
sys.modules["pika"] = None
from wippy_queue import Engine, Unavailable
from wippy_queue.drivers import DRIVER_KINDS
kind = DRIVER_KINDS["queue.driver.amqp"]
try:
    kind.create("app:rabbit", kind.config())
except Unavailable as error:
    assert error.retryable is False
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "pip install 'wippy_queue[amqp]'" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("delay", "ms"),
    [
        (0.0001, 1),
        (0.001, 1),
        (0.07, 70),
        (0.1, 100),
        (0.101, 110),
        (0.2999, 300),
        (0.3, 300),
        (1.0, 1000),
        (1.234, 1300),
        (59.9, 60_000),
        (3600.0, 3_600_000),
        (1e9, 4_294_000_000),
    ],
)
def test_delays_are_rounded_up_to_two_digits(delay: float, ms: int) -> None:
    """So there are at most ninety delay queues for each power of ten, and no delay ends too early."""
    assert tier(delay) == ms


# options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"queue_type": "quorum", "durable": False}, "durable"),
        ({"queue_type": "quorum", "exclusive": True}, "exclusive"),
        ({"queue_type": "quorum", "auto_delete": True}, "auto_delete"),
        ({"queue_type": "quorum", "max_priority": 3}, "max_priority"),
        ({"queue_type": "quorum", "max_length": 3}, "drop_oldest"),
        ({"max_priority": 3, "max_length": 3, "overflow": "drop_oldest"}, "highest priority first"),
    ],
)
def test_what_rabbitmq_cannot_do_is_refused_at_load(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AmqpQueueOptions(**options)


def test_other_options_that_make_no_sense_are_refused_too() -> None:
    with pytest.raises(ValueError, match="no_local"):
        AmqpConsumerOptions(no_local=True)
    with pytest.raises(ValueError, match="reconnect_delay"):
        AmqpConfig(reconnect_delay=60.0)
    with pytest.raises(ValueError, match="both"):
        AmqpTls(cert="a.pem")
    with pytest.raises(ValueError, match="leave one out"):
        AmqpTls(ca="a.pem", ca_env="CA")


def test_the_password_is_not_in_the_text_of_a_configuration() -> None:
    assert "s3cret" not in repr(AmqpConfig(url="amqp://me:s3cret@host/"))


@pytest.mark.parametrize(
    ("url", "vhost", "expected"),
    [
        ("amqp://localhost", None, ("localhost", 5672, "/", "guest", "guest")),
        ("amqp://me:p%40ss@rabbit:5673/", None, ("rabbit", 5673, "/", "me", "p@ss")),
        ("amqp://rabbit/%2f", None, ("rabbit", 5672, "/", "guest", "guest")),
        ("amqp://rabbit/orders", None, ("rabbit", 5672, "orders", "guest", "guest")),
        ("amqp://rabbit/orders", "other", ("rabbit", 5672, "other", "guest", "guest")),
        ("amqps://rabbit/", None, ("rabbit", 5671, "/", "guest", "guest")),
    ],
)
def test_the_url_says_where_and_who(url: str, vhost: str | None, expected: tuple[object, ...]) -> None:
    found = connection_parameters(AmqpConfig(url=url, vhost=vhost, heartbeat=15.0), "a name")
    credentials: Any = found.credentials
    assert (found.host, found.port, found.virtual_host, credentials.username, credentials.password) == expected
    assert found.heartbeat == 15
    assert found.client_properties is not None
    assert found.client_properties["connection_name"] == "a name"
    assert (found.ssl_options is not None) == url.startswith("amqps")


@pytest.mark.parametrize("url", ["amqp://me:s3cret@host:port/", "amqp://me:s3cret@host/?heartbeat=3"])
def test_a_url_that_cannot_be_used_is_told_without_its_password(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        connection_parameters(AmqpConfig(url=url), "x")
    assert "s3cret" not in str(caught.value)


def test_files_of_certificates_that_are_not_there_are_told() -> None:
    with pytest.raises(Invalid, match="tls"):
        connection_parameters(AmqpConfig(tls=AmqpTls(enabled=True, ca="/nowhere.pem")), "x")
    with pytest.raises(Invalid, match="WQ_NO_SUCH"):
        connection_parameters(AmqpConfig(tls=AmqpTls(enabled=True, ca_env="WQ_NO_SUCH")), "x")


def test_a_queue_is_declared_with_what_its_options_say() -> None:
    options = AmqpQueueOptions(message_ttl=1.5, queue_expiry=60.0, max_length=5, overflow="reject")
    declared = Declared.of(queue(options=options), AmqpConfig(default_queue_ttl=9.0))
    assert declared.arguments() == {
        "x-queue-type": "classic",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "tasks.dropped",
        "x-message-ttl": 1500,
        "x-expires": 60_000,
        "x-max-length": 5,
        "x-overflow": "reject-publish",
    }
    plain = Declared.of(queue(), AmqpConfig(default_queue_ttl=9.0, default_queue_expiry=30.0))
    assert plain.arguments()["x-message-ttl"] == 9000
    assert plain.arguments()["x-expires"] == 30_000


def test_the_queue_of_dropped_messages_vanishes_after_a_queue_that_does() -> None:
    asked: list[dict[str, Any]] = []
    channel: Any = SimpleNamespace(queue_declare=lambda name, **asks: asked.append({"name": name, **asks}))
    for expiry in (30.0, None):
        declared = Declared.of(queue(options=AmqpQueueOptions(queue_expiry=expiry)), AmqpConfig())
        for step in declared.declare_dropped(channel):
            step(None)
        assert declared.drops is (expiry is not None), "it is consumed for as long as the queue is"
    assert [(asks["name"], asks["arguments"].get("x-expires")) for asks in asked] == [
        ("tasks.dropped", 90_000),
        ("tasks.dropped", None),
    ]


@pytest.mark.parametrize("name", ["amq.mine", "x" * 240])
def test_names_that_rabbitmq_cannot_have_are_refused(name: str) -> None:
    with pytest.raises(Invalid, match="queue_name"):
        Declared.of(queue(name), AmqpConfig())


# errors


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "inequivalent arg 'x-message-ttl' for queue 'tasks' in vhost '/': received '1500' but current is '1000'",
            "x-message-ttl is 1000 there and 1500 here (option message_ttl)",
        ),
        (
            "inequivalent arg 'x-message-ttl' for queue 'q': received none but current is the value '9' of type 'x'",
            "x-message-ttl is 9 there and not set here (option message_ttl)",
        ),
        (
            "inequivalent arg 'durable' for queue 'tasks' in vhost '/': received 'true' but current is 'false'",
            "durable is false there and true here (option durable)",
        ),
    ],
)
def test_a_mismatch_is_told_in_the_words_of_the_options(text: str, expected: str) -> None:
    error = channel_trouble(exceptions.ChannelClosedByBroker(406, text), "queue app:tasks")
    assert isinstance(error, Conflict)
    better = Declared.of(queue(), AmqpConfig()).mismatch(error)
    assert expected in str(better)
    assert "on_mismatch: use_existing" in str(better)
    assert better.retryable is False


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (404, "NOT_FOUND - no queue", NotFound),
        (405, "RESOURCE_LOCKED - cannot obtain exclusive access", Conflict),
        (403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use", Unavailable),
        (403, "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused for user 'me'", PermissionDenied),
        (406, "PRECONDITION_FAILED - unknown delivery tag 9", Conflict),
        (541, "INTERNAL_ERROR", Unavailable),
    ],
)
def test_what_the_broker_says_becomes_an_error_of_its_kind(code: int, text: str, kind: type[Exception]) -> None:
    error = channel_trouble(exceptions.ChannelClosedByBroker(code, text), "queue app:tasks")
    assert type(error) is kind
    assert "queue app:tasks" in str(error)
    assert text in str(error)


def test_a_queue_that_is_locked_is_tried_again() -> None:
    """Perhaps by a connection that we have lost, which the broker does not know yet: a consumer waits for it."""
    for code, text, retryable in ((405, "RESOURCE_LOCKED", True), (406, "PRECONDITION_FAILED", False)):
        assert channel_trouble(exceptions.ChannelClosedByBroker(code, text), "queue q").retryable is retryable


def test_the_reason_of_a_failed_connection_is_dug_out_and_never_empty() -> None:
    refused = workflow.AMQPConnectorSocketConnectError(ConnectionRefusedError(111, "Connection refused"))
    wrapped = exceptions.AMQPConnectionError(workflow.AMQPConnectionWorkflowFailed([refused]))
    assert words(wrapped) == "Connection refused"
    assert words(exceptions.AMQPConnectionError()) == "AMQPConnectionError"
    assert connection_trouble(wrapped, "host:5672/").retryable
    denied = connection_trouble(exceptions.ProbableAuthenticationError("ACCESS_REFUSED"), "host:5672/")
    assert denied.retryable is False
    assert "check user, password and vhost" in str(denied)


# acks


class FakeChannel:
    """Writes down what is sent, and refuses tags that are not outstanding, as RabbitMQ does."""

    def __init__(self, count: int) -> None:
        self.is_open = True
        self.outstanding = set(range(1, count + 1))
        self.frames: list[tuple[str, int]] = []

    def basic_ack(self, tag: int, multiple: bool = False) -> None:
        assert tag in self.outstanding, "406 PRECONDITION_FAILED: unknown delivery tag"
        self.outstanding -= {other for other in self.outstanding if other <= tag} if multiple else {tag}
        self.frames.append(("up to" if multiple else "one", tag))

    def basic_nack(self, tag: int, requeue: bool) -> None:
        assert requeue
        assert tag in self.outstanding, "406 PRECONDITION_FAILED: unknown delivery tag"
        self.outstanding.discard(tag)
        self.frames.append(("back", tag))


def intake(count: int) -> tuple[Intake, FakeChannel, dict[int, Receipt]]:
    nothing: Any = None
    made = Intake(
        nothing,
        "queue",
        ["tasks"],
        window=count,
        shared_window=False,
        prepare=nothing,
        on_message=lambda _epoch, tag, *_: Receipt(tag, message()),
        on_change=nothing,
        on_lost=nothing,
    )
    channel: Any = FakeChannel(count)
    made._channel = channel
    for tag in range(1, count + 1):
        method: Any = SimpleNamespace(delivery_tag=tag, redelivered=False)
        made._message(0, method, nothing, b"")
    return made, channel, dict(made._open)


def test_the_completed_prefix_is_acked_at_once() -> None:
    made, channel, receipts = intake(5)
    made.settle([receipts[tag] for tag in (3, 1, 2)], [])
    assert channel.frames == [("up to", 3)]
    assert channel.outstanding == {4, 5}


def test_what_is_done_out_of_order_is_acked_one_by_one() -> None:
    made, channel, receipts = intake(5)
    made.settle([receipts[2], receipts[5]], [])
    assert sorted(channel.frames) == [("one", 2), ("one", 5)]
    made.settle([receipts[1], receipts[3]], [])
    assert channel.frames[2:] == [("up to", 3)]
    assert channel.outstanding == {4}


def test_an_ack_never_names_a_tag_that_is_no_longer_outstanding() -> None:
    """Tag 2 was acked before: the prefix 1..2 ends with it, but only 1 may be named, or the channel is closed."""
    made, channel, receipts = intake(3)
    made.settle([receipts[2]], [])
    made.settle([receipts[1]], [])
    assert channel.frames == [("one", 2), ("up to", 1)]
    made.settle([receipts[3], receipts[1]], [])
    assert channel.frames[2:] == [("up to", 3)]
    assert channel.outstanding == set()
    assert made.holds == 0


def test_what_goes_back_is_not_acked_with_the_rest() -> None:
    made, channel, receipts = intake(4)
    made.settle([receipts[1], receipts[3]], [receipts[2]])
    assert channel.frames == [("back", 2), ("up to", 3)]
    assert channel.outstanding == {4}


# the outbox


class FakeBroker:
    """A connection, and the channels that are opened on it; it writes down what is published on any."""

    def __init__(self, frame_max: int = 131_072) -> None:
        self.is_open = True
        self.params = SimpleNamespace(frame_max=frame_max)
        self.published: list[str] = []  # ids
        self.channels = 0
        self._closed: list[Callable[..., None]] = []  # of the last channel
        self._opening: list[Callable[[], None]] = []
        self._confirm: Callable[..., None] | None = None

    def add_on_connection_unblocked_callback(self, _: Any) -> None: ...

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        yield

    def channel(self, on_open_callback: Callable[[Any], None]) -> Any:
        self.channels += 1

        def confirm_delivery(confirm: Callable[..., None], callback: Callable[..., None]) -> None:
            self._confirm = confirm
            callback(None)

        self._closed = []
        made = SimpleNamespace(
            is_open=True,
            connection=self,
            add_on_close_callback=self._closed.append,
            add_on_return_callback=lambda _: None,
            confirm_delivery=confirm_delivery,
            basic_publish=lambda _, __, ___, properties, ____: self.published.append(properties.message_id),
        )
        self._last = made
        self._opening.append(lambda: on_open_callback(made))
        return made

    def answer(self) -> None:
        """Open the channels that were asked for."""
        opening, self._opening = self._opening, []
        for one in opening:
            one()

    def confirm(self) -> None:
        assert self._confirm is not None
        self._confirm(SimpleNamespace(method=spec.Basic.Ack(delivery_tag=len(self.published), multiple=True)))

    def close_channel(self, text: str) -> None:
        for callback in self._closed:
            callback(self._last, exceptions.ChannelClosedByBroker(406, text))


class FakeLink:
    """Does at once what a link does on its thread."""

    name = "a link"
    address = "host:5672/"
    blocked: str | None = None

    def __init__(self) -> None:
        self.declared = 0

    def call(self, work: Callable[[], None]) -> None:
        work()

    def later(self, _: float, work: Callable[[], None]) -> None:
        work()

    def perform(self, _: str, __: Any, done: Callable[[Any, WippyQueueError | None], None]) -> None:
        self.declared += 1
        done(None, None)

    def why_down(self) -> WippyQueueError | None:
        return Unavailable("down", retryable=True)

    def settled(self) -> None: ...


def outbox() -> Outbox:
    link: Any = FakeLink()
    return Outbox(link)


def parcel(name: str, body: bytes = b"1", **more: Any) -> Parcel:
    return Parcel(name, "tasks", BasicProperties(message_id=name), body, **more)


def opened(box: Outbox, broker: Any) -> None:
    box.open(broker)
    broker.answer()


def post(box: Outbox, *parcels: Parcel) -> tuple[Batch, list[bool]]:
    done: list[bool] = []
    batch = Batch(parcels, lambda: done.append(True))
    box.post(batch)
    return batch, done


def test_the_outbox_lets_go_of_what_nobody_waits_for() -> None:
    """While the broker was away, the body of each publish that timed out stayed in memory until it was back."""
    box, broker = outbox(), FakeBroker()

    def give_up() -> weakref.ref[Parcel]:
        one = parcel("given up")
        with pytest.raises(Unavailable, match="1 of 1 messages were not sent"):
            box.publish([one], time.monotonic())
        return weakref.ref(one)

    post(box, parcel("patient"))
    ghost = give_up()
    gc.collect()
    assert ghost() is None
    opened(box, broker)
    assert broker.published == ["patient"], "others are not let go"


def test_a_body_that_is_too_large_for_the_broker_costs_its_publisher_alone() -> None:
    """RabbitMQ closes the channel for it, once: from then on it is known, and nobody else is disturbed."""
    box, broker = outbox(), FakeBroker()
    opened(box, broker)
    large = parcel("large", bytes(2000))
    first, first_done = post(box, large)
    fellow, fellow_done = post(box, parcel("fellow"))
    broker.close_channel("PRECONDITION_FAILED - message size 2000 is larger than configured max size 1000")
    assert first_done == fellow_done == [True]
    assert isinstance(first.error, Invalid)
    assert first.error.retryable is False
    assert "2000 bytes, and this RabbitMQ takes 1000 at most" in str(first.error)
    assert large.fate == "refused"
    assert isinstance(fellow.error, Unavailable), "its outcome is unknown"
    broker.answer()
    assert broker.channels == 2
    again, again_done = post(box, parcel("large again", bytes(1001)))
    small, small_done = post(box, parcel("small", bytes(1000)))
    assert isinstance(again.error, Invalid)
    assert again_done == [True]
    assert broker.published == ["large", "fellow", "small"], "it is not sent another time"
    broker.confirm()
    assert (small.error, small_done) == (None, [True])


def test_what_another_connection_takes_is_found_out_anew() -> None:
    """The broker may have been configured again meanwhile."""
    box, broker, other = outbox(), FakeBroker(), FakeBroker()
    opened(box, broker)
    post(box, parcel("large", bytes(2000)))
    broker.is_open = False
    broker.close_channel("PRECONDITION_FAILED - message size 2000 is larger than configured max size 1000")
    opened(box, other)
    known, _ = post(box, parcel("large", bytes(2000)))
    assert known.error is None
    assert other.published == ["large"]


@pytest.mark.parametrize(("agreed", "configured"), [(8192, 131_072), (131_072, 8192)])
def test_headers_fit_into_the_frame_that_the_broker_has_agreed_to(agreed: int, configured: int) -> None:
    """The server may have a smaller one than `frame_size` says: such headers ended the connection for everybody."""
    link: Any = FakeLink()
    box = Outbox(link)
    copier = Copier(link, box, Delays(), configured)
    opened(box, FakeBroker(agreed))
    copier.parcel("tasks", message(headers={"fits": "x" * 6000}), waiting=False)
    with pytest.raises(Invalid, match="put more into the body"):
        copier.parcel("tasks", message(headers={"long": "x" * 9000}), waiting=False)


# delays


def test_what_has_waited_longer_than_its_queue_lives_is_not_sent() -> None:
    """Its delay queue would be gone before it is due, and the message with it."""
    box, broker = outbox(), FakeBroker()
    late, in_time = parcel("late", until=time.monotonic() - 0.001), parcel("in time", until=time.monotonic() + 60)
    batch, done = post(box, late, in_time)
    opened(box, broker)
    assert (late.fate, in_time.fate) == ("stale", "sent")
    assert broker.published == ["in time"]
    assert done == []
    broker.confirm()
    assert (done, batch.error) == ([True], None)


class Copies:
    """A copier that makes a copy with a delay, on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed = 0.0  # seconds
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + self.passed, time=time.time)
        for module in ("copier", "delays", "outbox"):
            monkeypatch.setattr(f"wippy_queue.drivers.amqp.{module}.time", clock, raising=False)
        self.link = link = FakeLink()
        anything: Any = link
        self.box = Outbox(anything)
        self.broker = FakeBroker()
        self._copier = Copier(anything, self.box, Delays(), 131_072)
        self._declared = Declared.of(queue(), AmqpConfig())
        self.told: list[WippyQueueError | None] = []

    def copy(self) -> None:
        self._copier.retry(self._declared, message(), 0.5, self.told.append)


def test_a_copy_that_has_waited_too_long_is_made_again_by_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then the original is kept, and the delay queue is declared anew for the next copy."""
    copies = Copies(monkeypatch)
    copies.copy()
    copies.passed = 60.0
    opened(copies.box, copies.broker)
    assert copies.broker.published == []
    (error,) = copies.told
    assert isinstance(error, Unavailable)
    assert error.retryable
    copies.copy()
    copies.broker.confirm()
    assert copies.link.declared == 2
    assert copies.told[1:] == [None]


def test_the_queue_of_a_copy_that_was_stored_late_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is out of memory takes its time: the queue must not vanish before what waits in it is due."""
    copies = Copies(monkeypatch)
    opened(copies.box, copies.broker)
    copies.copy()
    assert copies.link.declared == 1
    copies.passed = 60.0
    copies.broker.confirm()
    assert copies.link.declared == 2
    assert copies.told == [None]


# the dropper


def test_drops_of_a_lost_connection_are_not_handed_over() -> None:
    """The broker gives them to somebody else."""
    seen: list[str] = []
    target = queue(on_drop=lambda messages, _: seen.extend(one.id for one in messages))
    dropper = Dropper("test-dropper")
    forgotten: list[str] = []

    def put(name: str, ours: bool) -> None:
        dropper.put(Drop(target, message(name), "expired", lambda: ours, lambda: forgotten.append(name)))

    put("lost", False)
    put("kept", True)
    dropper.start()
    dropper.stop(time.monotonic() + DEADLINE)
    assert seen == forgotten == ["kept"]


@pytest.mark.parametrize("name", ["_on_data_available", "_output_marshaled_frames", "_read_frame"])
def test_pika_has_the_inner_methods_that_a_connection_overrides(name: str) -> None:
    """A pika that calls them otherwise would send and hand over each message alone, and fall over an odd header."""
    assert callable(getattr(pika.SelectConnection, name))


def test_pika_reads_as_much_at_a_time_as_it_is_told_to() -> None:
    from pika.adapters.utils.io_services_utils import _AsyncTransportBase

    assert isinstance(_AsyncTransportBase._MAX_RECV_BYTES, int)  # type: ignore[attr-defined]  # no public name


# the inbox


def deliveries(*ids: str) -> list[Delivery]:
    return [Delivery(message(name), None) for name in ids]


class Feeder(Receiving):
    """A thread in ``take``."""

    def __init__(self, inbox: Inbox, limit: int, takes: bool = True) -> None:
        super().__init__(lambda sink: inbox.take(limit, DEADLINE, sink), takes)
        eventually(lambda: inbox._sink is not None, "it waits")

    def returned(self) -> tuple[list[str], bool]:
        taken, fed = self.result()
        return [delivery.message.id for delivery in taken], fed


def test_what_comes_while_a_feeder_waits_goes_past_it_up_to_its_limit() -> None:
    inbox, me = Inbox(), threading.get_ident()
    feeder = Feeder(inbox, limit=3)
    inbox.put(deliveries("a"))
    inbox.put(deliveries("b", "c"))
    inbox.put(deliveries("d"))
    assert feeder.returned() == ([], True)
    assert feeder.given == [("a", me), ("b", me), ("c", me)]
    assert [delivery.message.id for delivery in inbox.take(5, 0.0)[0]] == ["d"]


def test_more_than_there_is_room_for_waits_and_nothing_overtakes_it() -> None:
    inbox = Inbox()
    feeder = Feeder(inbox, limit=2)
    with inbox._changed:  # so that the feeder cannot come back between the two
        inbox.put(deliveries("a", "b", "c"))
        inbox.put(deliveries("d"))
    assert feeder.returned() == (["a", "b"], False)
    assert feeder.given == []
    assert [delivery.message.id for delivery in inbox.drain()] == ["c", "d"]


def test_what_a_sink_refuses_is_kept() -> None:
    inbox = Inbox()
    feeder = Feeder(inbox, limit=2, takes=False)
    inbox.put(deliveries("a"))
    assert feeder.returned() == (["a"], False)


def test_a_nudge_before_or_during_a_wait_brings_the_feeder_back_and_the_next_one_waits_again() -> None:
    inbox = Inbox()
    inbox.nudge()
    assert inbox.take(2, DEADLINE) == ([], False)
    feeder = Feeder(inbox, limit=2)
    inbox.put(deliveries("a"))
    inbox.nudge()
    assert feeder.returned() == ([], True)
    again = Feeder(inbox, limit=2)
    inbox.put(deliveries("b"))
    inbox.put(deliveries("c"))
    assert again.returned() == ([], True)


def test_a_sink_is_left_alone_once_its_feeder_is_back() -> None:
    def sink(_: Sequence[Delivery]) -> bool:
        raise AssertionError("nobody waits")

    inbox = Inbox()
    assert inbox.take(2, 0.001, sink) == ([], False)
    inbox.put(deliveries("a"))
    assert len(inbox.drain()) == 1


def test_what_is_read_together_is_handed_over_together(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = object.__new__(Connection)
    done: list[str] = []

    def read(_: object, data: bytes) -> None:
        connection.after_read(lambda: done.append("handed over"))
        done.append(data.decode())
        if data == b"broken":
            raise OSError(data)

    monkeypatch.setattr(pika.SelectConnection, "_on_data_available", read)
    connection._on_data_available(b"frames")
    assert done == ["frames", "handed over"]
    with pytest.raises(OSError, match="broken"):
        connection._on_data_available(b"broken")
    assert done[2:] == ["broken", "handed over"]
    connection.after_read(lambda: done.append("at once"))
    assert done[4:] == ["at once"]
