"""Delays, times to live, priorities."""

from __future__ import annotations

import time
from collections.abc import Sequence

from wippy_queue.delivery import Delivery
from wippy_queue.driver import Driver, Subscription
from wippy_queue.message import Message
from wippy_queue.queues import DropReason, Queue
from wippy_queue.testing.conformance.harness import Dropped, Harness, ids, message, numbered

_LONGER = 2.0  # seconds, a delay or time to live that a machine which has just stalled keeps


class Timing(Harness):
    def test_a_delayed_message_comes_after_its_delay(self, driver: Driver) -> None:
        """A consumer that waits already gets it when it is due, not at its next receive."""
        self.need("delay")
        queue = self.declared(driver)
        subscription = driver.subscribe(queue, 2)
        since = time.monotonic()
        self.publish(driver, queue, message("later", delay=self.delay), message("now"))
        assert ids(self.receive(subscription)) == ["now"]
        call = self.background(lambda: subscription.receive(1, 10 * self.patience))
        assert ids(call.result()) == ["later"]
        assert time.monotonic() - since >= self.delay - self.early

    def test_delayed_messages_come_when_each_is_due(self, driver: Driver) -> None:
        self.need("delay", "ordered")
        queue = self.declared(driver)
        apart = max(self.delay, 1.0)  # after a longer stall both are due, and may come in any order
        self.publish(driver, queue, message("last", delay=self.delay + apart), message("first", delay=self.delay))
        assert ids(self.drained(driver, queue, 2)) == ["first", "last"]

    def test_a_delayed_message_keeps_its_headers_body_and_priority(self, driver: Driver) -> None:
        self.need("delay", "priority")
        queue = self.declared(driver)
        self.publish(driver, queue, message("a", b'"b"', delay=self.delay, headers={"n": 9, "f": 9.0}, priority=4))
        (delivery,) = self.drained(driver, queue, 1)
        assert delivery.message.body == b'"b"'
        assert [repr(delivery.message.headers[key]) for key in "nf"] == ["9", "9.0"]
        assert delivery.message.priority == 4
        assert delivery.message.attempts == 0

    def test_higher_priorities_come_first_and_equal_ones_in_order(self, driver: Driver) -> None:
        self.need("priority", "ordered")
        queue = self.declared(driver)
        for message_id, priority in (("low", 0), ("mid-1", 5), ("high", 9), ("mid-2", 5)):
            self.publish(driver, queue, message_id, priority=priority)
        assert ids(self.drained(driver, queue, 4)) == ["high", "mid-1", "mid-2", "low"]

    def test_a_requeued_message_keeps_its_priority(self, driver: Driver) -> None:
        self.need("priority", "ordered")
        queue = self.declared(driver)
        self.publish(driver, queue, "high-1", "high-2", priority=9)
        self.publish(driver, queue, "low")
        subscription = driver.subscribe(queue, 1)
        self.settle(subscription, self.receive(subscription), "requeue")
        subscription.close(self.patience)
        assert ids(self.drained(driver, queue, 3)) == ["high-2", "high-1", "low"]

    def test_a_released_message_keeps_its_priority(self, driver: Driver) -> None:
        self.need("priority", "ordered", "release_at_head")
        queue = self.declared(driver)
        self.publish(driver, queue, "low-1", "low-2")
        subscription = driver.subscribe(queue, 1)
        held = self.receive(subscription)
        self.publish(driver, queue, "high", priority=9)
        self.settle(subscription, held, "release")
        subscription.close(self.patience)
        assert ids(self.drained(driver, queue, 3)) == ["high", "low-1", "low-2"]

    def test_an_expired_message_is_dropped_and_not_delivered(self, driver: Driver) -> None:
        """The driver tells on_drop first; there is no need for a consumer."""
        self.need("ttl")
        dropped = Dropped(self.patience)
        queue = self.declared(driver, on_drop=dropped)
        self.publish(driver, queue, message("mortal", expires_at=time.time() + self.delay), message("immortal"))
        assert dropped.wait(1) == [("mortal", "expired")]
        assert ids(self.drained(driver, queue, 1)) == ["immortal"]
        assert dropped.items == [("mortal", "expired")]

    def test_the_time_to_live_of_a_queue_holds_for_its_messages(self, driver: Driver) -> None:
        self.need("ttl")
        dropped = Dropped(self.patience)
        queue = self.declared(driver, on_drop=dropped, message_ttl=self.delay)
        self.publish(driver, queue, "a")
        assert dropped.wait(1) == [("a", "expired")]
        self.drained(driver, queue, 0)

    def test_a_message_that_is_older_than_the_time_to_live_of_its_queue_does_not_expire_on_arrival(
        self, driver: Driver
    ) -> None:
        """A dead letter, or a moved message, was first published long ago: its time begins when it comes here."""
        self.need("ttl")
        dropped = Dropped(self.patience)
        patient = self.declared(driver, "patient", on_drop=dropped, message_ttl=2 * self.patience)
        self.publish(driver, patient, "a", timestamp=time.time() - 3600)
        assert ids(self.drained(driver, patient, 1)) == ["a"]
        assert dropped.items == []

    def test_the_time_to_live_of_an_old_message_begins_with_its_publish(self, driver: Driver) -> None:
        """It lives as long as a new one, and no longer."""
        self.need("ttl")
        dropped = Dropped(self.patience)
        queue = self.declared(driver, on_drop=dropped, message_ttl=self.delay)
        since = time.monotonic()
        self.publish(driver, queue, "a", timestamp=time.time() - 3600)
        assert dropped.wait(1) == [("a", "expired")]
        assert time.monotonic() - since >= self.delay - self.early
        self.drained(driver, queue, 0)

    def test_a_message_that_is_handled_in_time_does_not_expire(self, driver: Driver) -> None:
        self.need("ttl")
        queue, dropped, subscription, deliveries, expires_at = self._held_in_time(driver, "held", "acked")
        held = {delivery.message.id: delivery for delivery in deliveries}
        self.settle(subscription, [held["acked"]])
        self.receives_nothing(subscription, max(0.0, expires_at - time.time()) + self.delay)
        self.settle(subscription, [held["held"]])
        assert dropped.items == []
        self.drained(driver, queue, 0)

    def test_a_message_that_expired_in_somebodys_hand_is_dropped_when_it_goes_back(self, driver: Driver) -> None:
        self.need("ttl")
        _, dropped, subscription, held, expires_at = self._held_in_time(driver, "a")
        self.receives_nothing(subscription, max(0.0, expires_at - time.time()) + self.early)
        self.settle(subscription, held, "release")
        assert dropped.wait(1) == [("a", "expired")]
        self.receives_nothing(subscription)

    def test_a_message_that_expires_while_it_is_delayed_goes_to_nobody(self, driver: Driver) -> None:
        """Not even to a consumer that waits at the moment when it is due."""
        self.need("ttl", "delay")
        dropped = Dropped(self.patience)
        queue = self.declared(driver, on_drop=dropped)
        subscription = driver.subscribe(queue, 1)
        call = self.background(lambda: subscription.receive(1, 4 * self.delay))
        self.publish(driver, queue, message("late", delay=2 * self.delay, expires_at=time.time() + self.delay))
        assert dropped.wait(1) == [("late", "expired")]
        assert call.result() == []

    def test_expired_messages_vanish_where_nobody_wants_them(self, driver: Driver) -> None:
        self.need("ttl")
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(3), expires_at=time.time() + self.delay)
        assert driver.wait_idle(queue, self.patience)
        self.drained(driver, queue, 0)

    def test_messages_that_on_drop_could_not_take_stay_and_are_offered_again(self, driver: Driver) -> None:
        """The dead-letter queue may be away for a while: nothing is lost by that."""
        self.need("ttl")
        dropped = Dropped(self.patience)
        trouble = [True]

        def refuse_once(messages: Sequence[Message], reason: DropReason) -> None:
            dropped(messages, reason)
            if trouble:
                trouble.clear()
                raise RuntimeError("the dead-letter queue is away")

        queue = self.declared(driver, on_drop=refuse_once)
        self.publish(driver, queue, "a", expires_at=time.time() + self.delay)
        dropped.wait(1)
        self.receives_nothing(driver.subscribe(queue, 1))
        assert dropped.wait(2) == [("a", "expired")] * 2
        assert driver.wait_idle(queue, self.patience)

    def test_on_drop_may_publish_to_the_same_driver(self, driver: Driver) -> None:
        """That is how a message comes to its dead-letter queue."""
        self.need("ttl")
        dead = self.declared(driver, "dead")
        queue = self.declared(
            driver, on_drop=lambda messages, _: driver.publish(dead, [message(m.id) for m in messages], self.patience)
        )
        self.publish(driver, queue, "a", expires_at=time.time() + self.delay)
        assert ids(self.drained(driver, dead, 1)) == ["a"]

    def _held_in_time(
        self, driver: Driver, *messages: str
    ) -> tuple[Queue, Dropped, Subscription, list[Delivery], float]:
        """Receive messages before they expire; where that took too long, they are published anew, to live longer."""
        held: list[Delivery] = []
        for life in (self.delay, max(self.delay, _LONGER)):
            dropped = Dropped(self.patience)
            queue = self.declared(driver, on_drop=dropped)
            expires_at = time.time() + life
            self.publish(driver, queue, *messages, expires_at=expires_at)
            subscription = driver.subscribe(queue, len(messages))
            held = []
            while len(held) < len(messages) and (left := expires_at - time.time()) > 0:
                held += subscription.receive(len(messages) - len(held), left)
            if len(held) == len(messages):
                return queue, dropped, subscription, held, expires_at
            subscription.close(self.patience)
        raise AssertionError(f"{ids(held)} of {list(messages)} came before they expired, after {life} s")
