"""A driver on a real RabbitMQ behind a proxy, and the words that its tests are written with."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pika

from tests.faults.proxy import Proxy
from tests.support import DEADLINE, message
from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.driver import Subscription
from wippy_queue.drivers.amqp.driver import AmqpDriver
from wippy_queue.drivers.amqp.options import AmqpConfig, AmqpQueueOptions
from wippy_queue.errors import Timeout, Unavailable
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import Queue

CURED = 30.0  # seconds until a driver has noticed that everything is well again


class Bench:
    """A driver behind a proxy, its queues, and an eye on the broker."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self.url = url
        self._stack = stack
        self.proxy = stack.enter_context(Proxy.to(url, 5672))
        self.names: list[str] = []
        stack.callback(self._clean_up)

    def driver(self, **config: Any) -> AmqpDriver:
        settings = {"reconnect_delay": 0.1, "reconnect_max_delay": 0.5, "connection_timeout": 5.0, **config}
        driver = AmqpDriver(EntryId("test:amqp"), AmqpConfig(url=self.proxy.url(self.url), **settings))
        driver.start()
        self._stack.callback(driver.stop, DEADLINE)
        return driver

    def queue(self, driver: AmqpDriver, name: str = "tasks", **options: Any) -> Queue:
        queue = Queue(
            id=EntryId(f"test:{name}"),
            name=f"{name}-{uuid.uuid4().hex[:12]}",
            driver=driver.id,
            options=AmqpQueueOptions(**options),
        )
        driver.declare(queue)
        self.names.append(queue.name)
        return queue

    def broker(self, work: Callable[[Any], object]) -> None:
        """Do something on a channel of a connection that is not the driver's."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            work(connection.channel())
        finally:
            connection.close()

    def _clean_up(self) -> None:
        for name in self.names:
            for companion in (name, f"{name}.due", f"{name}.dropped"):
                self.broker(partial(_delete, companion))


def _delete(name: str, channel: Any) -> None:
    channel.queue_delete(name)


def receive(subscription: Subscription, count: int = 1, patience: float = DEADLINE) -> list[Delivery]:
    deadline = time.monotonic() + patience
    received: list[Delivery] = []
    while len(received) < count and time.monotonic() < deadline:
        received += subscription.receive(count - len(received), 1.0)
    assert len(received) == count
    return received


def settle(subscription: Subscription, *deliveries: Delivery, **how: Any) -> list[Exception | None]:
    """Settle and return what the driver says of it."""
    if not deliveries:
        return []
    told: list[Exception | None] = []
    enough = threading.Event()

    def done(error: Exception | None) -> None:
        told.append(error)
        if len(told) == len(deliveries):
            enough.set()

    for delivery in deliveries:
        assert delivery.claim()
    subscription.settle([Settlement(delivery, done=done, **how) for delivery in deliveries])
    assert enough.wait(DEADLINE)
    return told


def publish_until_it_works(driver: AmqpDriver, queue: Queue, one: Message) -> None:
    """What callers do with a retryable error."""
    deadline = time.monotonic() + CURED
    while True:
        try:
            driver.publish(queue, [one], 2.0)
            return
        except (Unavailable, Timeout) as error:
            if not error.retryable or time.monotonic() > deadline:
                raise


def goes_on(driver: AmqpDriver, queue: Queue, subscription: Subscription) -> None:
    """The proof that a consumer consumes: a message that it gets, and may settle."""
    publish_until_it_works(driver, queue, message("proof"))
    deadline = time.monotonic() + CURED
    while time.monotonic() < deadline:
        for delivery in subscription.receive(100, 1.0):
            if (
                subscription.begin([delivery])
                and settle(subscription, delivery) == [None]
                and delivery.message.id == "proof"
            ):
                return
    raise AssertionError("nothing is consumed any more")
