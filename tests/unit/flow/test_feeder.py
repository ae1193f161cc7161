"""The feeder: between a driver that may go deaf and a buffer that may be full."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.support import DEADLINE, FakeSubscription, message
from wippy_queue.delivery import Delivery
from wippy_queue.driver import Sink
from wippy_queue.errors import Unavailable
from wippy_queue.flow.feeder import Feeder
from wippy_queue.flow.prefetch import Holder, PrefetchBuffer
from wippy_queue.flow.tempo import Tempo


class Scripted(FakeSubscription):
    """Gives what the test has written down, then waits until it is cancelled."""

    def __init__(self, script: Iterator[list[Delivery]]) -> None:
        super().__init__()
        self._script = script
        self._cancelled = threading.Event()
        self.limits: list[int] = []

    def receive(self, limit: int, timeout: float) -> list[Delivery]:
        self.limits.append(limit)
        deliveries = next(self._script, None)
        if deliveries is None:
            self._cancelled.wait(DEADLINE)
            return []
        return deliveries

    def cancel(self) -> list[Delivery]:
        self._cancelled.set()
        return []


def deliveries(count: int) -> list[Delivery]:
    return [Delivery(message(f"m-{index}"), index) for index in range(count)]


def start(subscription: Scripted, buffer: PrefetchBuffer, ready: int = 0) -> tuple[threading.Thread, list[Exception]]:
    failures: list[Exception] = []
    feeder = Feeder(subscription, buffer, lambda: ready, failures.append)
    thread = threading.Thread(target=feeder.run, daemon=True)
    thread.start()
    return thread, failures


def test_it_asks_for_no_more_than_there_is_room_for() -> None:
    buffer = PrefetchBuffer(5, Tempo())
    subscription = Scripted(iter([deliveries(3), deliveries(2)]))
    thread, failures = start(subscription, buffer)
    for _ in range(5):
        assert buffer.take(Holder())
    subscription.cancel()
    buffer.close()
    thread.join(DEADLINE)
    assert subscription.limits[:2] == [5, subscription.limits[1]]
    assert all(1 <= limit <= 5 for limit in subscription.limits)
    assert failures == []


def test_what_arrives_after_the_close_is_kept_to_be_handed_back() -> None:
    buffer, late, arrived = PrefetchBuffer(5, Tempo()), deliveries(2), threading.Event()

    def script() -> Iterator[list[Delivery]]:
        buffer.close()
        arrived.set()
        yield late

    failures: list[Exception] = []
    feeder = Feeder(Scripted(script()), buffer, lambda: 0, failures.append)
    feeder.run()
    assert arrived.is_set()
    assert feeder.left_over == late
    assert failures == []


def test_a_consumer_that_hears_nothing_although_messages_are_ready_is_deaf() -> None:
    """Alive, connected, and silent: what users of other systems find out from their customers."""
    thread, failures = start(Scripted(iter([[], [], [], []])), PrefetchBuffer(5, Tempo()), ready=7)
    thread.join(DEADLINE)
    [failure] = failures
    assert isinstance(failure, Unavailable)
    assert "although messages are ready" in str(failure)


def test_one_that_hears_nothing_because_there_is_nothing_is_well() -> None:
    buffer, subscription = PrefetchBuffer(5, Tempo()), Scripted(iter([[]] * 20))
    thread, failures = start(subscription, buffer, ready=0)
    while len(subscription.limits) < 21:
        thread.join(0.01)
    subscription.cancel()
    buffer.close()
    thread.join(DEADLINE)
    assert failures == []


def test_now_and_then_nothing_is_no_deafness() -> None:
    script = iter([[], [], deliveries(1), [], [], deliveries(1)])
    buffer, subscription = PrefetchBuffer(5, Tempo()), Scripted(script)
    thread, failures = start(subscription, buffer, ready=7)
    while len(subscription.limits) < 7:
        thread.join(0.01)
    subscription.cancel()
    buffer.close()
    thread.join(DEADLINE)
    assert failures == []


def test_what_comes_past_the_feeder_into_the_buffer_is_heard() -> None:
    class Direct(FakeSubscription):
        calls = 0

        def receive_into(self, sink: Sink, limit: int, timeout: float) -> list[Delivery]:
            self.calls += 1
            if self.calls == 5:
                buffer.close()
            else:
                assert sink(deliveries(1))
            return []

    buffer, failures = PrefetchBuffer(10, Tempo()), list[Exception]()
    Feeder(Direct(), buffer, lambda: 7, failures.append).run()
    assert failures == []


@pytest.mark.parametrize("error", [OSError("socket is gone"), Unavailable("away for good")])
def test_an_error_of_the_driver_is_reported(error: Exception) -> None:
    class Broken(FakeSubscription):
        def receive(self, limit: int, timeout: float) -> list[Delivery]:
            raise error

    failures: list[Exception] = []
    Feeder(Broken(), PrefetchBuffer(5, Tempo()), lambda: 0, failures.append).run()
    assert failures == [error]
