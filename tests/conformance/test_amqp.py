"""The AMQP driver keeps the contract, on a real RabbitMQ."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import pika
import pytest

from wippy_queue.driver import Driver
from wippy_queue.drivers.amqp import KIND
from wippy_queue.drivers.amqp.driver import AmqpDriver
from wippy_queue.drivers.amqp.options import AmqpConfig, AmqpQueueOptions
from wippy_queue.errors import Invalid
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import DropReason, Queue
from wippy_queue.testing.conformance import DriverConformance
from wippy_queue.testing.conformance.crashing import Crashing
from wippy_queue.testing.conformance.harness import Harness
from wippy_queue.testing.conformance.settling import Settling

OnDrop = Callable[[Sequence[Message], DropReason], None]


class OnRabbit(Harness):
    """What every class here has in common."""

    kind = KIND
    delay = 0.2

    @pytest.fixture(autouse=True)
    def _clean_up(self, amqp_url: str) -> Iterator[None]:
        self.url = amqp_url
        self.queues: list[Queue] = []
        yield
        delete_queues(amqp_url, [queue.name for queue in self.queues])

    def make_driver(self) -> Driver:
        return AmqpDriver(EntryId("test:amqp"), AmqpConfig(url=self.url))

    def make(self, name: str, on_drop: OnDrop | None, **options: Any) -> Queue:
        queue = Harness.queue(self, name, on_drop=on_drop, **options)
        self.queues.append(queue)
        return queue

    def crash(self, driver: Driver) -> None:
        """What a SIGKILL leaves behind: sockets that the operating system closes."""
        assert isinstance(driver, AmqpDriver)
        broker, driver._broker = driver._broker, None
        assert broker is not None
        broker._stopping.set()
        broker._dropper.stop(time.monotonic() + self.patience)
        broker._outbox.close()
        for link in (broker._publishing, broker._consuming):
            link.begin_stop()
            link.finish_stop(time.monotonic() + 1.0)


class TestAmqp(OnRabbit, DriverConformance):
    def queue(self, name: str = "tasks", *, on_drop: OnDrop | None = None, **options: Any) -> Queue:
        """Every queue has priorities, where RabbitMQ allows it: here that is an option."""
        if options.get("overflow") != "drop_oldest":
            options.setdefault("max_priority", 9)
        return self.make(name, on_drop, **options)

    def test_drop_oldest_drops_the_lowest_priority_first(self, driver: Driver) -> None:
        """RabbitMQ would drop the highest first: the combination is refused when an application is loaded."""
        with pytest.raises(ValueError, match="highest priority first"):
            AmqpQueueOptions(max_length=2, overflow="drop_oldest", max_priority=9)
        queue = self.declared(driver, max_length=2, overflow="drop_oldest")
        with pytest.raises(Invalid, match="max_priority"):
            self.publish(driver, queue, "high", priority=9)


class TestQuorum(OnRabbit, Settling, Crashing):
    """Quorum queues differ in how deliveries come back: beside the rest of the queue, not certainly before it."""

    kind = attrs.evolve(KIND, capabilities=attrs.evolve(KIND.capabilities, priority=False, ordered=False))

    def queue(self, name: str = "tasks", *, on_drop: OnDrop | None = None, **options: Any) -> Queue:
        return self.make(name, on_drop, queue_type="quorum", **options)


def delete_queues(url: str, names: Sequence[str]) -> None:
    """Remove what the tests have made; delay queues vanish by themselves."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    with contextlib.closing(connection):
        channel = connection.channel()
        for name in names:
            for companion in (name, f"{name}.due", f"{name}.dropped", f"{name}.delay.3600000"):
                channel.queue_delete(companion)
