"""CONTRACT of a driver: the backend that holds the messages.

A driver is batch-shaped, for settling one message at a time is the bottleneck on every backend that was measured.
`drivers/memory/` is the one to read first; `wippy_queue.testing` has the conformance suite that every driver passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, runtime_checkable

import attrs

from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.errors import Problem, Unavailable
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import Queue, QueueInfo

GRACE: Final = 0.5  # seconds that a stop gives a backend for the last words, also when its deadline has come


def not_running(driver_id: EntryId) -> Unavailable:
    """Return what a driver says that is asked for something before its start, or after its stop."""
    return Unavailable(
        f"driver {driver_id} is not running; start the engine before you use its queues, and where nothing that starts"
        " needs the driver, give it `lifecycle: auto_start: true`"
    )


@attrs.frozen(kw_only=True)
class Capabilities:
    """What a driver can do; the loader, the publisher, the conformance suite and the docs read it."""

    durable: bool = False  # messages outlive the process
    shared: bool = False  # several processes see the same queues
    delay: bool = True
    ttl: bool = True
    priority: bool = True
    exact_attempts: bool = True  # counts what has begun, neither more nor less, crashes included
    release_at_head: bool = True
    idempotent_publish: bool = False  # a repeated message id is a no-op
    ordered: bool = True
    exact_counts: bool = True  # info() tells what is there now, wherever; what is ready can be received
    leases: bool = False


class Driver(Protocol):
    """Every method may be called from any thread."""

    def start(self) -> None:
        """Get ready; idempotent. Raises Unavailable (retryable) when the backend cannot be reached."""

    def stop(self, timeout: float) -> None:
        """Let go of everything within ``timeout`` seconds; idempotent. Publishers that wait get Unavailable.

        Subscriptions that are still open are closed, all of them in that time.
        """

    def declare(self, queue: Queue) -> None:
        """Create the queue or check that it fits; idempotent. Raises Conflict where it does not fit."""

    def verify(self, queues: Sequence[Queue]) -> list[Problem]:
        """Return what stands against these queues at the backend, each with its queue as ``entry``; create nothing.

        The driver need not run. Raises what ``start`` would where the backend itself cannot be used.
        """

    def publish(self, queue: Queue, messages: Sequence[Message], timeout: float) -> None:
        """Store all the messages, in order; returning means that the backend has them.

        Raises QueueFull or Timeout after ``timeout`` seconds, Unavailable when the backend is away. On a partial
        failure ``details["accepted"]`` of the error lists the ids that are in.
        """

    def subscribe(self, queue: Queue, window: int, options: object = None) -> Subscription:
        """Begin to consume, with at most ``window`` deliveries unsettled, settles not yet flushed included.

        ``options`` is an instance of the kind's ``consumer_options``, or None: as if none was given.
        """

    def info(self, queue: Queue) -> QueueInfo: ...

    def peek(self, queue: Queue, limit: int) -> list[Message]:
        """Return up to ``limit`` waiting messages, next first, and leave them where they are."""

    def purge(self, queue: Queue) -> int:
        """Drop everything that waits, ready or delayed; return how many."""

    def wait_idle(self, queue: Queue, timeout: float) -> bool:
        """Return True as soon as nothing is ready, delayed or in flight, False after ``timeout`` seconds."""


class Subscription(Protocol):
    """One consumer's share of a queue."""

    def receive(self, limit: int, timeout: float) -> list[Delivery]:
        """Wait up to ``timeout`` seconds for messages; one thread at a time. Raises Unavailable when deaf for good."""

    def begin(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Handlers are about to start. Return those that may: of the others the lease or the connection is gone.

        Any thread, cheap.
        """

    def retract(self, deliveries: Sequence[Delivery]) -> None:
        """Handlers of these, which `begin` has let begin, have not started after all. Any thread, cheap."""

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Accept settlements of claimed deliveries for sending; any thread, coalesced, never blocks on the backend."""

    def cancel(self) -> list[Delivery]:
        """No more deliveries: wakes ``receive``; what was on its way comes back, to be released. Idempotent.

        Waits a moment at most: what the backend has not brought by then goes back with ``close``.
        """

    def close(self, timeout: float) -> None:
        """Flush what is left to settle, for up to ``timeout`` seconds; what was never settled goes back. Idempotent.

        Every settlement has been told when it returns, with an error where the backend had not confirmed it by then.
        """


Sink = Callable[[Sequence[Delivery]], bool]


@runtime_checkable
class DirectSubscription(Protocol):
    """A subscription whose messages come from threads of this process; they can hand them over themselves."""

    def receive_into(self, sink: Sink, limit: int, timeout: float) -> list[Delivery]:
        """Receive; but while it waits, give what comes to ``sink``, in the thread that brings it, ``limit`` at most.

        Returns what was there at once, and nothing when ``sink`` has got so many or would not take more, which it says
        by False. One more change of threads for each message is what `receive` costs beside this.
        """


@attrs.frozen(kw_only=True)
class DriverKind:
    """How an entry of a driver kind becomes a driver."""

    kind: str  # "queue.driver.memory"
    config: type[Any]  # attrs class of the entry's own fields
    queue_options: type[Any]  # attrs class
    consumer_options: type[Any]  # attrs class
    capabilities: Capabilities
    create: Callable[[EntryId, Any], Driver]  # (driver id, an instance of config)

    @property
    def short_name(self) -> str:
        """The key under ``driver_options``: memory, sqlite, amqp, redis, sqs."""
        return self.kind.rpartition(".")[2]
