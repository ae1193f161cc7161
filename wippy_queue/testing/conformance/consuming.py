"""Receiving: limits, the window, several consumers, and the end of a subscription."""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial

from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.driver import Driver, Subscription
from wippy_queue.testing.conformance.harness import Harness, Results, ids, numbered


class Consuming(Harness):
    def test_receive_gives_no_more_than_asked_for(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(10))
        subscription = driver.subscribe(queue, 10)
        first = subscription.receive(3, self.patience)
        assert 1 <= len(first) <= 3
        rest = self.receive(subscription, 10 - len(first))
        assert sorted(ids(first + rest)) == numbered(10)
        self.settle(subscription, first + rest)

    def test_receive_without_messages_comes_back_empty_at_its_timeout(self, driver: Driver) -> None:
        subscription = driver.subscribe(self.declared(driver), 1)
        call = self.background(lambda: subscription.receive(1, self.moment))
        assert call.result() == []

    def test_receive_without_a_timeout_does_not_wait(self, driver: Driver) -> None:
        subscription = driver.subscribe(self.declared(driver), 1)
        assert self.background(lambda: subscription.receive(1, 0.0)).result() == []

    def test_a_waiting_receive_wakes_when_a_message_comes(self, driver: Driver) -> None:
        queue = self.declared(driver)
        subscription = driver.subscribe(queue, 1)
        call = self.background(lambda: subscription.receive(1, 10 * self.patience))
        assert call.waits(self.moment)
        self.publish(driver, queue, "a")
        assert ids(call.result()) == ["a"]

    def test_no_more_than_the_window_is_out_and_settling_makes_room(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(5))
        subscription = driver.subscribe(queue, 2)
        held = self.receive(subscription, 2)
        self.receives_nothing(subscription)
        self.settle(subscription, held[:1])
        held = [held[1], self.receive_one(subscription)]
        self.receives_nothing(subscription)
        self.settle(subscription, held)
        self.settle(subscription, self.receive(subscription, 2))

    def test_a_receive_that_waits_for_the_window_wakes_when_something_is_settled(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, "a", "b")
        subscription = driver.subscribe(queue, 1)
        first = self.receive(subscription)
        call = self.background(lambda: subscription.receive(1, 10 * self.patience))
        assert call.waits(self.moment)
        self.settle(subscription, first)
        assert len(call.result()) == 1

    def test_a_consumer_with_a_full_window_keeps_no_message_from_another(self, driver: Driver) -> None:
        """Both wait when the message comes; the one that may not have it must not swallow the wake-up."""
        queue = self.declared(driver)
        full, free = driver.subscribe(queue, 1), driver.subscribe(queue, 1)
        self.publish(driver, queue, "a")
        held = self.receive(full)
        blocked = self.background(lambda: full.receive(1, 10 * self.patience))
        assert blocked.waits(self.moment)
        waiting = self.background(lambda: free.receive(1, 10 * self.patience))
        assert waiting.waits(self.moment)
        self.publish(driver, queue, "b")
        assert ids(waiting.result()) == ["b"]
        self.settle(full, held)
        full.cancel()
        assert blocked.result() == []

    def test_several_consumers_share_a_queue(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, "a", "b")
        one, other = driver.subscribe(queue, 1), driver.subscribe(queue, 1)
        first, second = self.receive_one(one), self.receive_one(other)
        assert sorted(ids([first, second])) == ["a", "b"]
        self.settle(one, [first])
        self.settle(other, [second])

    def test_every_message_goes_to_one_consumer_only(self, driver: Driver) -> None:
        """Four consumers and two publishers at once: each message is delivered exactly once."""
        queue = self.declared(driver)
        wanted = numbered(400)
        handled = Results(self.patience)
        subscriptions = [driver.subscribe(queue, 20) for _ in range(4)]

        def consume(subscription: Subscription) -> None:
            while deliveries := subscription.receive(20, 10 * self.patience):
                self.settle(subscription, deliveries)
                for message_id in ids(deliveries):
                    handled.add(message_id)

        def publish(mine: list[str]) -> None:
            for start in range(0, len(mine), 20):
                self.publish(driver, queue, *mine[start : start + 20])

        consumers = [self.background(partial(consume, one)) for one in subscriptions]
        publishers = [self.background(partial(publish, wanted[part::2])) for part in (0, 1)]
        for call in publishers:
            call.result()
        handled.wait(400)
        assert driver.wait_idle(queue, self.patience)
        for subscription in subscriptions:
            subscription.cancel()
        for call in consumers:
            call.result()
        assert Counter(handled.items) == Counter(wanted)

    def test_a_delivery_that_is_held_may_begin(self, driver: Driver) -> None:
        """Any thread may begin it: workers do, not the feeder."""
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        subscription = driver.subscribe(queue, 1)
        (delivery,) = self.receive(subscription)
        assert self.background(lambda: subscription.begin([delivery])).result() == [delivery]
        self.settle(subscription, [delivery])

    def test_cancel_wakes_a_waiting_receive_at_once(self, driver: Driver) -> None:
        """A stop does not wait for the timeout of the feeder."""
        subscription = driver.subscribe(self.declared(driver), 1)
        call = self.background(lambda: subscription.receive(1, 10 * self.patience))
        assert call.waits(self.moment)
        subscription.cancel()
        assert call.result() == []

    def test_cancel_ends_the_wait_for_a_full_window_too(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, "a", "b")
        subscription = driver.subscribe(queue, 1)
        self.receive(subscription)
        call = self.background(lambda: subscription.receive(1, 10 * self.patience))
        assert call.waits(self.moment)
        subscription.cancel()
        assert call.result() == []

    def test_nothing_is_delivered_after_a_cancel(self, driver: Driver) -> None:
        queue = self.declared(driver)
        subscription = driver.subscribe(queue, 5)
        subscription.cancel()
        self.publish(driver, queue, "a")
        assert subscription.receive(5, self.moment) == []
        self._give_back(subscription, subscription.cancel())
        subscription.close(self.patience)
        assert ids(self.drained(driver, queue, 1)) == ["a"]

    def test_what_is_held_can_be_settled_after_a_cancel(self, driver: Driver) -> None:
        """Handlers in flight may finish while their consumer stops."""
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        subscription = driver.subscribe(queue, 1)
        held = self.receive(subscription)
        subscription.cancel()
        self.settle(subscription, held)
        subscription.close(self.patience)
        self.drained(driver, queue, 0)

    def test_cancelling_and_subscribing_again_loses_nothing(self, driver: Driver) -> None:
        """The stop of a consumer: cancel, hand back what came and what was on its way, close; another takes over."""
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(10))
        subscription = driver.subscribe(queue, 8)
        held = self.receive(subscription, 3)
        self._give_back(subscription, held + subscription.cancel())
        subscription.close(self.patience)
        received = self.drained(driver, queue, 10)
        assert sorted(ids(received)) == numbered(10)
        if self.kind.capabilities.release_at_head and self.kind.capabilities.ordered:
            assert ids(received) == numbered(10)
        if self.kind.capabilities.exact_attempts:
            assert {delivery.message.attempts for delivery in received} == {0}

    def test_closing_gives_back_what_was_never_settled(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(6))
        subscription = driver.subscribe(queue, 4)
        self.settle(subscription, self.receive(subscription, 4)[:1])
        subscription.close(self.patience)
        assert len(self.drained(driver, queue, 5)) == 5

    def test_a_consumer_that_waits_gets_at_once_what_another_gives_back(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        leaving, staying = driver.subscribe(queue, 1), driver.subscribe(queue, 1)
        self.receive(leaving)
        call = self.background(lambda: staying.receive(1, 10 * self.patience))
        assert call.waits(self.moment)
        leaving.close(self.patience)
        assert ids(call.result()) == ["a"]

    def test_closing_flushes_what_was_settled(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(50))
        subscription = driver.subscribe(queue, 50)
        deliveries = self.receive(subscription, 50)
        results = Results(self.patience)
        start = threading.Barrier(2)

        def settle(mine: list[Delivery]) -> None:
            start.wait(self.patience)
            for delivery in mine:
                delivery.claim()
                subscription.settle([Settlement(delivery, done=results.add)])

        calls = [self.background(partial(settle, deliveries[part::2])) for part in (0, 1)]
        for call in calls:
            call.result()
        subscription.close(self.patience)
        assert results.wait(50) == [None] * 50
        self.drained(driver, queue, 0)

    def test_cancel_and_close_may_be_called_again(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        subscription = driver.subscribe(queue, 1)
        self.receive(subscription)
        for _ in range(2):
            subscription.cancel()
        for _ in range(2):
            subscription.close(self.patience)
        subscription.cancel()
        assert ids(self.drained(driver, queue, 1)) == ["a"]

    def _give_back(self, subscription: Subscription, deliveries: list[Delivery]) -> None:
        self.settle(subscription, [d for d in deliveries if not d.claimed], "release")
