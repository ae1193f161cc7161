"""Small things that many tests need."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.driver import Sink
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import Queue

DEADLINE = 20.0  # seconds; what should happen at once has happened by then, on the slowest machine


def message(message_id: str = "m-1", body: bytes = b'{"n":1}', **fields: Any) -> Message:
    return Message(id=message_id, body=body, timestamp=fields.pop("timestamp", time.time()), **fields)


def queue(name: str = "tasks", **fields: Any) -> Queue:
    return Queue(id=EntryId(f"app:{name}"), name=name, driver=EntryId("app:memory"), **fields)


class Receiving:
    """A thread that receives with a sink; what the sink has been given, and by which thread.

    Args:
        receive: called once in that thread, with the sink.
        takes: whether the sink does.
    """

    def __init__(self, receive: Callable[[Sink], object], takes: bool = True) -> None:
        self.given: list[tuple[str, int]] = []
        self._receive, self._takes = receive, takes
        self._result: Any = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._result = self._receive(self._sink)

    def _sink(self, deliveries: Sequence[Delivery]) -> bool:
        if self._takes:
            self.given += [(delivery.message.id, threading.get_ident()) for delivery in deliveries]
        return self._takes

    def result(self) -> Any:
        """Return what ``receive`` has returned, once it has."""
        self._thread.join(DEADLINE)
        assert self._result is not None
        return self._result


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until the condition holds; for states that nothing can be told to signal."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not in {DEADLINE:g} seconds: {what}"
        time.sleep(0.002)


class FakeSubscription:
    """Writes down what is settled."""

    def __init__(self) -> None:
        self.settled: list[Settlement] = []

    def receive(self, limit: int, timeout: float) -> list[Delivery]:
        return []

    def begin(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        return deliveries

    def retract(self, deliveries: Sequence[Delivery]) -> None: ...

    def settle(self, settlements: Sequence[Settlement]) -> None:
        self.settled.extend(settlements)
        for settlement in settlements:
            settlement.finish()

    def cancel(self) -> list[Delivery]:
        return []

    def close(self, timeout: float) -> None: ...
