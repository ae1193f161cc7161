"""Start, stop, and what becomes of messages when a driver stops."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest

from wippy_queue.delivery import Settlement
from wippy_queue.driver import Driver
from wippy_queue.errors import Unavailable
from wippy_queue.testing.conformance.harness import Harness, Results, ids, message, numbered


class Stopping(Harness):
    def test_start_and_stop_may_be_called_again(self, driver: Driver) -> None:
        driver.start()
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        driver.start()
        assert ids(self.drained(driver, queue, 1)) == ["a"]
        driver.stop(self.patience)
        driver.stop(self.patience)

    def test_a_driver_that_never_started_can_be_stopped(self) -> None:
        self.make_driver().stop(self.patience)

    def test_a_driver_can_be_started_again(self, driver: Driver) -> None:
        """The supervisor restarts the same object."""
        queue = self.declared(driver)
        driver.stop(self.patience)
        driver.start()
        driver.declare(queue)
        self.publish(driver, queue, "a")
        assert ids(self.drained(driver, queue, 1)) == ["a"]

    def test_messages_outlive_a_stop_and_a_start(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(5), headers={"n": 9})
        driver = self.restart(driver)
        driver.declare(queue)
        received = self.drained(driver, queue, 5)
        assert sorted(ids(received)) == numbered(5)
        assert [dict(delivery.message.headers) for delivery in received] == [{"n": 9}] * 5

    def test_delayed_messages_outlive_a_stop_and_wake_whoever_waits_after_the_start(self, driver: Driver) -> None:
        self.need("delay")
        queue = self.declared(driver)
        self.publish(driver, queue, "a", delay=2 * self.delay)
        driver = self.restart(driver)
        driver.declare(queue)
        subscription = driver.subscribe(queue, 1)
        call = self.background(lambda: subscription.receive(1, 10 * self.patience))
        received = call.result()
        assert ids(received) == ["a"]
        self.settle(subscription, received)

    def test_a_stop_with_messages_in_hand_loses_none(self, driver: Driver) -> None:
        """Some are with the consumer, some on their way to it, some in the queue; nobody had the time to settle."""
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(20))
        subscription = driver.subscribe(queue, 10)
        self.receive(subscription, 6)
        driver = self.restart(driver)
        driver.declare(queue)
        received = self.drained(driver, queue, 20)
        assert sorted(ids(received)) == numbered(20)
        if self.kind.capabilities.release_at_head and self.kind.capabilities.ordered:
            assert ids(received) == numbered(20)
        if self.kind.capabilities.exact_attempts:
            assert {delivery.message.attempts for delivery in received} == {0}

    def test_what_was_settled_before_the_stop_does_not_come_again(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(10))
        subscription = driver.subscribe(queue, 10)
        self.settle(subscription, self.receive(subscription, 4))
        subscription.close(self.patience)
        driver = self.restart(driver)
        driver.declare(queue)
        self.drained(driver, queue, 6)

    def test_a_settle_that_races_with_the_stop_is_told_the_truth(self, driver: Driver) -> None:
        """``done(None)`` and the message is gone, or an error and the message is still there."""
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(40))
        subscription = driver.subscribe(queue, 40)
        deliveries = self.receive(subscription, 40)
        results = Results(self.patience)

        def settle() -> None:
            for delivery in deliveries:
                delivery.claim()
                subscription.settle([Settlement(delivery, done=results.under(delivery.message.id))])

        call = self.background(settle)
        results.wait(1)
        driver = self.restart(driver)
        call.result()
        outcome = dict(results.wait(40))
        assert len(outcome) == len(results.items) == 40
        driver.declare(queue)
        lost = sorted(message_id for message_id, error in outcome.items() if error is not None)
        assert sorted(ids(self.drained(driver, queue, len(lost)))) == lost

    def test_a_close_and_a_stop_take_no_longer_than_they_need(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(10))
        subscription = driver.subscribe(queue, 10)
        deliveries = self.receive(subscription, 10)
        results = Results(self.patience)
        for delivery in deliveries[:5]:
            assert delivery.claim()
            subscription.settle([Settlement(delivery, done=results.add)])
        self.background(lambda: subscription.close(100 * self.patience)).result()
        assert results.items == [None] * 5
        driver.subscribe(queue, 10)
        self.background(lambda: driver.stop(100 * self.patience)).result()

    def test_a_close_without_time_has_told_the_truth_when_it_returns(self, driver: Driver) -> None:
        """``done(None)`` and the message is gone, or an error and it may come again."""
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(20))
        subscription = driver.subscribe(queue, 20)
        results = Results(self.patience)
        for delivery in self.receive(subscription, 20):
            assert delivery.claim()
            subscription.settle([Settlement(delivery, done=results.under(delivery.message.id))])
        subscription.close(0.0)
        outcome = dict(results.items)
        assert len(outcome) == len(results.items) == 20
        lost = {message_id for message_id, error in outcome.items() if error is not None}
        assert set(ids(driver.subscribe(queue, 20).receive(20, self.moment))) <= lost

    def test_a_stop_ends_a_waiting_receive(self, driver: Driver) -> None:
        queue = self.declared(driver)
        subscription = driver.subscribe(queue, 1)

        def receive() -> list[object]:
            try:
                return list(subscription.receive(1, 10 * self.patience))
            except Unavailable:
                return []  # deaf for good, and it says so

        call = self.background(receive)
        assert call.waits(self.moment)
        driver.stop(self.patience)
        assert call.result() == []

    def test_subscriptions_can_be_closed_after_the_stop(self, driver: Driver) -> None:
        subscription = driver.subscribe(self.declared(driver), 1)
        driver.stop(self.patience)
        subscription.cancel()
        subscription.close(self.patience)

    def test_what_a_publish_returned_from_is_there_after_a_stop_meanwhile(self, driver: Driver) -> None:
        """Threads publish while the driver stops: each call returns or raises Unavailable; what returned is kept."""
        queue = self.declared(driver)
        stored = Results(self.patience)
        tried = Results(self.patience)

        def publish(thread: int) -> None:
            number = 0
            while True:
                batch = [message(f"{thread}-{number + part}") for part in range(2)]
                number += 2
                for one in batch:
                    tried.add(one.id)
                try:
                    driver.publish(queue, batch, self.patience)
                except Unavailable as error:
                    for message_id in error.details.get("accepted", ()):
                        stored.add(message_id)
                    return
                for one in batch:
                    stored.add(one.id)

        calls = [self.background(partial(publish, thread)) for thread in range(4)]
        stored.wait(50)
        driver.stop(self.patience)
        for call in calls:
            call.result()
        with pytest.raises(Unavailable):
            driver.publish(queue, [message("late")], self.patience)
        driver = self.restart(driver)
        driver.declare(queue)
        subscription = driver.subscribe(queue, 500)
        received: Counter[str] = Counter()
        while missing := set(stored.items) - set(received):
            deliveries = subscription.receive(500, self.patience)
            assert deliveries, f"{len(missing)} published messages are lost"
            received.update(ids(deliveries))
            self.settle(subscription, deliveries)
        received.update(ids(subscription.receive(500, self.moment)))  # outcome unknown, and stored all the same
        assert max(received.values()) == 1
        assert set(received) <= set(tried.items)
