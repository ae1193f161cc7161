"""What becomes of a delivery: ack, requeue, release, and how the driver tells that it is done."""

from __future__ import annotations

import time

import msgspec
import pytest

from wippy_queue.delivery import Action, Settlement
from wippy_queue.driver import Driver
from wippy_queue.message import Message
from wippy_queue.testing.conformance.harness import Harness, Results, ids, numbered


class Settling(Harness):
    def test_ack_removes_the_message(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, "a", "b")
        subscription = driver.subscribe(queue, 2)
        deliveries = self.receive(subscription, 2)
        self.settle(subscription, [delivery for delivery in deliveries if delivery.message.id == "a"])
        subscription.close(self.patience)
        assert ids(self.drained(driver, queue, 1)) == ["b"]

    def test_acks_need_no_order(self, driver: Driver) -> None:
        """Workers finish as they like; acking a later message acks no earlier one."""
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(6))
        subscription = driver.subscribe(queue, 6)
        deliveries = {delivery.message.id: delivery for delivery in self.receive(subscription, 6)}
        for message_id in ("m005", "m002", "m003"):
            self.settle(subscription, [deliveries[message_id]])
        subscription.close(self.patience)
        assert sorted(ids(self.drained(driver, queue, 3))) == ["m000", "m001", "m004"]

    def test_done_is_called_once_for_each_settlement(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(30))
        subscription = driver.subscribe(queue, 30)
        results = Results(self.patience)
        actions: tuple[Action, ...] = ("ack", "release", "requeue")
        settlements = []
        for number, delivery in enumerate(self.receive(subscription, 30)):
            assert delivery.claim()
            settlements.append(
                Settlement(
                    delivery,
                    actions[number % 3],
                    delivery.message if number % 3 == 2 else None,
                    done=results.under(delivery.message.id),
                )
            )
        subscription.settle(settlements[:20])
        subscription.settle(settlements[20:])
        results.wait(30)
        subscription.close(self.patience)
        assert sorted(results.items) == [(message_id, None) for message_id in numbered(30)]
        self.drained(driver, queue, 20)

    def test_a_settlement_needs_no_done(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        subscription = driver.subscribe(queue, 1)
        delivery = self.receive_one(subscription)
        delivery.claim()
        subscription.settle([Settlement(delivery)])
        subscription.close(self.patience)
        self.drained(driver, queue, 0)

    def test_settling_nothing_does_nothing(self, driver: Driver) -> None:
        subscription = driver.subscribe(self.declared(driver), 1)
        subscription.settle([])
        subscription.close(self.patience)

    def test_done_may_publish_and_settle(self, driver: Driver) -> None:
        """It is called without a lock held, so what it does cannot come to a standstill."""
        queue = self.declared(driver)
        self.publish(driver, queue, "a", "b")
        subscription = driver.subscribe(queue, 2)
        first, second = self.receive(subscription, 2)
        results = Results(self.patience)

        def then(error: Exception | None) -> None:
            results.add(error)
            second.claim()
            subscription.settle([Settlement(second, done=results.add)])

        first.claim()
        call = self.background(lambda: subscription.settle([Settlement(first, done=then)]))
        call.result()
        assert results.wait(2) == [None, None]
        self.publish(driver, queue, "c")
        subscription.close(self.patience)
        assert ids(self.drained(driver, queue, 1)) == ["c"]

    def test_a_requeued_message_comes_again_with_its_attempts_and_changed_headers(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, "a", body=b'"kept"', headers={"kept": 1, "changed": 1})
        subscription = driver.subscribe(queue, 1)

        def fail(message: Message) -> Message:
            headers = {**message.headers, "changed": "two", "new": True}
            return msgspec.structs.replace(message, attempts=message.attempts + 1, headers=headers)

        original = self.receive_one(subscription)
        self.settle(subscription, [original], "requeue", change=fail)
        again = self.receive_one(subscription)
        assert again.message.id == "a"
        assert again.message.body == b'"kept"'
        assert dict(again.message.headers) == {"kept": 1, "changed": "two", "new": True}
        assert again.message.attempts == 1
        assert again.message.timestamp == pytest.approx(original.message.timestamp, abs=0.001, rel=0)
        self.settle(subscription, [again], "requeue", change=fail)
        last = self.receive_one(subscription)
        assert last.message.attempts == 2
        assert last.claim(), "a new delivery has a gate of its own"
        subscription.settle([Settlement(last)])

    def test_a_requeued_message_goes_to_the_tail(self, driver: Driver) -> None:
        self.need("ordered")
        queue = self.declared(driver)
        self.publish(driver, queue, "a", "b", "c")
        subscription = driver.subscribe(queue, 1)
        self.settle(subscription, self.receive(subscription), "requeue")
        subscription.close(self.patience)
        assert ids(self.drained(driver, queue, 3)) == ["b", "c", "a"]

    def test_a_message_that_is_requeued_with_a_delay_comes_after_it(self, driver: Driver) -> None:
        self.need("delay")
        queue = self.declared(driver)
        self.publish(driver, queue, "a", "b")
        subscription = driver.subscribe(queue, 3)
        first, second = self.receive(subscription, 2)
        since = time.monotonic()
        self.settle(subscription, [first], "requeue", delay=self.delay)
        early = subscription.receive(10, self.delay / 2)
        self.settle(subscription, [second])
        again = early or self.receive(subscription)
        assert ids(again) == ids([first])
        assert time.monotonic() - since >= self.delay - self.early
        self.settle(subscription, again)

    def test_released_messages_go_to_the_head_in_their_old_order(self, driver: Driver) -> None:
        """Also when they are released in pieces and in another order, as by several workers."""
        self.need("release_at_head", "ordered")
        queue = self.declared(driver)
        self.publish(driver, queue, *numbered(6))
        subscription = driver.subscribe(queue, 4)
        held = self.receive(subscription, 4)
        self.settle(subscription, held[2:], "release")
        self.settle(subscription, held[:2], "release")
        subscription.close(self.patience)
        assert ids(self.drained(driver, queue, 6)) == numbered(6)

    def test_a_release_is_no_attempt(self, driver: Driver) -> None:
        """Even if its handler had begun: a Canceled handler of a stopping consumer did not fail."""
        self.need("exact_attempts")
        queue = self.declared(driver)
        self.publish(driver, queue, "a", "b")
        subscription = driver.subscribe(queue, 2)
        deliveries = self.receive(subscription, 2)
        assert subscription.begin([deliveries[0]])
        self.settle(subscription, deliveries, "release")
        subscription.close(self.patience)
        assert [delivery.message.attempts for delivery in self.drained(driver, queue, 2)] == [0, 0]

    def test_a_released_message_keeps_its_earlier_attempts_and_headers(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, "a", headers={"n": 9})
        subscription = driver.subscribe(queue, 1)
        self.settle(
            subscription,
            self.receive(subscription),
            "requeue",
            change=lambda message: msgspec.structs.replace(message, attempts=3),
        )
        self.settle(subscription, self.receive(subscription), "release")
        delivery = self.receive_one(subscription)
        assert dict(delivery.message.headers) == {"n": 9}
        if self.kind.capabilities.exact_attempts:
            assert delivery.message.attempts == 3
        else:
            assert delivery.message.attempts >= 3
        self.settle(subscription, [delivery])

    def test_settling_after_the_close_is_reported_as_lost(self, driver: Driver) -> None:
        """The message went back when the subscription was closed: a late ack must neither remove it nor claim so."""
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        subscription = driver.subscribe(queue, 1)
        delivery = self.receive_one(subscription)
        subscription.close(self.patience)
        assert delivery.claim()
        results = Results(self.patience)
        subscription.settle([Settlement(delivery, done=results.add)])
        (error,) = results.wait(1)
        assert isinstance(error, Exception)
        assert ids(self.drained(driver, queue, 1)) == ["a"]

    def test_a_delivery_may_not_begin_after_the_close(self, driver: Driver) -> None:
        """What is in the buffer of a consumer that has lost its subscription is dropped, not run."""
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        subscription = driver.subscribe(queue, 1)
        delivery = self.receive_one(subscription)
        subscription.close(self.patience)
        assert not subscription.begin([delivery])
        assert ids(self.drained(driver, queue, 1)) == ["a"]

    def test_a_late_settle_does_not_touch_the_next_delivery_of_the_message(self, driver: Driver) -> None:
        queue = self.declared(driver)
        self.publish(driver, queue, "a")
        old = driver.subscribe(queue, 1)
        late = self.receive_one(old)
        old.close(self.patience)
        new = driver.subscribe(queue, 1)
        held = self.receive(new)
        assert late.claim()
        results = Results(self.patience)
        old.settle([Settlement(late, done=results.add)])
        results.wait(1)
        assert new.begin([held[0]])
        self.settle(new, held, "requeue")
        new.close(self.patience)
        assert ids(self.drained(driver, queue, 1)) == ["a"]
