"""The client libraries without an engine, as somebody who knows them well would use them for the same work.

Each stores what it publishes before it returns, hands at most a window of messages to threads that do nothing, and
settles what they have finished in whatever batches have come together meanwhile. No attempts, no delays, no Lua,
nothing that mends a lost connection.
"""

from __future__ import annotations

import abc
import queue
import sqlite3
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import boto3
import msgspec
import pika
import redis
from botocore.config import Config

_BATCH: Final = 100  # messages that are fetched at once, where a library has no number of its own
_SQS_BATCH: Final = 10
_WAIT: Final = 0.1  # seconds of one fetch from an empty queue

Fetched = list[tuple[Any, bytes]]  # what a message is settled with, and its body
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Bare(abc.ABC):
    """A library with a feeder, workers and one thread that settles.

    Args:
        address: of the backend; a folder for sqlite.
        concurrency: how many threads handle; 0: a plain loop does it all.
        prefetch: how many messages may wait in the process.
        started: called with the ``mark`` of a body that has one.
    """

    def __init__(self, address: str, concurrency: int, prefetch: int, started: Callable[[int], None]) -> None:
        self.name = f"bare-{uuid.uuid4().hex}"
        self.address = address
        self.window = prefetch + concurrency
        self._concurrency = concurrency
        self._started = started
        self._todo: queue.SimpleQueue[tuple[Any, bytes] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()  # None ends both
        self._room = threading.Condition()
        self._out = 0  # messages that are fetched and not settled
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def publish(self, body: dict[str, Any]) -> None:
        """Store one message; any thread."""
        self.send(_encode(body))

    def publish_many(self, bodies: Sequence[dict[str, Any]]) -> None:
        self.send_many([_encode(body) for body in bodies])

    @abc.abstractmethod
    def send(self, body: bytes) -> None: ...

    @abc.abstractmethod
    def send_many(self, bodies: list[bytes]) -> None: ...

    @abc.abstractmethod
    def fetch(self, limit: int) -> Fetched:
        """Return up to ``limit`` messages, which may take `_WAIT`; the feeder's thread."""

    @abc.abstractmethod
    def ack(self, receipts: list[Any]) -> None:
        """Settle; returns when it is done. The settling thread, or the feeder's where there are no workers."""

    def start(self) -> None:
        targets = [self._feed, self._settle] if self._concurrency else [self._loop]
        targets += [self._work] * self._concurrency
        self._threads = [threading.Thread(target=target, daemon=True) for target in targets]
        for thread in self._threads:
            thread.start()

    def drain(self) -> None:
        """Wait until what was handled is settled."""
        with self._room:
            self._room.wait_for(lambda: self._out == 0, 30)

    def close(self) -> None:
        """End, and remove the queue."""
        self._stopping.set()
        for _ in range(self._concurrency):
            self._todo.put(None)
        self._done.put(None)
        for thread in self._threads:
            thread.join(10)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            if fetched := self.fetch(_BATCH):
                for _, body in fetched:
                    self._handle(body)
                self.ack([receipt for receipt, _ in fetched])

    def _feed(self) -> None:
        while not self._stopping.is_set():
            with self._room:
                if not self._room.wait_for(lambda: self._out < self.window, _WAIT):
                    continue
                room = self.window - self._out
            fetched = self.fetch(min(room, _BATCH))
            with self._room:
                self._out += len(fetched)
            for one in fetched:
                self._todo.put(one)

    def _work(self) -> None:
        while (one := self._todo.get()) is not None:
            self._handle(one[1])
            self._done.put(one[0])

    def _handle(self, body: bytes) -> None:
        mark = _decode(body).get("mark")
        if mark is not None:
            self._started(mark)

    def _settle(self) -> None:
        while (first := self._done.get()) is not None:
            receipts = [first]
            try:
                while (more := self._done.get_nowait()) is not None:
                    receipts.append(more)
            except queue.Empty:
                pass
            self.ack(receipts)
            with self._room:
                self._out -= len(receipts)
                self._room.notify_all()


class Pika(Bare):
    """A blocking connection for each thread that publishes, one that consumes; a batch is a transaction."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._own = threading.local()
        self._open: list[Any] = []  # connections; closed at the end, by whoever closes
        self._consuming, channel = self._connect()
        channel.queue_declare(self.name, durable=True)
        channel.basic_qos(prefetch_count=max(self.window, _BATCH))
        self.window = sys.maxsize  # the broker keeps it; a feeder that waited would not send the acks
        self._channel = channel
        self._consumes = False
        self._inbox: deque[tuple[int, bytes]] = deque()
        self._order: deque[int] = deque()  # tags that are not settled, in the order of their delivery
        self._early: set[int] = set()  # tags in it that are settled
        self._batches: Any = None

    def _connect(self) -> tuple[Any, Any]:
        connection = pika.BlockingConnection(pika.URLParameters(self.address))
        self._open.append(connection)
        return connection, connection.channel()

    def _publish(self, channel: Any, body: bytes) -> None:
        properties = pika.BasicProperties(delivery_mode=2)
        channel.basic_publish("", self.name, body, properties, mandatory=True)

    def send(self, body: bytes) -> None:
        channel = getattr(self._own, "channel", None)
        if channel is None:
            channel = self._own.channel = self._connect()[1]
            channel.confirm_delivery()
        self._publish(channel, body)

    def send_many(self, bodies: list[bytes]) -> None:
        if self._batches is None:
            self._batches = self._connect()[1]
            self._batches.tx_select()
        for body in bodies:
            self._publish(self._batches, body)
        self._batches.tx_commit()

    def fetch(self, limit: int) -> Fetched:
        if not self._consumes:
            self._consumes = True
            self._channel.basic_consume(self.name, self._message)
        if not self._inbox:
            self._consuming.process_data_events(time_limit=_WAIT)
        return [self._inbox.popleft() for _ in range(min(limit, len(self._inbox)))]

    def _message(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        tag = int(method.delivery_tag)
        self._inbox.append((tag, body))
        self._order.append(tag)

    def ack(self, receipts: list[Any]) -> None:
        if not self._concurrency:
            self._ack(receipts)
            return
        done = threading.Event()
        self._consuming.add_callback_threadsafe(lambda: self._ack(receipts))
        self._consuming.add_callback_threadsafe(done.set)
        done.wait(5)

    def _ack(self, tags: list[int]) -> None:
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
        self._channel.queue_delete(self.name)
        for connection in self._open:
            connection.close()


class RedisStreams(Bare):
    """A stream with one group: the nearest that Redis has by itself."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._redis: Any = redis.Redis.from_url(self.address, protocol=2)  # whose answers are flat
        self._redis.xgroup_create(self.name, "group", id="0", mkstream=True)

    def send(self, body: bytes) -> None:
        self._redis.xadd(self.name, {"body": body})

    def send_many(self, bodies: list[bytes]) -> None:
        with self._redis.pipeline(transaction=False) as pipe:
            for body in bodies:
                pipe.xadd(self.name, {"body": body})
            pipe.execute()

    def fetch(self, limit: int) -> Fetched:
        answer = self._redis.xreadgroup("group", "us", {self.name: ">"}, count=limit, block=int(_WAIT * 1000))
        return [(entry, fields[b"body"]) for _, entries in answer or () for entry, fields in entries]

    def ack(self, receipts: list[Any]) -> None:
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.xack(self.name, "group", *receipts)
            pipe.xdel(self.name, *receipts)
            pipe.execute()

    def close(self) -> None:
        super().close()
        self._redis.delete(self.name)
        self._redis.close()


class Boto3(Bare):
    """One client for all threads; calls of ten."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        settings = Config(max_pool_connections=32, retries={"total_max_attempts": 1}, tcp_keepalive=True)
        self._sqs = boto3.Session().client("sqs", endpoint_url=self.address, config=settings)
        self._url = self._sqs.create_queue(QueueName=self.name)["QueueUrl"]

    def send(self, body: bytes) -> None:
        self._sqs.send_message(QueueUrl=self._url, MessageBody=body.decode())

    def send_many(self, bodies: list[bytes]) -> None:
        for start in range(0, len(bodies), _SQS_BATCH):
            ten = enumerate(bodies[start : start + _SQS_BATCH])
            entries = [{"Id": str(number), "MessageBody": body.decode()} for number, body in ten]
            self._whole(self._sqs.send_message_batch(QueueUrl=self._url, Entries=entries))

    def fetch(self, limit: int) -> Fetched:
        answer = self._sqs.receive_message(
            QueueUrl=self._url, MaxNumberOfMessages=min(limit, _SQS_BATCH), WaitTimeSeconds=1
        )
        return [(message["ReceiptHandle"], message["Body"].encode()) for message in answer.get("Messages", ())]

    def ack(self, receipts: list[Any]) -> None:
        for start in range(0, len(receipts), _SQS_BATCH):
            ten = enumerate(receipts[start : start + _SQS_BATCH])
            entries = [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in ten]
            self._whole(self._sqs.delete_message_batch(QueueUrl=self._url, Entries=entries))

    def _whole(self, answer: Any) -> None:
        if answer.get("Failed"):
            raise RuntimeError(f"moto refused a part of a batch: {answer['Failed'][0]}")

    def close(self) -> None:
        super().close()
        self._sqs.delete_queue(QueueUrl=self._url)
        self._sqs.close()


class Sqlite(Bare):
    """One table; one connection under a lock, for a file has one writer at a time anyway; a transaction per call."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._lock = threading.Lock()
        self._stored = threading.Event()
        file = Path(self.address) / f"{self.name}.db"
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("CREATE TABLE message (id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB, claimed INTEGER)")
        self._db.execute("CREATE INDEX waiting ON message (id) WHERE claimed = 0")

    def send(self, body: bytes) -> None:
        with self._lock:
            self._db.execute("INSERT INTO message (body, claimed) VALUES (?, 0)", (body,))
        self._stored.set()

    def send_many(self, bodies: list[bytes]) -> None:
        self._many("INSERT INTO message (body, claimed) VALUES (?, 0)", [(body,) for body in bodies])
        self._stored.set()

    def fetch(self, limit: int) -> Fetched:
        self._stored.clear()
        claim = (
            "UPDATE message SET claimed = 1 WHERE id IN (SELECT id FROM message WHERE claimed = 0 ORDER BY id LIMIT ?)"
            " RETURNING id, body"
        )
        with self._lock:
            rows: Fetched = self._db.execute(claim, (limit,)).fetchall()
        if not rows:
            self._stored.wait(_WAIT)
        return rows

    def ack(self, receipts: list[Any]) -> None:
        self._many("DELETE FROM message WHERE id = ?", [(receipt,) for receipt in receipts])

    def _many(self, statement: str, rows: list[tuple[Any]]) -> None:
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(statement, rows)

    def close(self) -> None:
        super().close()
        self._db.close()
