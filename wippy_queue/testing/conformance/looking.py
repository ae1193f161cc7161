"""Looking at a queue from outside: numbers, peek, purge, waiting until it is idle."""

from __future__ import annotations

import time

from wippy_queue.driver import Driver
from wippy_queue.queues import Queue
from wippy_queue.testing.conformance.harness import Harness, ids, numbered

_LONG = 3600.0  # seconds, a delay that no test waits for


class Looking(Harness):
    def test_info_counts_a_message_in_every_phase(self, driver: Driver) -> None:
        """What a driver cannot know is None; what it tells is right."""
        self.need("exact_counts")
        queue = self.declared(driver)
        self._counts(driver, queue)
        self.publish(driver, queue, "a", "b", "c")
        self._counts(driver, queue, ready=3)
        subscription = driver.subscribe(queue, 2)
        held = self.receive(subscription, 2)
        self._counts(driver, queue, ready=1, in_flight=2)
        self.settle(subscription, held[:1])
        held = [held[1], self.receive_one(subscription)]
        self._counts(driver, queue, in_flight=2)
        self.settle(subscription, held[:1], "requeue")
        subscription.cancel()
        self.settle(subscription, held[1:], "release")
        subscription.close(self.patience)
        self._counts(driver, queue, ready=2)
        self.drained(driver, queue, 2)
        self._counts(driver, queue)

    def test_info_counts_delayed_messages(self, driver: Driver) -> None:
        self.need("delay", "exact_counts")
        queue = self.declared(driver)
        self.publish(driver, queue, "a", delay=_LONG)
        self.publish(driver, queue, "b")
        self._counts(driver, queue, ready=1, delayed=1)
        subscription = driver.subscribe(queue, 1)
        self.settle(subscription, self.receive(subscription), "requeue", delay=_LONG)
        self._counts(driver, queue, delayed=2)
        driver.purge(queue)

    def test_info_counts_consumers(self, driver: Driver) -> None:
        queue = self.declared(driver)
        one, other = driver.subscribe(queue, 1), driver.subscribe(queue, 1)
        self._consumers(driver, queue, 2)
        one.close(self.patience)
        self._consumers(driver, queue, 1)
        other.close(self.patience)
        self._consumers(driver, queue, 0)

    def test_info_forgets_expired_messages(self, driver: Driver) -> None:
        self.need("ttl", "exact_counts")
        queue = self.declared(driver)
        self.publish(driver, queue, "a", expires_at=time.time() + self.delay)
        self.publish(driver, queue, "b")
        self._counts(driver, queue, ready=1)
        self.drained(driver, queue, 1)

    def test_peek_shows_what_comes_next_and_leaves_it(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(4), headers={"n": 9})
        seen = driver.peek(queue, 3)
        assert len(seen) == 3
        assert dict(seen[0].headers) == {"n": 9}
        assert seen[0].body == b'"body"'
        if self.kind.capabilities.ordered:
            assert [one.id for one in seen] == numbered(3)
        received = self.drained(driver, queue, 4)
        assert sorted(ids(received)) == numbered(4)
        if self.kind.capabilities.exact_attempts:
            assert {delivery.message.attempts for delivery in received} == {0}

    def test_peek_follows_priorities(self, driver: Driver) -> None:
        self.need("priority", "ordered")
        queue = self.declared(driver)
        self.publish(driver, queue, "low")
        self.publish(driver, queue, "high", priority=9)
        assert [one.id for one in driver.peek(queue, 2)] == ["high", "low"]

    def test_peek_into_an_empty_queue_shows_nothing(self, driver: Driver) -> None:
        assert driver.peek(self.declared(driver), 5) == []

    def test_peek_does_not_show_what_a_consumer_holds(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, "a", "b")
        subscription = driver.subscribe(queue, 1)
        held = self.receive(subscription)
        assert sorted([one.id for one in driver.peek(queue, 5)] + ids(held)) == ["a", "b"]
        self.settle(subscription, held, "release")

    def test_purge_drops_what_waits_and_tells_how_much(self, driver: Driver) -> None:
        queue, other = self.declared(driver), self.declared(driver, "other")
        self.publish(driver, queue, *numbered(3))
        self.publish(driver, other, "kept")
        assert driver.purge(queue) == 3
        assert driver.purge(queue) == 0
        self.drained(driver, queue, 0)
        assert ids(self.drained(driver, other, 1)) == ["kept"]

    def test_purge_drops_delayed_messages_too(self, driver: Driver) -> None:
        self.need("delay")
        queue = self.declared(driver)
        self.publish(driver, queue, "a", delay=_LONG)
        self.publish(driver, queue, "b", delay=self.delay)
        self.publish(driver, queue, "c")
        assert driver.purge(queue) == 3
        self.receives_nothing(driver.subscribe(queue, 1), 2 * self.delay)

    def test_purge_leaves_what_a_consumer_holds(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, "a", "b", "c")
        subscription = driver.subscribe(queue, 2)
        held = self.receive(subscription, 2)
        assert driver.purge(queue) == 1
        self.settle(subscription, held[:1])
        self.settle(subscription, held[1:], "release")
        subscription.close(self.patience)
        assert ids(self.drained(driver, queue, 1)) == ids(held[1:])

    def test_an_empty_queue_is_idle(self, driver: Driver) -> None:
        assert driver.wait_idle(self.declared(driver), 0.0) is True

    def test_a_queue_is_not_idle_while_a_message_is_ready_delayed_or_in_flight(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        assert driver.wait_idle(queue, self.moment) is False
        subscription = driver.subscribe(queue, 1)
        held = self.receive(subscription)
        assert driver.wait_idle(queue, self.moment) is False
        if self.kind.capabilities.delay:
            self.settle(subscription, held, "requeue", delay=self.delay)
            assert driver.wait_idle(queue, 0.0) is False
            held = self.receive(subscription)
        self.settle(subscription, held)
        assert driver.wait_idle(queue, self.patience) is True

    def test_who_waits_for_idle_wakes_at_the_last_ack(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, "a", "b")
        subscription = driver.subscribe(queue, 2)
        held = self.receive(subscription, 2)
        call = self.background(lambda: driver.wait_idle(queue, 10 * self.patience))
        assert call.waits(self.moment)
        self.settle(subscription, held[:1])
        assert call.waits(self.moment)
        self.settle(subscription, held[1:])
        assert call.result() is True

    def test_who_waits_for_idle_wakes_at_a_purge(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        call = self.background(lambda: driver.wait_idle(queue, 10 * self.patience))
        assert call.waits(self.moment)
        driver.purge(queue)
        assert call.result() is True

    def _counts(self, driver: Driver, queue: Queue, *, ready: int = 0, in_flight: int = 0, delayed: int = 0) -> None:
        wanted = {
            "message_count": ready + in_flight + delayed,
            "ready": ready,
            "in_flight": in_flight,
            "delayed": delayed,
        }

        def known() -> dict[str, int]:
            info = driver.info(queue)
            return {name: getattr(info, name) for name in wanted if getattr(info, name) is not None}

        self.eventually(known, {name: wanted[name] for name in known()})

    def _consumers(self, driver: Driver, queue: Queue, count: int) -> None:
        if driver.info(queue).consumer_count is not None:
            self.eventually(lambda: driver.info(queue).consumer_count == count, True)
