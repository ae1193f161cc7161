"""The conformance suite is worth something only if it fails on a driver that is broken: one typical bug each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import msgspec
import pytest

from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.driver import Driver, Sink
from wippy_queue.drivers.memory import KIND
from wippy_queue.drivers.memory.driver import MemoryDriver
from wippy_queue.drivers.memory.queue import MemoryQueue
from wippy_queue.drivers.memory.ready import Ready
from wippy_queue.drivers.memory.subscription import Subscription
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import Queue
from wippy_queue.testing.conformance import DriverConformance


class _LosesOnClose(MemoryQueue):
    def close_subscription(self, subscription: Subscription) -> None:
        subscription.unsettled.clear()
        super().close_subscription(subscription)


class _ReleasesAtTheTail(Ready):
    def give_back(self, delivery: Delivery) -> None:
        self.append(delivery.message)


class _TurnsHeadersIntoText(Ready):
    def append(self, message: Message) -> None:
        super().append(
            msgspec.structs.replace(message, headers={key: str(value) for key, value in message.headers.items()})
        )


class _DeliversTwice(Ready):
    def take(self, limit: int) -> list[Delivery]:
        taken = super().take(limit)
        for delivery in taken:
            if delivery.receipt % 50 == 0:
                self.append(delivery.message)
        return taken


class _IgnoresTheWindow(MemoryQueue):
    def receive(
        self, subscription: Subscription, limit: int, timeout: float, sink: Sink | None = None
    ) -> list[Delivery]:
        subscription.window = 10**6
        return super().receive(subscription, limit, timeout, sink)


class _SwallowsWakeUps(MemoryQueue):
    def _announce(self, count: int) -> None:
        if not any(subscription.starved for subscription in self.subscriptions):
            super()._announce(count)


class _ForgetsDelays(MemoryQueue):
    def _push_delayed(self, message: Message, delay: float) -> None:
        super()._push_delayed(message, 0.0)


class _ForgetsAttempts(MemoryQueue):
    def settle(self, subscription: Subscription, settlements: Sequence[Settlement]) -> None:
        super().settle(subscription, [msgspec.structs.replace(settlement, message=None) for settlement in settlements])


class _ReportsTwice(MemoryQueue):
    def settle(self, subscription: Subscription, settlements: Sequence[Settlement]) -> None:
        super().settle(subscription, settlements)
        for settlement in settlements:
            if settlement.done is not None:
                settlement.done(None)


class _NeverTellsThatItIsIdle(MemoryQueue):
    def _after_leaving(self) -> None:
        self._room.notify_all()


class _CancelsInSilence(MemoryQueue):
    def cancel(self, subscription: Subscription) -> None:
        subscription.cancelled = True


class _ClosesLate(MemoryQueue):
    def close_subscription(self, subscription: Subscription) -> None:
        threading.Event().wait(1.0)
        super().close_subscription(subscription)


class _TellsLater(MemoryQueue):
    def settle(self, subscription: Subscription, settlements: Sequence[Settlement]) -> None:
        timer = threading.Timer(2.0, super().settle, (subscription, settlements))
        timer.daemon = True
        timer.start()


class _DropsInSilence(MemoryQueue):
    def _hand_over(self) -> float:
        self._dropping.clear()
        return super()._hand_over()


BUGS: list[tuple[type[MemoryQueue | Ready], str]] = [
    (_LosesOnClose, "test_closing_gives_back_what_was_never_settled"),
    (_LosesOnClose, "test_a_stop_with_messages_in_hand_loses_none"),
    (_ReleasesAtTheTail, "test_released_messages_go_to_the_head_in_their_old_order"),
    (_TurnsHeadersIntoText, "test_headers_keep_their_values_and_types"),
    (_DeliversTwice, "test_every_message_goes_to_one_consumer_only"),
    (_IgnoresTheWindow, "test_no_more_than_the_window_is_out_and_settling_makes_room"),
    (_SwallowsWakeUps, "test_a_consumer_with_a_full_window_keeps_no_message_from_another"),
    (_ForgetsDelays, "test_a_delayed_message_comes_after_its_delay"),
    (_ForgetsAttempts, "test_a_requeued_message_comes_again_with_its_attempts_and_changed_headers"),
    (_ReportsTwice, "test_done_is_called_once_for_each_settlement"),
    (_NeverTellsThatItIsIdle, "test_who_waits_for_idle_wakes_at_the_last_ack"),
    (_CancelsInSilence, "test_cancel_wakes_a_waiting_receive_at_once"),
    (_ClosesLate, "test_a_close_and_a_stop_take_no_longer_than_they_need"),
    (_TellsLater, "test_a_close_without_time_has_told_the_truth_when_it_returns"),
    (_LosesOnClose, "test_a_stop_without_time_loses_nothing"),
    (_DropsInSilence, "test_an_expired_message_is_dropped_and_not_delivered"),
]


class _WithOtherLanes(MemoryQueue):
    def __init__(self, driver: MemoryDriver, queue: Queue, ready: type[Ready]) -> None:
        super().__init__(driver, queue)
        self._ready = ready(driver.clock, driver.wake_at)


def _run(test: str, broken: type[MemoryQueue | Ready], most: float, least: float = 0.1) -> None:
    class BrokenDriver(MemoryDriver):
        def declare(self, queue: Queue) -> None:
            if queue.id in self._queues:
                return
            if issubclass(broken, Ready):
                self._queues[queue.id] = _WithOtherLanes(self, queue, broken)
            else:
                self._queues[queue.id] = broken(self, queue)

    class Suite(DriverConformance):
        kind = KIND
        patience = most
        moment = 0.03
        delay = least

        def make_driver(self) -> Driver:
            return BrokenDriver(EntryId("test:broken"))

    suite = Suite()
    case: Callable[[Driver], None] = getattr(suite, test)
    try:
        case(suite.started())
    finally:
        suite.stop_all()


@pytest.mark.parametrize(("broken", "test"), BUGS)
def test_the_suite_fails_on_a_driver_that(broken: type[MemoryQueue | Ready], test: str) -> None:
    most, least = (5.0, 1.0) if broken is _ForgetsDelays else (0.3, 0.1)  # a stall must not be taken for the delay
    with pytest.raises(AssertionError):
        _run(test, broken, most, least)


@pytest.mark.parametrize("test", sorted({test for _, test in BUGS}))
def test_the_same_test_passes_on_one_that_is_right(test: str) -> None:
    _run(test, MemoryQueue, 5.0)
