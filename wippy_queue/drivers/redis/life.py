"""A driver between start and stop: its connections, its threads, and what they do for callers."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from wippy_queue.drivers.redis import check, scripts, wire
from wippy_queue.drivers.redis.connecting import servers
from wippy_queue.drivers.redis.dropper import Dropper
from wippy_queue.drivers.redis.flusher import Flusher
from wippy_queue.drivers.redis.keeper import Keeper
from wippy_queue.drivers.redis.listener import Listener
from wippy_queue.drivers.redis.marks import MarkLine
from wippy_queue.drivers.redis.options import RedisConfig
from wippy_queue.drivers.redis.subscription import RedisSubscription
from wippy_queue.drivers.redis.transport import Request, Transport
from wippy_queue.drivers.redis.waiting import LocalQueue
from wippy_queue.drivers.signal import JOIN_REST
from wippy_queue.errors import QueueFull, Unavailable, WippyQueueError
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import QueueInfo

_log = logging.getLogger(__name__)

_CHUNK: Final = 500  # messages that one script takes, so that it holds nobody else up for long
_CHUNK_BYTES: Final = 1024 * 1024
_POLL: Final = 0.1  # seconds between two looks at what other processes may have changed
_LATE: Final = 60.0  # seconds for which a publish that was sent before its deadline may still be under way
_KEPT: Final = 24 * 3600.0  # seconds for which the server knows a publish at most
_ENDING: Final = 1.0  # seconds of a stop for threads whose connections were closed


class _Publisher:
    """Who publishes one after the other, and numbers it: so the server knows what it has been sent before."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(12)
        self.count = 0


