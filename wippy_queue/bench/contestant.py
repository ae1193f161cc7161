"""CONTRACT of a contestant: an engine that the benchmark can measure, ``--against package.module:factory``.

A run, in a process of its own: ``factory(task)``, `publish` of the whole backlog, `start`, `wait`; then, on the empty
queue, `pace` at a fixed rate and `wait` again; at last `stop`.
"""

from __future__ import annotations

import abc
import importlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import attrs

from wippy_queue.bench.workloads import Body, Workload
from wippy_queue.errors import Invalid

OURS: Final = "wippy_queue"
BUILT_IN: Final = {  # beside this engine, with the drivers that they run on
    "asyncio": ("memory",),
    "asyncio-threads": ("memory",),
    "baseline": ("memory",),
    "client": ("sqlite", "amqp", "redis", "sqs"),
}
_FACTORIES: Final = {
    OURS: "wippy_queue.bench.threads:ThreadEngine",
    "asyncio": "wippy_queue.bench.asyncio_contestant:on_the_loop",
    "asyncio-threads": "wippy_queue.bench.asyncio_contestant:in_threads",
    "baseline": "wippy_queue.bench.baseline:Baseline",
    "client": "wippy_queue.bench.client_contestant:ClientContestant",
}
_TIMER_SLACK: Final = 2_000_000  # nanoseconds; event loops round up to milliseconds


@attrs.frozen(kw_only=True)
class Task:
    """What a contestant is to run.

    Args:
        workload: its name tells what a handler does, for those who cannot run Lua.
        source: the Lua text of the handler. It requires ``bench``, ``queue`` and ``time``.
        started: what a handler calls, before anything else, with the ``mark`` of its body where it has one; in Lua it
            is ``require("bench").started``. Any thread.
        driver: where the messages are: memory, sqlite, amqp, redis or sqs.
        url: of the driver's backend; None: its default.
        concurrency: how many messages may be handled at the same time.
        prefetch: how many may wait in the process for a worker.
    """

    workload: Workload
    source: str
    started: Callable[[int], None]
    driver: str = "memory"
    url: str | None = None
    concurrency: int
    prefetch: int


class Contestant(abc.ABC):
    """An engine under measurement; a factory makes it of a `Task`, ready to be published to.

    Thread safety: the benchmark calls every method from one thread.
    """

    @abc.abstractmethod
    def publish(self, bodies: Sequence[Body]) -> None:
        """Publish, in order; returning means that the messages are stored. Comes before ``start`` and after it."""

    @abc.abstractmethod
    def start(self) -> None:
        """Begin to handle messages; return when every worker is ready."""

    @abc.abstractmethod
    def wait(self, handled: int, timeout: float) -> None:
        """Return when ``handled`` messages since the beginning, all that were published, are handled and settled.

        Raises:
            Timeout: they are not, after ``timeout`` seconds.
        """

    @abc.abstractmethod
    def stop(self) -> None:
        """Stop, and remove what is left in the backend."""

    def pace(self, bodies: Iterable[Body], rate: float) -> None:
        """Publish one body after the other at ``rate`` per second, each of them with its `mark` set just before.

        Override it where publishing from this thread is not the best that the engine can do.
        """
        for due, body in schedule(bodies, rate):
            ahead = (due - time.monotonic_ns()) / 1e9
            if ahead > 0:
                time.sleep(ahead)
            body["mark"] = mark(due)
            self.publish([body])


def schedule(bodies: Iterable[Body], rate: float) -> Iterator[tuple[int, Body]]:
    """Yield each body with the time when it is due, in nanoseconds of the monotonic clock."""
    begun = time.monotonic_ns()
    for number, body in enumerate(bodies):
        yield begun + round(number / rate * 1e9), body


def mark(due: int) -> int:
    """Return the time from which a latency counts: now, or when it was due where the publisher is late.

    An engine that keeps the publisher from its work, because its loop is busy, must not look fast for that. What a
    timer is late by on an idle machine does not count.
    """
    now = time.monotonic_ns()
    return due if now - due > _TIMER_SLACK else now


def find(name: str, driver: str) -> Callable[[Task], Contestant]:
    """Return the factory of a contestant.

    Args:
        name: one of the built-in ones, or ``package.module:factory``.
        driver: what it is to run on.

    Raises:
        Invalid: there is no such thing, or it does not run on that driver; the message says what there is.
    """
    module_name, colon, attribute = _FACTORIES.get(name, name).partition(":")
    if not colon:
        known = ", ".join(BUILT_IN)
        raise Invalid(f"no contestant {name!r}: expected one of {known}, or package.module:factory")
    if driver not in BUILT_IN.get(name, (driver,)):
        fit = ", ".join(other for other, drivers in BUILT_IN.items() if driver in drivers)
        raise Invalid(
            f"contestant {name!r} runs on --driver {', '.join(BUILT_IN[name])}, not on {driver}:"
            f" expected one of {fit}, or package.module:factory"
        )
    try:
        found: Any = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:
        raise Invalid(f"contestant {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise Invalid(f"contestant {name!r} is not callable: expected a function of a Task that gives a Contestant")
    return found  # type: ignore[no-any-return]
