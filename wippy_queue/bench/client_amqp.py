"""pika without an engine."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import pika

from wippy_queue.bench.client import WAIT, Client, Fetched
from wippy_queue.drivers.amqp.options import AmqpConfig
from wippy_queue.errors import Timeout

_EXPIRY: Final = {"x-expires": 3_600_000}  # milliseconds; the broker removes what a killed run has left
_ACK_WAIT: Final = 5.0  # seconds


class Pika(Client):
    """A blocking connection for each thread that publishes, one that consumes; a batch is a transaction."""

    def __init__(self, address: str | None, window: int) -> None:
        super().__init__(address, window)
        self._parameters = pika.URLParameters(address or AmqpConfig().url)
        self._parameters.heartbeat = 0  # nobody serves a connection that idles
        self._own = threading.local()
        self._open: list[pika.BlockingConnection] = []  # closed at the end, by whoever closes
        self._consuming, self._channel = self._connect()
        for name in (self.tasks, self.done):
            self._channel.queue_declare(name, durable=True, arguments=_EXPIRY)
        self._channel.basic_qos(prefetch_count=window)
        self._window = sys.maxsize  # the broker keeps it; a feeder that waited would not send the acks
        self._fetcher: int | None = None  # the thread whose connection it is once tasks are fetched
        self._inbox: deque[tuple[int, bytes]] = deque()
        self._order: deque[int] = deque()  # tags that are not settled, in the order of their delivery
        self._early: set[int] = set()  # tags in it that are settled
        self._batches: Any = None

    def _connect(self) -> tuple[pika.BlockingConnection, Any]:
        connection = pika.BlockingConnection(self._parameters)
        self._open.append(connection)
        return connection, connection.channel()

    @staticmethod
    def _publish(channel: Any, name: str, body: bytes) -> None:
        channel.basic_publish("", name, body, pika.BasicProperties(delivery_mode=2), mandatory=True)

    def send(self, name: str, body: bytes) -> None:
        channel = getattr(self._own, "channel", None)
        if channel is None:
            channel = self._own.channel = self._connect()[1]
            channel.confirm_delivery()
        self._publish(channel, name, body)

    def send_many(self, name: str, bodies: Sequence[bytes]) -> None:
        if self._batches is None:
            self._batches = self._connect()[1]
            self._batches.tx_select()
        for body in bodies:
            self._publish(self._batches, name, body)
        self._batches.tx_commit()

    def fetch(self, limit: int) -> Fetched:
        if self._fetcher is None:
            self._fetcher = threading.get_ident()
            self._channel.basic_consume(self.tasks, self._message)
        if not self._inbox:
            self._consuming.process_data_events(time_limit=WAIT)
        return [self._inbox.popleft() for _ in range(min(limit, len(self._inbox)))]

    def _message(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        tag = int(method.delivery_tag)
        self._inbox.append((tag, body))
        self._order.append(tag)

    def ack(self, receipts: Sequence[Any]) -> None:
        if threading.get_ident() == self._fetcher:
            self._ack(receipts)
            return
        done = threading.Event()
        self._consuming.add_callback_threadsafe(lambda: self._ack(receipts))
        self._consuming.add_callback_threadsafe(done.set)
        if not done.wait(_ACK_WAIT):
            raise Timeout(f"{len(receipts)} messages are not settled after {_ACK_WAIT:g} s")

    def _ack(self, tags: Sequence[int]) -> None:
        """Ack the completed prefix with one frame, and what has overtaken it one by one."""
        fresh = set(tags)
        last = 0
        while self._order and (self._order[0] in fresh or self._order[0] in self._early):
            tag = self._order.popleft()
            if tag in fresh:
                last = tag
            fresh.discard(tag)
            self._early.discard(tag)
        if last:
            self._channel.basic_ack(last, multiple=True)
        for tag in fresh:
            self._channel.basic_ack(tag)
        self._early |= fresh

    def close(self) -> None:
        super().close()
        for name in (self.tasks, self.done):
            self._channel.queue_delete(name)
        for connection in self._open:
            connection.close()