class Life:
    """Thread safety: every method may be called from any thread, ``start`` and ``stop`` once."""

    def __init__(self, driver_id: EntryId, config: RedisConfig, queues: Callable[[], list[LocalQueue]]) -> None:
        self._id = driver_id
        self._config = config
        self._queues = queues
        self._lock = threading.Lock()  # guards the subscriptions
        self._subscriptions: frozenset[RedisSubscription] = frozenset()  # replaced as a whole
        self._closing = threading.Event()
        self._servers = servers(driver_id, config)
        self._publishers: list[_Publisher] = []  # that publish nothing now
        self._publishing = Transport(self._servers, config, self._troubled)
        self._consuming = Transport(self._servers, config, self._troubled)
        self._marks = MarkLine(self._servers)
        self._inbox = f"{config.key_prefix}inbox:{secrets.token_hex(12)}".encode()
        self._flusher = Flusher(self._consuming, f"{driver_id}-flusher")
        self._dropper = Dropper(self._consuming, queues=queues, name=f"{driver_id}-dropper")
        self._keeper = Keeper(
            self._consuming,
            self._marks,
            lease=config.lease,
            queues=queues,
            subscriptions=lambda: self._subscriptions,
            on_returned=self._dropper.drop,
            name=f"{driver_id}-keeper",
        )
        self._listener = Listener(
            self._servers,
            self._inbox,
            delay=config.reconnect_delay,
            max_delay=config.reconnect_max_delay,
            on_wake=self._heard,
            on_connected=self._connected,
            name=f"{driver_id}-listener",
        )

    def start(self) -> None:
        """Check the server, and begin. Raises Unavailable, PermissionDenied or Invalid."""
        try:
            check.check(self._publishing, self._id, self._config)
        except BaseException:
            self._close_connections()
            raise
        self._keeper.open_marks(b"")
        for thread in (self._flusher, self._dropper, self._keeper, self._listener):
            thread.start()

    def stop(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._closing.set()
        for queue in self._queues():
            queue.left.set()  # who waits sees that we close
        subscriptions = self._subscriptions
        for subscription in subscriptions:
            subscription.begin_close()
        for subscription in subscriptions:
            subscription.wait_closed(deadline)
        self._dropper.finish(deadline)
        self._close_connections()
        deadline = min(deadline, time.monotonic() + _ENDING)
        for thread in (self._listener, self._keeper, self._flusher, self._dropper):
            thread.stop(deadline)

    def _close_connections(self) -> None:
        self._publishing.close()
        self._consuming.close()
        self._marks.close()
        self._servers.close()

    # what happens to us

    def _troubled(self) -> None:
        """A connection has failed; the silent ones may have, too."""
        if self._closing.is_set():
            return
        self._marks.reset()
        self._listener.reconnect()
        for subscription in self._subscriptions:
            subscription.mark_again()
        self._keeper.wake()

    def _heard(self, base: bytes) -> None:
        for queue in self._queues():
            if queue.base == base:
                if not queue.wake():
                    self._keeper.tend(queue)  # nobody here will look: pass it on
                return

    def _connected(self) -> None:
        for queue in self._queues():
            queue.wake()

    def look_at_queues(self) -> None:
        self._keeper.wake()
        self._dropper.wake()

    # helpers of the subscriptions

    def flush(self, subscription: RedisSubscription) -> None:
        self._flusher.flush(subscription)

    def tend(self, queue: LocalQueue) -> None:
        self._keeper.tend(queue)

    def drop(self, queue: LocalQueue) -> None:
        self._dropper.drop(queue)

    # publishing

    def publish(self, queue: LocalQueue, messages: Sequence[Message], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        accepted = 0
        try:
            for chunk in _chunks(messages):
                self._publish_chunk(queue, chunk, deadline)
                accepted += len(chunk)
        except WippyQueueError as error:
            error.details["accepted"] = [message.id for message in messages[:accepted]]
            raise

    def _publish_chunk(self, queue: LocalQueue, messages: Sequence[Message], deadline: float) -> None:
        try:
            publisher = self._publishers.pop()
        except IndexError:
            publisher = _Publisher()
        try:
            mortal = self._store(queue, messages, deadline, publisher)
        finally:
            self._publishers.append(publisher)
        if mortal is not None:
            self._dropper.drop(queue, time.monotonic() + max(0.0, mortal - time.time()))

    def _store(
        self, queue: LocalQueue, messages: Sequence[Message], deadline: float, publisher: _Publisher
    ) -> float | None:
        """Put the messages in, wait for room if need be; return when the first of them expires, in Unix seconds."""
        what = f"publish to {queue.queue.id}"
        while True:
            seen = queue.left.count
            options = queue.options
            drop = options.overflow == "drop_oldest"
            publisher.count += 1
            kept = wire.milliseconds(min(deadline - time.monotonic() + _LATE, _KEPT))
            arguments: list[wire.Argument] = [options.max_length, int(drop), publisher.token, publisher.count, kept]
            first: int | None = None
            for message in messages:
                expires = wire.expiry(message, options.message_ttl)
                if expires:
                    first = int(expires) if first is None else min(first, int(expires))
                meta = wire.encode_meta(message, expires)
                delay = wire.milliseconds(message.delay)
                arguments += (message.id, message.priority, delay, expires, meta, message.body)
            status, count = self._publishing.persist(Request("publish", queue.base, arguments), deadline, what)
            if status != scripts.FULL:
                if count:
                    self._dropper.drop(queue)
                return None if first is None else first / 1000
            left = deadline - time.monotonic()
            if left <= 0 or options.overflow == "reject" or len(messages) > options.max_length:
                raise _full(queue, len(messages))
            queue.left.wait(seen, min(left, _POLL))
            if self._closing.is_set():
                raise Unavailable(f"driver {self._id} was stopped while a publish to {queue.queue.id} waited for room")

    # consuming

    def subscribe(self, queue: LocalQueue, window: int) -> RedisSubscription:
        subscription = RedisSubscription(
            queue,
            self._consuming,
            self._marks,
            self,
            inbox=self._inbox,
            window=window,
            lease=self._config.lease,
            on_close=self._forget,
        )
        with self._lock:
            if self._closing.is_set():
                raise Unavailable(f"driver {self._id} is being stopped")
            self._subscriptions |= {subscription}
            queue.sleepers = (*queue.sleepers, subscription)
        self._keeper.wake()
        return subscription

    def _forget(self, subscription: RedisSubscription) -> None:
        with self._lock:
            self._subscriptions -= {subscription}
            queue = subscription.queue
            queue.sleepers = tuple(sleeper for sleeper in queue.sleepers if sleeper is not subscription)

    # looking

    def info(self, queue: LocalQueue, deadline: float) -> QueueInfo:
        request = Request("info", queue.base)
        total, ready, delayed, consumers = self._publishing.persist(request, deadline, f"info of {queue.queue.id}")
        return QueueInfo(
            message_count=total,
            ready=ready,
            in_flight=total - ready - delayed,
            delayed=delayed,
            consumer_count=consumers,
        )

    def peek(self, queue: LocalQueue, limit: int, deadline: float) -> list[Message]:
        found: list[Message] = []
        first = 0
        while len(found) < limit:
            request = Request("peek", queue.base, (first, min(_CHUNK, limit - len(found))))
            seen, *parts = self._publishing.persist(request, deadline, f"peek into {queue.queue.id}")
            if not seen:
                break
            first += seen
            found += wire.decode_many(parts)
        return found

    def purge(self, queue: LocalQueue, deadline: float) -> int:
        count = 0
        request = Request("purge", queue.base, (_CHUNK,))
        while removed := self._publishing.persist(request, deadline, f"purge of {queue.queue.id}"):
            count += removed
        queue.left.set()
        return count

    def wait_idle(self, queue: LocalQueue, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while True:
            seen = queue.left.count
            try:
                if self.info(queue, max(deadline, time.monotonic() + _POLL)).message_count == 0:
                    return True
            except Unavailable:
                if self._closing.is_set() or time.monotonic() >= deadline:
                    raise
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            queue.left.wait(seen, min(left, _POLL), JOIN_REST)
            if self._closing.is_set():
                raise Unavailable(f"driver {self._id} was stopped while {queue.queue.id} was waited for")


def _chunks(messages: Sequence[Message]) -> list[Sequence[Message]]:
    """Cut a batch into parts that one script takes; most are one part."""
    chunks: list[Sequence[Message]] = []
    first = size = 0
    for index, message in enumerate(messages):
        size += len(message.body)
        if index > first and (index - first >= _CHUNK or size > _CHUNK_BYTES):
            chunks.append(messages[first:index])
            first, size = index, len(message.body)
    return [*chunks, messages[first:]]


def _full(queue: LocalQueue, count: int) -> QueueFull:
    limit = queue.options.max_length
    if count > limit:
        text = f"{count} messages at once never fit; publish at most max_length = {limit} together"
        return QueueFull(f"queue {queue.queue.id}: {text}", retryable=False)
    return QueueFull(f"queue {queue.queue.id} is full: max_length is {limit}; consume faster, or raise max_length")
