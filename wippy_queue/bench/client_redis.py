"""redis-py without an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import redis

from wippy_queue.bench.client import WAIT, Client, Fetched
from wippy_queue.drivers.redis.options import RedisConfig

_EXPIRY: Final = 3600  # seconds; the server removes what a killed run has left


class RedisStreams(Client):
    """A stream with one group: the nearest that Redis has by itself."""

    def __init__(self, address: str | None, window: int) -> None:
        super().__init__(address, window)
        self._redis: Any = redis.Redis.from_url(address or RedisConfig().url, protocol=2)  # whose answers are flat
        for name in (self.tasks, self.done):
            self._redis.xgroup_create(name, "group", id="0", mkstream=True)
            self._redis.expire(name, _EXPIRY)

    def send(self, name: str, body: bytes) -> None:
        self._redis.xadd(name, {"body": body})

    def send_many(self, name: str, bodies: Sequence[bytes]) -> None:
        with self._redis.pipeline(transaction=False) as pipe:
            for body in bodies:
                pipe.xadd(name, {"body": body})
            pipe.execute()

    def fetch(self, limit: int) -> Fetched:
        answer = self._redis.xreadgroup("group", "us", {self.tasks: ">"}, count=limit, block=int(WAIT * 1000))
        return [(entry, fields[b"body"]) for _, entries in answer or () for entry, fields in entries]

    def ack(self, receipts: Sequence[Any]) -> None:
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.xack(self.tasks, "group", *receipts)
            pipe.xdel(self.tasks, *receipts)
            pipe.execute()

    def close(self) -> None:
        super().close()
        self._redis.delete(self.tasks, self.done)
        self._redis.close()
