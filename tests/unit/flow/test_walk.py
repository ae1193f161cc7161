"""Taking messages out of a queue without being its consumer, and putting them elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest

from tests.support import message, queue
from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.driver import Driver, Subscription
from wippy_queue.drivers.memory.driver import MemoryDriver
from wippy_queue.errors import Invalid, QueueFull, Unavailable, WippyQueueError
from wippy_queue.flow.burial import Route
from wippy_queue.flow.walk import Pace, store, walk
from wippy_queue.ids import EntryId
from wippy_queue.message import Message


@pytest.fixture
def route(monkeypatch: pytest.MonkeyPatch) -> Iterator[Route]:
    monkeypatch.setattr("wippy_queue.flow.walk._PATIENCE", 0.01)
    driver = MemoryDriver(EntryId("app:memory"))
    driver.declare(queue())
    driver.start()
    driver.publish(queue(), [message(f"m-{number}") for number in range(5)], 1.0)
    yield Route(queue(), driver)
    driver.stop(5.0)


def ids(route: Route) -> list[str]:
    return [waiting.id for waiting in route.driver.peek(route.queue, 100)]


def test_what_is_not_claimed_goes_back_at_the_end_in_order(route: Route) -> None:
    def act(subscription: Subscription, deliveries: Sequence[Delivery]) -> None:
        subscription.settle([Settlement(d) for d in deliveries if d.message.id in ("m-1", "m-3") and d.claim()])

    walk(route, act, pace=Pace(rate=1e6), window=10, limit=None)
    assert ids(route) == ["m-0", "m-2", "m-4"]


def test_an_error_in_the_middle_loses_nothing(route: Route) -> None:
    def act(_subscription: Subscription, _deliveries: Sequence[Delivery]) -> None:
        raise Unavailable("away")

    with pytest.raises(Unavailable):
        walk(route, act, pace=Pace(), window=10, limit=None)
    assert ids(route) == ["m-0", "m-1", "m-2", "m-3", "m-4"]
    assert route.driver.info(route.queue).in_flight == 0


@pytest.mark.parametrize(("limit", "window", "expected"), [(2, 10, 2), (0, 10, 0), (None, 3, 3), (None, 10, 5)])
def test_it_ends_at_its_limit_or_when_too_many_are_kept(
    route: Route, limit: int | None, window: int, expected: int
) -> None:
    seen: list[Delivery] = []
    pace = Pace(rate=50)  # one at a time
    pace.wait = lambda count: None  # type: ignore[method-assign]
    walk(route, lambda _, deliveries: seen.extend(deliveries), pace=pace, window=window, limit=limit)
    assert len(seen) == expected


def test_it_ends_when_it_is_told_to(route: Route) -> None:
    stop = threading.Event()
    seen: list[Delivery] = []

    def act(_subscription: Subscription, deliveries: Sequence[Delivery]) -> None:
        seen.extend(deliveries)
        stop.set()

    walk(route, act, pace=Pace(rate=1, stop=stop), window=10, limit=None)
    assert len(seen) == 1


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_that_makes_no_sense_is_refused(rate: float) -> None:
    with pytest.raises(Invalid, match="rate"):
        Pace(rate)


class Target:
    """A driver that takes what it is told to take."""

    def __init__(self, refuse: Callable[[Sequence[Message]], WippyQueueError | None]) -> None:
        self.calls: list[list[str]] = []
        self._refuse = refuse

    def publish(self, _queue: Any, messages: Sequence[Message], _timeout: float) -> None:
        self.calls.append([one.id for one in messages])
        error = self._refuse(messages)
        if error is not None:
            raise error


def stored(target: Target, *names: str) -> list[str | None]:
    route = Route(queue(), cast(Driver, target))
    return [None if error is None else str(error) for error in store(route, [message(name) for name in names])]


def test_one_that_can_never_be_stored_keeps_no_other_back() -> None:
    target = Target(lambda messages: Invalid("too long") if any(one.id == "bad" for one in messages) else None)
    assert stored(target, "a", "bad", "b") == [None, "too long", None]


def test_what_a_driver_accepted_before_it_failed_is_not_stored_twice() -> None:
    target = Target(lambda _: Unavailable("away", details={"accepted": ["a"]}))
    assert stored(target, "a", "b") == [None, "away"]
    assert target.calls == [["a", "b"]]


def test_two_of_one_id_are_two() -> None:
    target = Target(lambda _: Unavailable("away", details={"accepted": ["a"]}))
    assert stored(target, "a", "a") == [None, "away"]


def test_where_the_target_is_full_each_is_not_waited_for() -> None:
    def refuse(messages: Sequence[Message]) -> WippyQueueError | None:
        return QueueFull("never", retryable=False) if len(messages) > 1 else QueueFull("full")

    target = Target(refuse)
    assert stored(target, "a", "b", "c") == ["full", "full", "full"]
    assert target.calls == [["a", "b", "c"], ["a"]]
