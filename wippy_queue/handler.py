"""CONTRACT of a handler: what a consumer runs for each message, and what comes out of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import attrs

from wippy_queue.access import SecurityContext
from wippy_queue.delivery import Delivery
from wippy_queue.errors import WippyQueueError
from wippy_queue.ids import EntryId


@attrs.frozen(kw_only=True)
class Outcome:
    """What a handler gave back for one message."""

    error: WippyQueueError | None = None  # None: ack
    trace: str = ""  # of the handler, for the log
    undecodable: bool = False  # the body is no message of this codec: no retry can help
    by_hand: bool = False  # asked for from inside the handler; when it comes too late, nothing has failed
    canceled: bool = False  # one of our modules told the handler Canceled: a nack is a release then, not an attempt

    @property
    def ok(self) -> bool:
        return self.error is None


ACK: Final = Outcome()


@attrs.define(kw_only=True, eq=False)
class WorkerContext:
    """What a worker tells its session once, before the first message."""

    consumer: EntryId | None  # None: a call from Python, outside any consumer
    queue: EntryId | None
    worker: int  # 0-based
    settle: Callable[[Delivery, Outcome], bool]  # by hand, from inside the handler; False: settled already
    cancel: threading.Event  # set when the consumer stops: what blocks in our modules ends with Canceled
    # The message in that place, counted from 1, takes its time: those before it are done, those behind it are for
    # others. Called on the worker's thread, from inside `Session.handle`.
    part: Callable[[int], None] = lambda place: None
    # What runs now takes its time, and it is not known yet which message that is. Called from any thread.
    late: Callable[[], None] = lambda: None
    auto_ack: bool = False  # settled before the handler starts; by hand is Invalid then
    security: SecurityContext | None = None  # what the handler acts with
    over: bool = False  # past the deadline of the consumer's stop: no handler starts any more


class Session(Protocol):
    """One worker's handler, with the runtime that it owns for life. All methods but ``kill`` on the worker's thread."""

    def handle(self, deliveries: Sequence[Delivery], *, alone: bool = False) -> Sequence[Outcome]:
        """Run the handler for the first ones, one at least, and return their outcomes; the others were not begun.

        Never raises for what the handler does.

        Args:
            deliveries: one, or several while the handler is fast.
            alone: it is one, and nothing waits for it: ``WorkerContext.late`` need not be called.
        """

    def kill(self) -> None:
        """End the handler that runs now, from any thread, as soon as it can be ended; harmless when none runs."""

    def renew(self) -> None:
        """Called between two hands: the time for what takes time before the next handler can run."""

    def close(self) -> None: ...


class Handler(Protocol):
    """What a consumer's ``func`` names; any thread may open sessions."""

    def open(self, context: WorkerContext) -> Session:
        """Make a session. Raises WippyQueueError when the handler cannot run at all (it does not compile)."""
