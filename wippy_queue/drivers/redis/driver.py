"""The redis driver itself: what the contract asks for, put together."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Final

from wippy_queue.driver import not_running
from wippy_queue.drivers.redis.life import Life
from wippy_queue.drivers.redis.options import RedisConfig
from wippy_queue.drivers.redis.subscription import RedisSubscription
from wippy_queue.drivers.redis.verify import verify
from wippy_queue.drivers.redis.waiting import LocalQueue, check_name
from wippy_queue.errors import Conflict, NotFound, Problem
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import Queue, QueueInfo

_WAIT: Final = 10.0  # seconds for an answer, where the caller names none


class RedisDriver:
    """Queues on a Redis or Valkey server, a sentinel group or a cluster.

    Thread safety: every method may be called from any thread; not from a child made by fork.
    """

    def __init__(self, driver_id: EntryId, config: RedisConfig) -> None:
        self.id = driver_id
        self._config = config
        self._lock = threading.Lock()  # guards start, stop and the declared queues
        self._declared: dict[str, LocalQueue] = {}
        self._life: Life | None = None
        self._process = os.getpid()

    def start(self) -> None:
        self._check_process()
        with self._lock:
            if self._life is not None:
                return
            self._process = os.getpid()
            life = Life(self.id, self._config, lambda: list(self._declared.values()))
            life.start()
            self._life = life

    def stop(self, timeout: float) -> None:
        self._check_process()
        with self._lock:
            life, self._life = self._life, None
        if life is not None:
            life.stop(timeout)

    def declare(self, queue: Queue) -> None:
        self._check_process()
        check_name(queue)
        with self._lock:
            known = self._declared.get(queue.name)
            if known is None:
                self._declared = {**self._declared, queue.name: LocalQueue(self._config.key_prefix, queue)}
            else:
                known.redeclare(queue)
                known.left.set()  # the limit may have risen
            life = self._life
        if life is not None:
            life.look_at_queues()

    def verify(self, queues: Sequence[Queue]) -> list[Problem]:
        return verify(self.id, self._config, queues)

    def publish(self, queue: Queue, messages: Sequence[Message], timeout: float) -> None:
        life = self._running()
        local = self._local(queue)
        if messages:
            life.publish(local, messages, timeout)

    def subscribe(self, queue: Queue, window: int, options: object = None) -> RedisSubscription:
        return self._running().subscribe(self._local(queue), window)

    def info(self, queue: Queue) -> QueueInfo:
        return self._running().info(self._local(queue), time.monotonic() + _WAIT)

    def peek(self, queue: Queue, limit: int) -> list[Message]:
        return self._running().peek(self._local(queue), limit, time.monotonic() + _WAIT)

    def purge(self, queue: Queue) -> int:
        return self._running().purge(self._local(queue), time.monotonic() + _WAIT)

    def wait_idle(self, queue: Queue, timeout: float) -> bool:
        return self._running().wait_idle(self._local(queue), timeout)

    def _local(self, queue: Queue) -> LocalQueue:
        try:
            return self._declared[queue.name]
        except KeyError:
            raise NotFound(f"queue {queue.id} was never declared on driver {self.id}") from None

    def _running(self) -> Life:
        self._check_process()
        life = self._life
        if life is None:
            raise not_running(self.id)
        return life

    def _check_process(self) -> None:
        if self._process != os.getpid() and self._life is not None:
            raise Conflict(
                f"driver {self.id} was started before this process was forked, and connections do not survive that;"
                " create and start an engine of its own in the child"
            )
