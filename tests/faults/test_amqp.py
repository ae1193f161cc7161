"""What networks and RabbitMQ do to a driver: consumers go on, publishers hear of it in time, a stop ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.faults.application import AMQP, SLACK
from tests.faults.conftest import Start
from tests.faults.proxy import Proxy
from tests.rabbit import CURED, Bench, goes_on, receive, settle
from tests.rabbit_server import RabbitServer
from tests.support import DEADLINE, eventually, message
from wippy_queue.delivery import Settlement
from wippy_queue.drivers.amqp.driver import AmqpDriver
from wippy_queue.drivers.amqp.subscription import AmqpSubscription
from wippy_queue.errors import QueueFull, Timeout, Unavailable, WippyQueueError
from wippy_queue.queues import Queue

Swallowed = tuple[Bench, AmqpDriver, Queue, AmqpSubscription]


@pytest.fixture
def bench(amqp_url: str) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(amqp_url, stack)


@pytest.fixture(scope="module", autouse=True)
def swallowed(amqp_url: str) -> Iterator[Swallowed]:
    """A consumer in a black hole. It takes pika twelve seconds to notice, so the hole is there from the beginning."""
    with ExitStack() as stack:
        bench = Bench(amqp_url, stack)
        driver = bench.driver(heartbeat=1.0)
        queue = bench.queue(driver)
        subscription = driver.subscribe(queue, 1)
        bench.proxy.swallow()
        yield bench, driver, queue, subscription


@pytest.fixture
def own(own_rabbit: RabbitServer) -> Iterator[Bench]:
    """A bench on a broker that nobody else uses."""
    with ExitStack() as stack:
        yield Bench(own_rabbit.url, stack)


@pytest.mark.parametrize("fault", ["reset", "close_all_connections"])
def test_a_lost_connection_is_mended_and_what_was_held_comes_again(
    own: Bench, own_rabbit: RabbitServer, fault: str
) -> None:
    driver = own.driver()
    queue = own.queue(driver)
    driver.publish(queue, [message("running"), message("buffered")], 5)
    subscription = driver.subscribe(queue, 2)
    running, buffered = receive(subscription, 2)
    assert subscription.begin([running])
    if fault == "reset":
        own.proxy.reset()
    else:
        own_rabbit.close_connections()
    eventually(lambda: subscription.intake.epoch != buffered.epoch, "the loss is noticed")
    assert not subscription.begin([buffered]), "the delivery of a lost connection is void"
    (error,) = settle(subscription, running)
    assert error is not None
    assert "too late" in str(error)
    again = receive(subscription, 2)
    attempts = {delivery.message.id: delivery.message.attempts for delivery in again}
    assert attempts == {"running": 1, "buffered": 0}, "this process knows which handler had begun"
    assert settle(subscription, *again) == [None, None]
    goes_on(driver, queue, subscription)


def test_an_ack_that_never_reached_the_broker_is_told_as_lost(bench: Bench) -> None:
    """It was written to a socket, and that is all that anybody knows; the message comes again."""
    driver = bench.driver()
    queue = bench.queue(driver)
    driver.publish(queue, [message("a")], 5)
    subscription = driver.subscribe(queue, 1)
    (delivery,) = receive(subscription)
    assert subscription.begin([delivery])
    bench.proxy.swallow()
    told: list[Exception | None] = []
    assert delivery.claim()
    subscription.settle([Settlement(delivery, done=told.append)])
    assert subscription.receive(1, 0.2) == []
    assert told == []
    bench.proxy.restore()
    again = receive(subscription, patience=CURED)
    assert again[0].message.attempts == 1
    assert len(told) == 1
    assert "too late" in str(told[0])
    assert settle(subscription, *again) == [None]


@pytest.mark.parametrize("closed", ["connections", "channels"])
def test_nothing_is_lost_while_the_broker_closes_what_it_had_opened(
    own_rabbit: RabbitServer, start: Start, closed: str
) -> None:
    """A channel can be lost although its connection stays."""
    with Proxy.to(own_rabbit.url, 5672) as proxy:
        application = start({**AMQP, "url": proxy.url(own_rabbit.url)})
        load = application.load()
        for _ in range(2):
            application.more()
            if closed == "connections":
                own_rabbit.close_connections()
            else:
                own_rabbit.close_channels()
        application.goes_on()
        application.balance(load, f"amqp, closed {closed}")
        assert closed == "connections" or proxy.accepted == 2
        application.stop()


def test_a_handler_that_outlives_the_patience_of_the_broker_costs_repetitions(
    own_rabbit: RabbitServer, start: Start
) -> None:
    """RabbitMQ closes a channel on which a delivery was not acked in time, and its consumer goes on with another."""
    own_rabbit.set(consumer_timeout=200, channel_tick_interval=50)
    try:
        application = start({**AMQP, "url": own_rabbit.url})
        application.release.clear()
        held = application.engine.publish("app:tasks", "held")
        eventually(application.running.is_set, "its handler runs")
        application.running.clear()
        eventually(application.running.is_set, "another one has got it")
    finally:
        own_rabbit.set(consumer_timeout=1_800_000, channel_tick_interval=60_000)
    application.release.set()
    application.goes_on()
    application.engine.join("app:tasks", timeout=DEADLINE)
    assert application.handled[held] >= 2


def test_while_the_broker_is_away_publishers_hear_of_it_and_a_stop_ends(bench: Bench) -> None:
    driver = bench.driver()
    queue = bench.queue(driver)
    subscription = driver.subscribe(queue, 1)
    bench.proxy.refuse()
    since = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        driver.publish(queue, [message("a")], 1.0)
    assert time.monotonic() - since < 1.0 + SLACK
    assert caught.value.retryable
    assert "guest:guest" not in str(caught.value)
    assert subscription.receive(1, 0.1) == []
    since = time.monotonic()
    subscription.close(DEADLINE)
    driver.stop(DEADLINE)
    assert time.monotonic() - since < 2 * SLACK


def test_a_publish_outlives_a_short_absence_of_the_broker(bench: Bench) -> None:
    driver = bench.driver()
    queue = bench.queue(driver)
    bench.proxy.refuse()
    eventually(lambda: driver._broker is not None and driver._broker._publishing.why_down(), "the connection is gone")
    threading.Timer(0.5, bench.proxy.restore).start()
    driver.publish(queue, [message("a")], 10.0)


def test_a_deleted_queue_is_made_anew_under_its_consumer(bench: Bench) -> None:
    driver = bench.driver()
    queue = bench.queue(driver)
    subscription = driver.subscribe(queue, 5)
    bench.broker(lambda channel: channel.queue_delete(queue.name))
    goes_on(driver, queue, subscription)


def test_a_publisher_makes_a_deleted_queue_anew(bench: Bench) -> None:
    driver = bench.driver()
    queue = bench.queue(driver)
    bench.broker(lambda channel: channel.queue_delete(queue.name))
    driver.publish(queue, [message("a"), message("b")], 5)
    driver.publish(queue, [message("later", delay=0.1)], 5)
    bench.broker(lambda channel: channel.queue_delete(f"{queue.name}.delay.200"))
    driver.publish(queue, [message("later still", delay=0.2)], 5)
    subscription = driver.subscribe(queue, 10)
    assert settle(subscription, *receive(subscription, 4)) == [None] * 4


def test_a_retry_survives_the_loss_of_the_publishing_connection(bench: Bench) -> None:
    """The copy is published again until it is stored; the original stays until then."""
    driver = bench.driver()
    queue = bench.queue(driver, max_length=5)
    driver.publish(queue, [message("a")], 5)
    subscription = driver.subscribe(queue, 1)
    (delivery,) = receive(subscription)
    bench.proxy.refuse()
    told: list[Exception | None] = []
    assert delivery.claim()
    subscription.settle([Settlement(delivery, "requeue", delivery.message, 0.1, told.append)])
    bench.proxy.restore()
    again = receive(subscription, patience=CURED)
    assert again[0].message.id == "a"
    assert settle(subscription, *again) == [None]


def test_a_memory_alarm_is_told_to_publishers_and_consumers_go_on(own: Bench, own_rabbit: RabbitServer) -> None:
    driver = own.driver()
    queue = own.queue(driver)
    driver.publish(queue, [message("before")], 5)
    subscription = driver.subscribe(queue, 5)
    try:
        own_rabbit.ctl("set_vm_memory_high_watermark", "0.0000001")
        with pytest.raises(WippyQueueError):  # the broker says so at the first publish
            driver.publish(queue, [message("first")], 1.0)
        refused: list[str] = []

        def is_told() -> bool:
            since = time.monotonic()
            with pytest.raises(WippyQueueError) as caught:
                driver.publish(queue, [message("second")], 0.5)
            assert time.monotonic() - since < 0.5 + SLACK
            refused.append(str(caught.value))
            return isinstance(caught.value, Unavailable) and "out of memory or disk" in refused[-1]

        eventually(is_told, "the broker has said so")
        assert "not sent" in refused[-1]
        assert settle(subscription, *receive(subscription)) == [None], "acks are not held up"
    finally:
        own_rabbit.ctl("set_vm_memory_high_watermark", "0.4")  # RabbitMQ's default
    goes_on(driver, queue, subscription)


def test_a_full_queue_is_told_apart_from_a_slow_broker(bench: Bench) -> None:
    driver = bench.driver()
    queue = bench.queue(driver, max_length=1)
    driver.publish(queue, [message("a")], 5)
    bench.proxy.latency = 0.02
    with pytest.raises(QueueFull):
        driver.publish(queue, [message("b")], 2.0)


def test_a_publish_into_a_black_hole_ends_in_time(bench: Bench) -> None:
    driver = bench.driver()
    queue = bench.queue(driver)
    bench.proxy.swallow()
    since = time.monotonic()
    with pytest.raises(Timeout, match="unknown") as caught:
        driver.publish(queue, [message("lost?")], 0.5)
    assert 0.5 <= time.monotonic() - since < 0.5 + SLACK
    assert caught.value.details["accepted"] == []


def test_a_black_hole_is_noticed_by_the_heartbeats(swallowed: Swallowed) -> None:
    """No reset, no end of the stream: without heartbeats a consumer would wait for ever."""
    bench, driver, queue, subscription = swallowed
    eventually(lambda: driver._broker is not None and driver._broker._consuming.why_down(), "the dead peer is noticed")
    bench.proxy.restore()
    goes_on(driver, queue, subscription)
