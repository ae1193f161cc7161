"""Queues that hold no more than ``max_length`` messages."""

from __future__ import annotations

import time
from functools import partial

import attrs
import msgspec
import pytest

from wippy_queue.driver import Driver
from wippy_queue.errors import QueueFull, Timeout, Unavailable, WippyQueueError
from wippy_queue.testing.conformance.harness import Dropped, Harness, ids, message, numbered

_ENOUGH = 1.0  # seconds in which a backend that is slow for a moment can say that a queue is full


class Limits(Harness):
    def test_a_full_queue_makes_a_publish_wait_then_refuses_it(self, driver: Driver) -> None:
        queue = self.declared(driver, max_length=2, overflow="block")
        self.publish(driver, queue, "a", "b")
        since = time.monotonic()
        with pytest.raises(QueueFull) as caught:
            driver.publish(queue, [message("c")], _ENOUGH)
        assert time.monotonic() - since >= _ENOUGH - self.early
        assert caught.value.retryable
        assert not caught.value.details.get("accepted")
        assert sorted(ids(self.drained(driver, queue, 2))) == ["a", "b"]

    def test_a_publish_that_waits_for_room_goes_on_when_there_is_some(self, driver: Driver) -> None:
        queue = self.declared(driver, max_length=1, overflow="block")
        self.publish(driver, queue, "a")
        call = self.background(lambda: driver.publish(queue, [message("b")], 10 * self.patience))
        assert call.waits(self.moment)
        subscription = driver.subscribe(queue, 1)
        self.settle(subscription, self.receive(subscription))
        call.result()
        received = self.receive(subscription)
        assert ids(received) == ["b"]
        self.settle(subscription, received)

    def test_a_purge_makes_room_for_a_publish_that_waits(self, driver: Driver) -> None:
        queue = self.declared(driver, max_length=1, overflow="block")
        self.publish(driver, queue, "a")
        call = self.background(lambda: driver.publish(queue, [message("b")], 10 * self.patience))
        assert call.waits(self.moment)
        assert driver.purge(queue) == 1
        call.result()
        assert ids(self.drained(driver, queue, 1)) == ["b"]

    def test_many_publishers_that_wait_all_get_their_turn(self, driver: Driver) -> None:
        queue = self.declared(driver, max_length=2, overflow="block")
        calls = [self.background(partial(self.publish, driver, queue, message_id)) for message_id in numbered(12)]
        subscription = driver.subscribe(queue, 1)
        received = []
        for _ in calls:
            deliveries = self.receive(subscription)
            self.settle(subscription, deliveries)
            received += ids(deliveries)
        for call in calls:
            call.result()
        assert sorted(received) == numbered(12)

    def test_a_batch_that_does_not_fit_says_what_is_in(self, driver: Driver) -> None:
        """All of it, none or the first few: whoever tries again knows what not to send twice."""
        queue = self.declared(driver, max_length=3, overflow="block")
        self.publish(driver, queue, "before")
        with pytest.raises(QueueFull) as caught:
            driver.publish(queue, [message(message_id) for message_id in numbered(3)], _ENOUGH)
        accepted = list(caught.value.details.get("accepted", ()))
        assert accepted == numbered(3)[: len(accepted)]
        assert sorted(ids(self.drained(driver, queue, 1 + len(accepted)))) == sorted(["before", *accepted])

    def test_a_publish_that_waits_for_room_ends_when_the_driver_stops(self, driver: Driver) -> None:
        queue = self.declared(driver, max_length=1, overflow="block")
        self.publish(driver, queue, "a")
        call = self.background(lambda: driver.publish(queue, [message("b")], 10 * self.patience))
        assert call.waits(self.moment)
        driver.stop(self.patience)
        with pytest.raises(Unavailable):
            call.result()

    def test_reject_refuses_at_once(self, driver: Driver) -> None:
        queue = self.declared(driver, max_length=1, overflow="reject")
        self.publish(driver, queue, "a")
        call = self.background(lambda: driver.publish(queue, [message("b")], 10 * self.patience))
        with pytest.raises(QueueFull):
            call.result()
        assert ids(self.drained(driver, queue, 1)) == ["a"]

    def test_drop_oldest_makes_room_and_tells(self, driver: Driver) -> None:
        dropped = Dropped(self.patience)
        queue = self.declared(driver, max_length=3, overflow="drop_oldest", on_drop=dropped)
        self.publish(driver, queue, *numbered(3))
        self.publish(driver, queue, "new-1", "new-2")
        assert dropped.wait(2) == [("m000", "maxlen"), ("m001", "maxlen")]
        assert sorted(ids(self.drained(driver, queue, 3))) == ["m002", "new-1", "new-2"]
        assert len(dropped.items) == 2

    def test_drop_oldest_drops_the_lowest_priority_first(self, driver: Driver) -> None:
        self.need("priority")
        dropped = Dropped(self.patience)
        queue = self.declared(driver, max_length=2, overflow="drop_oldest", on_drop=dropped)
        self.publish(driver, queue, "high", priority=9)
        self.publish(driver, queue, "low")
        self.publish(driver, queue, "new", priority=5)
        assert dropped.wait(1) == [("low", "maxlen")]
        assert ids(self.drained(driver, queue, 2)) == ["high", "new"]

    @pytest.mark.parametrize("overflow", ["block", "reject", "drop_oldest"])
    def test_a_requeue_and_a_release_are_admitted_to_a_full_queue(self, driver: Driver, overflow: str) -> None:
        """A message that was accepted once is not lost because others have taken its place meanwhile."""
        dropped = Dropped(self.patience)
        queue = self.declared(driver, max_length=2, overflow=overflow, on_drop=dropped)
        self.publish(driver, queue, "a", "b")
        subscription = driver.subscribe(queue, 2)
        held = {delivery.message.id: delivery for delivery in self.receive(subscription, 2)}
        newer, unknown = set(), set()
        for message_id in ("c", "d"):  # whether what is in flight counts is the driver's affair
            try:
                driver.publish(queue, [message(message_id)], self.moment if overflow == "block" else self.patience)
                newer.add(message_id)
            except QueueFull:
                pass
            except Timeout:
                unknown.add(message_id)
        self.settle(subscription, [held["a"]], "requeue", change=lambda m: msgspec.structs.replace(m, attempts=1))
        self.settle(subscription, [held["b"]], "release")
        subscription.close(self.patience)
        wanted = {"a", "b"} | newer
        kept: list[str] = []
        subscription = driver.subscribe(queue, 10)

        def missing() -> set[str]:
            deliveries = subscription.receive(10, self.moment)
            self.settle(subscription, deliveries)
            kept.extend(ids(deliveries))
            return wanted - set(kept) - {message_id for message_id, _ in dropped.items}

        self.eventually(missing, set[str]())
        missing()  # and takes whatever else there is
        known = [*kept, *(message_id for message_id, _ in dropped.items)]
        assert {"a", "b"} <= set(kept)
        assert sorted(known) == sorted(wanted | unknown & set(known))

    def test_a_larger_limit_holds_from_the_next_declaration_on(self, driver: Driver) -> None:
        queue = self.declared(driver, max_length=1, overflow="reject")
        self.publish(driver, queue, "a")
        larger = attrs.evolve(queue, options=self.queue(max_length=2, overflow="reject").options)
        try:
            driver.declare(larger)
        except WippyQueueError:
            pytest.skip(f"{self.kind.kind} does not change a queue that is there")
        self.publish(driver, larger, "b")
        with pytest.raises(QueueFull):
            driver.publish(larger, [message("c")], self.patience)
        assert sorted(ids(self.drained(driver, larger, 2))) == ["a", "b"]
