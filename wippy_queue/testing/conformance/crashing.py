"""Leases, and what comes back when a process dies; for drivers whose subclass says how to do it."""

from __future__ import annotations

import msgspec

from wippy_queue.delivery import Settlement
from wippy_queue.driver import Driver
from wippy_queue.queues import Queue
from wippy_queue.testing.conformance.harness import Harness, Results, ids, numbered


class Crashing(Harness):
    def attempts_after_crash(self, driver: Driver, queue: Queue, count: int) -> dict[str, int]:
        """Crash, and return the attempts of the ``count`` messages that another process finds, by id."""
        self.crash(driver)
        other = self.started()
        other.declare(queue)
        return {delivery.message.id: delivery.message.attempts for delivery in self.drained(other, queue, count)}

    def test_the_messages_of_a_crashed_process_come_back(self, driver: Driver) -> None:
        """Those whose handler had begun count an attempt, so that a message that kills its process ends somewhere."""
        self.need("durable")
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(5))
        subscription = driver.subscribe(queue, 4)
        held = self.receive(subscription, 4)
        begun = ids(held[:2])
        for delivery in held[:2]:
            assert subscription.begin([delivery])
        attempts = self.attempts_after_crash(driver, queue, 5)
        assert sorted(attempts) == numbered(5)
        assert all(attempts[message_id] >= 1 for message_id in begun)
        if self.kind.capabilities.exact_attempts:
            assert attempts == {message_id: int(message_id in begun) for message_id in numbered(5)}

    def test_a_handler_that_has_not_started_after_all_counts_no_attempt(self, driver: Driver) -> None:
        self.need("durable")
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(4))
        subscription = driver.subscribe(queue, 4)
        held = self.receive(subscription, 4)
        assert subscription.begin(held) == held
        subscription.retract(held[1:])
        assert subscription.begin(held[3:]) == held[3:]
        attempts = self.attempts_after_crash(driver, queue, 4)
        assert sorted(attempts) == numbered(4)
        if self.kind.capabilities.exact_attempts:
            begun = ids([held[0], held[3]])
            assert attempts == {message_id: int(message_id in begun) for message_id in numbered(4)}

    def test_a_crash_counts_on_top_of_earlier_attempts(self, driver: Driver) -> None:
        self.need("durable")
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        subscription = driver.subscribe(queue, 1)
        self.settle(
            subscription,
            self.receive(subscription),
            "requeue",
            change=lambda message: msgspec.structs.replace(message, attempts=2),
        )
        assert subscription.begin([self.receive_one(subscription)])
        attempts = self.attempts_after_crash(driver, queue, 1)["a"]
        if self.kind.capabilities.exact_attempts:
            assert attempts == 3
        else:
            assert attempts >= 3

    def test_what_was_settled_before_a_crash_does_not_come_again(self, driver: Driver) -> None:
        self.need("durable")
        queue = self.declared(driver)
        self.publish(driver, queue, "a", "b", "c")
        subscription = driver.subscribe(queue, 3)
        held = self.receive(subscription, 3)
        for delivery in held:
            assert subscription.begin([delivery])
        self.settle(subscription, held[:1])
        self.settle(subscription, held[1:2], "release")
        received = self.attempts_after_crash(driver, queue, 2)
        assert sorted(received) == sorted(ids(held[1:]))
        if self.kind.capabilities.exact_attempts:
            assert received == {held[1].message.id: 0, held[2].message.id: 1}

    def test_a_consumer_elsewhere_that_waits_gets_the_messages_of_a_crashed_one(self, driver: Driver) -> None:
        self.need("durable", "shared")
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        self.receive(driver.subscribe(queue, 1))
        other = self.started()
        other.declare(queue)
        waiting = other.subscribe(queue, 1)
        call = self.background(lambda: waiting.receive(1, 10 * self.patience))
        assert call.waits(self.moment)
        self.crash(driver)
        assert ids(call.result()) == ["a"]

    def test_a_message_is_kept_for_longer_than_its_lease(self, driver: Driver) -> None:
        """Both in a handler that runs and in the buffer before it: leases are extended while the process lives."""
        self.need("leases")
        queue = self.declared(driver)
        self.publish(driver, queue, "running", "buffered")
        subscription = driver.subscribe(queue, 2)
        held = {delivery.message.id: delivery for delivery in self.receive(subscription, 2)}
        assert subscription.begin([held["running"]])
        other = self.started()
        other.declare(queue)
        self.receives_nothing(other.subscribe(queue, 2), 1.75 * self.lease)  # one extension is not enough
        assert subscription.begin([held["buffered"]])
        self.settle(subscription, list(held.values()))
        self.drained(driver, queue, 0)

    def test_a_delivery_whose_lease_is_lost_may_neither_begin_nor_settle(self, driver: Driver) -> None:
        self.need("leases")
        queue = self.declared(driver)
        self.publish(driver, queue, "running", "buffered")
        subscription = driver.subscribe(queue, 2)
        held = {delivery.message.id: delivery for delivery in self.receive(subscription, 2)}
        assert subscription.begin([held["running"]])
        self.lose_lease(driver, subscription)
        assert not subscription.begin([held["buffered"]])
        results = Results(self.patience)
        assert held["running"].claim()
        subscription.settle([Settlement(held["running"], done=results.add)])
        assert isinstance(results.wait(1)[0], Exception)
        subscription.close(self.patience)
        received = {delivery.message.id: delivery.message.attempts for delivery in self.drained(driver, queue, 2)}
        assert sorted(received) == ["buffered", "running"]
        if self.kind.capabilities.exact_attempts:
            assert received == {"buffered": 0, "running": 1}

    def test_a_subscription_goes_on_after_it_has_lost_its_lease(self, driver: Driver) -> None:
        """Alive but deaf is the worst that a consumer can be."""
        self.need("leases")
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        subscription = driver.subscribe(queue, 1)
        self.receive(subscription)
        self.lose_lease(driver, subscription)
        again = self.receive(subscription)
        assert ids(again) == ["a"]
        assert subscription.begin([again[0]])
        self.settle(subscription, again)

    def test_a_stop_without_time_loses_nothing(self, driver: Driver) -> None:
        """What the backend was not told comes back by itself, as after a crash; some may come twice."""
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(10))
        for _ in range(2):
            self.receive(driver.subscribe(queue, 5), 5)
        driver.stop(0.0)
        driver = self.restart(driver)
        driver.declare(queue)
        subscription = driver.subscribe(queue, 20)
        missing = set(numbered(10))
        while missing:
            deliveries = subscription.receive(20, self.patience)
            assert deliveries, f"{sorted(missing)} are lost"
            missing.difference_update(ids(deliveries))

    def test_processes_that_share_a_queue_see_each_others_messages(self, driver: Driver) -> None:
        """A consumer that waits in one hears of a publish in the other."""
        self.need("shared")
        queue = self.declared(driver)
        other = self.started()
        other.declare(queue)
        subscription = other.subscribe(queue, 1)
        call = self.background(lambda: subscription.receive(1, 10 * self.patience))
        assert call.waits(self.moment)
        self.publish(driver, queue, "a")
        received = call.result()
        assert ids(received) == ["a"]
        self.settle(subscription, received)
        assert driver.wait_idle(queue, self.patience) is True

    def test_who_waits_for_idle_waits_for_what_another_process_holds(self, driver: Driver) -> None:
        self.need("shared", "exact_counts")
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        other = self.started()
        other.declare(queue)
        subscription = other.subscribe(queue, 1)
        received = self.receive(subscription)
        idle = self.background(lambda: driver.wait_idle(queue, 10 * self.patience))
        assert idle.waits(self.moment)
        self.settle(subscription, received)
        assert idle.result() is True
