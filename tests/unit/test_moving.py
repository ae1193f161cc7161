"""Moving messages from queue to queue: what stays the same, what cannot be moved, and that nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import attrs
import msgspec
import pytest

from tests.support import eventually, message
from wippy_queue.driver import Capabilities
from wippy_queue.drivers.memory.driver import MemoryDriver
from wippy_queue.drivers.memory.options import MemoryQueueOptions
from wippy_queue.errors import Invalid, Unavailable
from wippy_queue.flow.burial import Route
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.moving import MoveReport, move
from wippy_queue.queues import Queue

pytestmark = pytest.mark.usefixtures("impatient")

FROM, TO = EntryId("app:from"), EntryId("app:to")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wippy_queue.flow.walk._PATIENCE", 0.01)


class Breaking(MemoryDriver):
    """Takes so many messages, then is away."""

    def __init__(self, driver_id: EntryId, takes: int) -> None:
        super().__init__(driver_id)
        self._takes = takes

    def publish(self, queue: Queue, messages: Sequence[Message], timeout: float) -> None:
        accepted = messages[: self._takes]
        self._takes -= len(accepted)
        super().publish(queue, accepted, timeout)
        if len(accepted) < len(messages):
            raise Unavailable("away", details={"accepted": [one.id for one in accepted]})


@attrs.define
class Pair:
    """Two queues on two drivers."""

    source: Route
    target: Route
    capabilities: dict[EntryId, Capabilities]

    def move(self, **options: Any) -> MoveReport:
        return move(self.source, self.target, self.capabilities, **options)

    def fill(self, *messages: Message) -> None:
        self.source.driver.publish(self.source.queue, messages, 1.0)

    def left(self) -> list[str]:
        return [one.id for one in self.source.driver.peek(self.source.queue, 1000)]

    def moved(self) -> list[Message]:
        return self.target.driver.peek(self.target.queue, 1000)


def pair(target: MemoryDriver | None = None, *, able: Capabilities | None = None, **fields: Any) -> Pair:
    routes = []
    for driver, options in ((MemoryDriver(FROM), {}), (target or MemoryDriver(TO), fields)):
        queue = Queue(id=EntryId(f"{driver.id}_tasks"), name="tasks", driver=driver.id, **options)
        driver.declare(queue)
        driver.start()
        routes.append(Route(queue, driver))
    source, other = routes
    return Pair(source, other, {FROM: Capabilities(), TO: able or Capabilities()})


def test_everything_about_a_message_stays_the_same() -> None:
    queues = pair()
    original = message("m-1", headers={"color": "red"}, attempts=3, priority=7, expires_at=9e9, timestamp=1e9)
    queues.fill(original, message("m-2"))
    assert queues.move() == MoveReport(moved=2, left=0)
    assert msgspec.structs.replace(queues.moved()[0], edition="") == original
    assert queues.left() == []


def test_a_message_that_was_delayed_is_not_delayed_again() -> None:
    queues = pair()
    queues.fill(message("m-1", delay=0.01))
    eventually(lambda: queues.source.driver.info(queues.source.queue).ready, "it is due")
    queues.move()
    assert [(one.id, one.delay) for one in queues.moved()] == [("m-1", 0.0)]


def test_delayed_messages_stay_and_are_counted() -> None:
    queues = pair()
    queues.fill(message("m-1", delay=3600), message("m-2"))
    assert queues.move() == MoveReport(moved=1, left=1)


def test_a_body_is_encoded_anew_where_the_codecs_differ() -> None:
    queues = pair(encoding="msgpack")
    queues.fill(message("m-1", b'{"n":[1,2.5,null]}'), message("m-2", b"\x00\xff", encoding="binary"))
    assert queues.move().moved == 2
    first, second = queues.moved()
    assert (first.encoding, msgspec.msgpack.decode(first.body)) == ("msgpack", {"n": [1, 2.5, None]})
    assert (second.encoding, second.body) == ("binary", b"\x00\xff")


def test_a_body_that_has_no_form_in_the_other_codec_stays_and_is_reported() -> None:
    queues = pair()
    queues.fill(
        message("fits", msgspec.msgpack.encode({"n": 1}), encoding="msgpack"),
        message("bytes", msgspec.msgpack.encode({"n": b"\xff"}), encoding="msgpack"),
        message("broken", b"\xc1", encoding="msgpack"),
    )
    report = queues.move()
    assert (report.moved, set(report.failed), report.left) == (1, {"bytes", "broken"}, 2)
    assert "msgpack" in report.failed["bytes"]
    assert queues.left() == ["bytes", "broken"]


def test_what_the_target_cannot_honour_stays_unless_it_may_be_lost() -> None:
    queues = pair(able=Capabilities(priority=False, ttl=False))
    queues.fill(message("plain"), message("urgent", priority=9), message("mortal", expires_at=9e9))
    report = queues.move()
    assert (report.moved, report.left) == (1, 2)
    assert "app:to cannot honour its priority" in report.failed["urgent"]
    assert "ttl" in report.failed["mortal"]
    assert queues.move(lossy=True) == MoveReport(moved=2, left=0)
    assert {(one.id, one.priority, one.expires_at) for one in queues.moved()} == {
        ("plain", 0, None),
        ("urgent", 0, None),
        ("mortal", 0, None),
    }


def test_a_priority_that_only_the_driver_knows_it_cannot_honour_may_be_lost_too() -> None:
    class WithoutPriorities(MemoryDriver):
        def publish(self, queue: Queue, messages: Sequence[Message], timeout: float) -> None:
            if any(one.priority for one in messages):
                raise Invalid("priority: not on this queue")
            super().publish(queue, messages, timeout)

    queues = pair(WithoutPriorities(TO))
    queues.fill(message("urgent", priority=9), message("plain"))
    report = queues.move()
    assert (report.moved, dict(report.failed)) == (1, {"urgent": "priority: not on this queue"})
    assert queues.move(lossy=True).moved == 1
    assert [one.priority for one in queues.moved()] == [0, 0]


def test_a_target_that_breaks_ends_the_move_and_the_next_one_goes_on() -> None:
    queues = pair(Breaking(TO, takes=3))
    queues.fill(*(message(f"m-{number}") for number in range(5)))
    with pytest.raises(Unavailable) as failure:
        queues.move()
    assert failure.value.details["moved"] == 3
    assert queues.left() == ["m-3", "m-4"]
    queues.target = Route(queues.target.queue, pair().target.driver)
    assert queues.move() == MoveReport(moved=2, left=0)


def test_a_full_target_takes_what_fits() -> None:
    queues = pair(options=MemoryQueueOptions(max_length=2, overflow="reject"))
    queues.fill(*(message(f"m-{number}") for number in range(4)))
    with pytest.raises(Unavailable, match="full"):
        queues.move(rate=50)
    assert len(queues.left()) == 2


def test_a_limit_a_rate_and_the_progress() -> None:
    queues = pair()
    queues.fill(*(message(f"m-{number}") for number in range(5)))
    seen: list[int] = []
    assert queues.move(limit=3, rate=50, progress=seen.append) == MoveReport(moved=3, left=2)
    assert seen == [1, 2, 3]
    assert queues.left() == ["m-3", "m-4"]


def test_it_can_be_ended_early() -> None:
    queues = pair()
    queues.fill(message("m-1"), message("m-2"))
    cancel = threading.Event()
    assert queues.move(rate=1, cancel=cancel, progress=lambda _: cancel.set()) == MoveReport(moved=1, left=1)


def test_a_move_to_itself_is_refused() -> None:
    queues = pair()
    with pytest.raises(Invalid, match="the same queue"):
        move(queues.source, queues.source, queues.capabilities)


@pytest.mark.parametrize(
    "options",
    [
        {"limit": 0},
        {"limit": 1.5},
        {"rate": 0},
        {"rate": float("inf")},
        {"rate": float("nan")},
        {"rate": "fast"},
        {"progress": 5},
        {"cancel": 5},
    ],
)
def test_an_argument_that_makes_no_sense_is_refused_before_anything_moves(options: dict[str, Any]) -> None:
    queues = pair()
    queues.fill(message("m-1"))
    with pytest.raises(Invalid):
        queues.move(**options)
    assert queues.left() == ["m-1"]


def test_one_that_could_not_be_removed_is_told_of() -> None:
    queues = pair()
    queues.fill(message("m-1"))
    driver = queues.source.driver
    subscribe = driver.subscribe

    def lossy_subscribe(queue: Queue, window: int) -> Any:
        subscription = subscribe(queue, window)
        settle = subscription.settle

        def lose(settlements: Sequence[Any]) -> None:
            if any(one.action == "ack" for one in settlements):
                subscription.close(5.0)  # a lost connection: everything goes back
            settle(settlements)

        subscription.settle = lose  # type: ignore[method-assign]
        return subscription

    driver.subscribe = lossy_subscribe  # type: ignore[method-assign, assignment]
    report = queues.move()
    assert "still in app:from_tasks" in report.failed["m-1"]
    assert queues.left() == [one.id for one in queues.moved()] == ["m-1"]
