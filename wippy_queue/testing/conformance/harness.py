"""What a driver's author fills in, and the words that the tests are written with."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import attrs
import pytest

from wippy_queue.delivery import Action, Delivery, Settlement
from wippy_queue.driver import Driver, DriverKind, Subscription
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import DropReason, Queue

_T = TypeVar("_T")


class Harness:
    """Base of the suite.

    Fixtures of the subclass work as in any pytest class; an autouse one may keep ``tmp_path`` or an url on ``self``.
    """

    kind: ClassVar[DriverKind]  # the driver's; its capabilities choose the tests
    patience: ClassVar[float] = 10.0  # seconds until the driver must have done what was asked for
    moment: ClassVar[float] = 0.1  # seconds after which the suite believes that nothing will happen
    delay: ClassVar[float] = 0.3  # seconds, the shortest delay or time to live that the driver keeps well
    early: ClassVar[float] = 0.02  # seconds by which a delay may end too soon: a driver rounds
    largest_body: ClassVar[int] = 2**20  # bytes, for backends that take less than that
    lease: ClassVar[float] = 2.0  # seconds, of make_driver's drivers in the tests of `Crashing`; elsewhere at least

    def make_driver(self) -> Driver:
        """Return a new driver on the same backend, not started; every call of one test shares its queues."""
        raise NotImplementedError

    def crash(self, driver: Driver) -> None:
        """Make a driver vanish as a killed process does: nothing is settled, no lease is extended any more."""
        pytest.skip(f"{type(self).__name__} does not say how to crash")

    def lose_lease(self, driver: Driver, subscription: Subscription) -> None:
        """Make a subscription lose what it holds while its driver goes on; returns when the driver knows."""
        pytest.skip(f"{type(self).__name__} does not say how to lose a lease")

    def restart(self, driver: Driver) -> Driver:
        """Stop a driver and return one that runs and has its messages: another object where they are durable."""
        driver.stop(self.patience)
        if self.kind.capabilities.durable:
            return self.started()
        driver.start()
        return driver

    def queue(
        self,
        name: str = "tasks",
        *,
        on_drop: Callable[[Sequence[Message], DropReason], None] | None = None,
        **options: Any,
    ) -> Queue:
        """Return a queue that no other test uses; the test is skipped where the driver has no such options."""
        known = {field.name for field in attrs.fields(self.kind.queue_options)}
        for option in options:
            if option not in known:
                pytest.skip(f"{self.kind.kind} has no queue option {option}")
        return Queue(
            id=EntryId(f"test:{name}"),
            name=f"{name}-{uuid.uuid4().hex[:12]}",
            driver=EntryId("test:driver"),
            options=self.kind.queue_options(**options),
            on_drop=on_drop,
        )

    # fixtures

    _drivers: list[Driver] | None = None

    @pytest.fixture
    def driver(self) -> Iterator[Driver]:
        """A driver that runs; it and those of `started` are stopped when the test ends."""
        yield self.started()
        self.stop_all()

    def started(self) -> Driver:
        driver = self.make_driver()
        self._drivers = [*(self._drivers or []), driver]
        driver.start()
        return driver

    def stop_all(self) -> None:
        drivers, self._drivers = self._drivers or [], None
        for driver in drivers:
            driver.stop(self.patience)

    def need(self, *capabilities: str) -> None:
        """Skip the test unless the driver has the capabilities."""
        for name in capabilities:
            if not getattr(self.kind.capabilities, name):
                pytest.skip(f"{self.kind.kind} has no {name}")

    # words

    def declared(self, driver: Driver, name: str = "tasks", **options: Any) -> Queue:
        queue = self.queue(name, **options)
        driver.declare(queue)
        return queue

    def publish(self, driver: Driver, queue: Queue, *messages: Message | str, **fields: Any) -> None:
        """Publish messages; a text stands for one of that id."""
        driver.publish(
            queue, [message(item, **fields) if isinstance(item, str) else item for item in messages], self.patience
        )

    def receive(self, subscription: Subscription, count: int = 1) -> list[Delivery]:
        """Receive exactly ``count`` deliveries."""
        deadline = time.monotonic() + self.patience
        received: list[Delivery] = []
        while len(received) < count and (left := deadline - time.monotonic()) > 0:
            received += subscription.receive(count - len(received), left)
        assert len(received) == count, f"{len(received)} of {count} came within {self.patience} s: {ids(received)}"
        return received

    def receive_one(self, subscription: Subscription) -> Delivery:
        (delivery,) = self.receive(subscription)
        return delivery

    def receives_nothing(self, subscription: Subscription, within: float | None = None) -> None:
        received = subscription.receive(10, self.moment if within is None else within)
        assert received == [], f"nothing was to come, but {ids(received)} did"

    def settle(
        self,
        subscription: Subscription,
        deliveries: Sequence[Delivery],
        action: Action = "ack",
        *,
        delay: float = 0.0,
        change: Callable[[Message], Message] | None = None,
    ) -> None:
        """Claim and settle the deliveries, and wait until the driver has done it."""
        results = Results(self.patience)
        for delivery in deliveries:
            assert delivery.claim()
        subscription.settle(
            [
                Settlement(
                    delivery,
                    action,
                    (change or _same)(delivery.message) if action == "requeue" else None,
                    delay,
                    results.add,
                )
                for delivery in deliveries
            ]
        )
        assert results.wait(len(deliveries)) == [None] * len(deliveries)

    def drained(self, driver: Driver, queue: Queue, count: int) -> list[Delivery]:
        """Receive all the messages of a queue, of which there are ``count``, and ack them."""
        subscription = driver.subscribe(queue, count + 1)
        deliveries = self.receive(subscription, count)
        self.receives_nothing(subscription)
        self.settle(subscription, deliveries)
        subscription.close(self.patience)
        return deliveries

    def eventually(self, look: Callable[[], _T], expected: _T) -> None:
        """Look until it is as expected, for backends that count a little later than they act."""
        deadline = time.monotonic() + self.patience
        pause = threading.Event()
        while (seen := look()) != expected and time.monotonic() < deadline:
            pause.wait(0.01)
        assert seen == expected

    def background(self, work: Callable[[], object]) -> Background:
        """Run ``work`` on a thread and return once it is there."""
        return Background(work, self.patience)


class Background:
    """A call on a thread of its own."""

    def __init__(self, work: Callable[[], object], patience: float) -> None:
        self._work = work
        self._patience = patience
        self._begun = threading.Event()
        self._value: object = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._begun.wait()

    def _run(self) -> None:
        self._begun.set()
        try:
            self._value = self._work()
        except BaseException as error:  # told in result()
            self._error = error

    def waits(self, moment: float) -> bool:
        """Return whether the call has not come back after ``moment`` seconds."""
        self._thread.join(moment)
        return self._thread.is_alive()

    def result(self) -> Any:
        """Return what the call gave, or raise what it raised."""
        self._thread.join(self._patience)
        assert not self._thread.is_alive(), f"the call has not come back within {self._patience} s"
        if self._error is not None:
            raise self._error
        return self._value


class Results:
    """Collects what is reported from any thread."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._changed = threading.Condition()
        self._items: list[Any] = []

    def add(self, item: Any) -> None:
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def under(self, key: str) -> Callable[[Exception | None], None]:
        """Return a ``done`` that reports ``(key, error)``."""
        return lambda error: self.add((key, error))

    @property
    def items(self) -> list[Any]:
        with self._changed:
            return list(self._items)

    def wait(self, count: int) -> list[Any]:
        """Return what was reported, at least ``count`` of it."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self._items) >= count, self._patience)
            assert came, f"{len(self._items)} of {count} reports came within {self._patience} s"
            return list(self._items)


class Dropped(Results):
    """An ``on_drop`` that remembers ``(id, reason)``."""

    def __call__(self, messages: Sequence[Message], reason: DropReason) -> None:
        for one in messages:
            self.add((one.id, reason))


def message(message_id: str, body: bytes = b'"body"', **fields: Any) -> Message:
    return Message(**{"id": message_id, "body": body, "timestamp": time.time(), **fields})


def numbered(count: int) -> list[str]:
    """Return ``count`` ids in order."""
    return [f"m{number:03}" for number in range(count)]


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.message.id for delivery in deliveries]


def _same(original: Message) -> Message:
    return original
