"""The AMQP driver itself: what the contract asks for, put together."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from wippy_queue.driver import not_running
from wippy_queue.drivers.amqp.broker import Broker
from wippy_queue.drivers.amqp.options import AmqpConfig, AmqpConsumerOptions
from wippy_queue.drivers.amqp.subscription import AmqpSubscription
from wippy_queue.drivers.amqp.topology import Declared
from wippy_queue.drivers.amqp.verify import verify
from wippy_queue.errors import NotFound, Problem
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import Queue, QueueInfo


class AmqpDriver:
    """Queues on RabbitMQ.

    Thread safety: every method may be called from any thread; not from a child made by fork.
    """

    def __init__(self, driver_id: EntryId, config: AmqpConfig) -> None:
        self.id = driver_id
        self._config = config
        self._starting = threading.Lock()  # held during a start
        self._lock = threading.Lock()  # guards the declared queues
        self._declared: dict[str, Declared] = {}
        self._next: Broker | None = None  # which is starting
        self._broker: Broker | None = None

    def start(self) -> None:
        with self._starting:
            if self._broker is None:
                self._next = broker = Broker(self.id, self._config, self._declared)
                try:
                    broker.start()
                finally:
                    self._next = None
                self._broker = broker

    def stop(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        starting = self._next
        if starting is not None:
            starting.stop(timeout)  # so that the start gives up
        with self._starting:
            broker, self._broker = self._broker, None
        if broker is not None:
            broker.stop(deadline - time.monotonic())

    def declare(self, queue: Queue) -> None:
        declared = Declared.of(queue, self._config)
        broker = self._broker
        if broker is not None:
            declared = broker.declare(declared)
        with self._lock:
            self._declared[queue.name] = declared
        if broker is not None and declared.drops:
            broker.catch_dropped(declared)

    def verify(self, queues: Sequence[Queue]) -> list[Problem]:
        return verify(self.id, self._config, queues)

    def publish(self, queue: Queue, messages: Sequence[Message], timeout: float) -> None:
        broker = self._running()
        declared = self._local(queue)
        if messages:
            broker.publish(declared, messages, timeout)

    def subscribe(self, queue: Queue, window: int, options: object = None) -> AmqpSubscription:
        """Begin to consume.

        Args:
            queue: which was declared.
            window: how many deliveries may be unsettled; the driver's ``prefetch_count`` is a ceiling for it.
            options: those of the consumer.
        """
        given = options if isinstance(options, AmqpConsumerOptions) else AmqpConsumerOptions()
        return self._running().subscribe(self._local(queue), window, given)

    def info(self, queue: Queue) -> QueueInfo:
        broker = self._running()
        return broker.info(self._local(queue))

    def peek(self, queue: Queue, limit: int) -> list[Message]:
        """Return what waits; RabbitMQ marks those messages as redelivered, for it has no other way to show them."""
        broker = self._running()
        return broker.peek(self._local(queue), limit)

    def purge(self, queue: Queue) -> int:
        broker = self._running()
        return broker.purge(self._local(queue))

    def wait_idle(self, queue: Queue, timeout: float) -> bool:
        broker = self._running()
        return broker.wait_idle(self._local(queue), timeout)

    def _running(self) -> Broker:
        broker = self._broker
        if broker is None:
            raise not_running(self.id)
        return broker

    def _local(self, queue: Queue) -> Declared:
        declared = self._declared.get(queue.name)
        if declared is None:
            raise NotFound(f"queue {queue.id} was never declared on driver {self.id}")
        return declared
