"""The redis driver keeps the contract."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest
import redis

from tests.conformance.leases import lease_for
from wippy_queue.driver import Driver, Subscription
from wippy_queue.drivers.redis import KIND
from wippy_queue.drivers.redis.driver import RedisDriver
from wippy_queue.drivers.redis.options import RedisConfig
from wippy_queue.drivers.redis.subscription import RedisSubscription
from wippy_queue.ids import EntryId
from wippy_queue.testing.conformance import DriverConformance


class TestRedis(DriverConformance):
    kind = KIND
    moment = 0.05
    delay = 0.15

    @pytest.fixture(autouse=True)
    def _keep_prefix(self, redis_url: str, request: pytest.FixtureRequest) -> Iterator[None]:
        self.url = redis_url
        self.kept_for = lease_for(self, request)
        self.prefix = f"wqtest-{uuid.uuid4().hex[:8]}:"
        yield
        with redis.Redis.from_url(redis_url) as client:
            for key in client.scan_iter(match=f"{self.prefix}*", count=1000):
                client.delete(key)

    def make_driver(self) -> Driver:
        config = RedisConfig(url=self.url, key_prefix=self.prefix, lease=self.kept_for)
        return RedisDriver(EntryId("test:redis"), config)

    def crash(self, driver: Driver) -> None:
        """What a SIGKILL leaves behind: keys as they are, closed connections; most of the lease has passed."""
        assert isinstance(driver, RedisDriver)
        life, driver._life = driver._life, None
        assert life is not None
        life._closing.set()
        life._close_connections()
        life._dropper.finish(time.monotonic())
        for thread in (life._keeper, life._flusher, life._listener, life._dropper):
            thread.stop(time.monotonic() + self.patience)
        with redis.Redis.from_url(self.url) as client:
            seconds, microseconds = client.time()
            end = seconds * 1000 + microseconds / 1000 + 300  # milliseconds
            for subscription in life._subscriptions:
                client.zadd(subscription.queue.base + b"owners", {subscription._owner.token: end}, xx=True)

    def lose_lease(self, driver: Driver, subscription: Subscription) -> None:
        """Let the lease run out on the server, as if the process had been suspended."""
        assert isinstance(driver, RedisDriver)
        assert isinstance(subscription, RedisSubscription)
        assert driver._life is not None
        owner = subscription._owner
        owners = subscription.queue.base + b"owners"
        with redis.Redis.from_url(self.url) as client:
            while client.zscore(owners, owner.token) is not None:
                owner.until = time.monotonic() + owner.lease  # no beat is due, which would extend what is to end
                client.zadd(owners, {owner.token: 1}, xx=True)
                driver._life.tend(subscription.queue)
                subscription._signal.wait(subscription._signal.count, 0.02)
        while owner.alive:
            owner.until = 0.0  # now one is
            driver._life.tend(subscription.queue)
            subscription._signal.wait(subscription._signal.count, 0.05)
