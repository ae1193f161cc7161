"""Beside the steps: taking the messages of a queue one after the other, for whoever is no consumer of it."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.driver import Subscription
from wippy_queue.errors import Invalid, Kind, WippyQueueError
from wippy_queue.flow.burial import Route
from wippy_queue.message import Message

_BATCH: Final = 100  # messages that are taken at a time
_STEPS: Final = 50.0  # batches a second, where a rate is asked for: it stays even
_PATIENCE: Final = 1.0  # seconds without a delivery after which the queue counts as read to its end
_TIMEOUT: Final = 10.0  # seconds for one publish, and for the last settles


def check_arguments(*, limit: object = 1, progress: object = None, cancel: object = None) -> None:
    """Raise Invalid where what a caller gave makes no sense."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit < 2**31:
        raise Invalid(f"limit: expected 1 or more, found {limit!r}")
    if progress is not None and not callable(progress):
        raise Invalid(f"progress: expected a function, found {progress!r}")
    if cancel is not None and not isinstance(cancel, threading.Event):
        raise Invalid(f"cancel: expected a threading.Event, found {cancel!r}")


class Pace:
    """How many messages are taken at a time, and how long to wait after them.

    Args:
        rate: messages per second at most; None: as fast as it goes.
        stop: ends the waiting, and the walk, when it is set.

    Raises:
        Invalid: ``rate`` is not above 0.
    """

    def __init__(self, rate: float | None = None, stop: threading.Event | None = None) -> None:
        number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
        if rate is not None and not (number and 0 < rate < math.inf):
            raise Invalid(f"rate: expected messages per second, above 0, found {rate!r}")
        self.stop = stop or threading.Event()
        self.batch = _BATCH if rate is None else max(1, min(_BATCH, int(rate / _STEPS)))
        self._rate = rate
        self._next = 0.0  # monotonic; when the next batch may go

    def wait(self, count: int) -> None:
        """Wait after ``count`` messages, as long as the rate asks for."""
        if self._rate is not None:
            now = time.monotonic()
            self._next = max(self._next, now) + count / self._rate
            self.stop.wait(self._next - now)


def walk(
    route: Route,
    act: Callable[[Subscription, Sequence[Delivery]], None],
    *,
    pace: Pace,
    window: int,
    limit: int | None,
) -> None:
    """Take every message once and act on it; what ``act`` has not claimed goes back at the end, in order.

    Args:
        route: the queue.
        act: called with each batch, on this thread; it may claim deliveries and settle them.
        pace: how many at a time.
        window: how many may be kept until the end; with more than that it ends early.
        limit: how many to take at most; None: until none comes any more.
    """
    if limit == 0:
        return
    subscription = route.driver.subscribe(route.queue, window + pace.batch)
    kept: list[Delivery] = []
    try:
        for deliveries in _batches(subscription, pace, limit):
            try:
                act(subscription, deliveries)
            finally:
                kept += [delivery for delivery in deliveries if not delivery.claimed]
            if len(kept) >= window:
                return
    finally:
        subscription.settle([Settlement(delivery, "release") for delivery in kept if delivery.claim()])
        subscription.close(_TIMEOUT)


def _batches(subscription: Subscription, pace: Pace, limit: int | None) -> Iterator[Sequence[Delivery]]:
    seen = 0
    while not pace.stop.is_set() and (limit is None or seen < limit):
        deliveries = subscription.receive(pace.batch if limit is None else min(pace.batch, limit - seen), _PATIENCE)
        if not deliveries:
            return
        seen += len(deliveries)
        yield deliveries


def store(target: Route, messages: Sequence[Message]) -> list[WippyQueueError | None]:
    """Publish the messages and return, for each, None or why the target has not got it.

    One that the target can never take (too long, an option that it cannot honour) keeps no other back.
    """
    try:
        target.driver.publish(target.queue, messages, _TIMEOUT)
        return [None] * len(messages)
    except WippyQueueError as error:
        accepted = Counter(error.details.get("accepted", ()))
        left = [None if _take(accepted, message.id) else error for message in messages]
        together = len(messages) > 1 and (error.kind is Kind.INVALID or error.retryable is False)
        return _store_singly(target, messages, left) if together else left


def _store_singly(
    target: Route, messages: Sequence[Message], left: Sequence[WippyQueueError | None]
) -> list[WippyQueueError | None]:
    """Try each that is left on its own, until one fails for a reason that is not its own."""
    failures: list[WippyQueueError | None] = []
    hopeless: WippyQueueError | None = None
    for message, error in zip(messages, left, strict=True):
        failure = None if error is None else hopeless or store(target, [message])[0]
        if failure is not None and failure.kind is not Kind.INVALID:
            hopeless = failure
        failures.append(failure)
    return failures


def _take(counts: Counter[str], key: str) -> bool:
    counts[key] -= 1
    return counts[key] >= 0
