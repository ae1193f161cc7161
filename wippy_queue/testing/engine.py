"""An engine for the tests of an application: in memory, and its time passes only when the test says so."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import cast

import attrs

from wippy_queue import entries
from wippy_queue.drivers.memory.options import MemoryQueueOptions
from wippy_queue.engine import Engine
from wippy_queue.errors import Invalid, Timeout, Unavailable, WippyQueueError
from wippy_queue.ids import EntryId
from wippy_queue.queues import Queue, QueueInfo
from wippy_queue.testing.clock import ManualClock
from wippy_queue.testing.watch import Watch, WatchedDriver, WatchedHandler


class MemoryEngine(Engine):
    """An `Engine` whose queues are all in memory, whatever their drivers are; everything else is the real thing.

    The application is checked against its own drivers first, and what those cannot do (a priority, a delay) is refused
    here too. Delays, times to live and retries follow ``clock``, which only `advance` and `drain` move.
    """

    def __init__(self, application: entries.Application) -> None:
        self.clock = ManualClock()
        self._watch = Watch()
        super().__init__(_in_memory(application, self.clock, self._watch))
        self._wiring.publisher.clock = self.clock
        for consumer in self._wiring.consumers.values():
            make = partial(WatchedHandler, consumer.spec.make_handler, self._watch)
            consumer.spec = attrs.evolve(consumer.spec, make_handler=make)

    def advance(self, seconds: float) -> None:
        """Let time pass: what is due then becomes ready, what has expired is dropped. It does not wait for handlers."""
        self.clock.move(seconds)
        for driver in self._wiring.drivers.values():
            cast(WatchedDriver, driver).advance()

    def drain(self, *, timeout: float = 10.0, allow_errors: bool = False) -> list[WippyQueueError]:
        """Let the consumers handle everything, delayed messages and retries too, and return when nothing is left.

        Where only delayed messages are left the clock jumps to the next of them. Queues that no running consumer reads
        (a dead-letter queue, as a rule) are left alone.

        Args:
            timeout: real seconds; a handler that fails for ever is found by it.
            allow_errors: False: the first error of a handler is raised here, in the test's thread, at once. True: go
                on, with retries and dead letters as in production.

        Returns:
            The errors that handlers ended with, in order, since the last `drain`.

        Raises:
            WippyQueueError: what a handler raised or returned; notes tell the consumer, the message and the trace.
            Timeout: there was still something at the deadline.
            Unavailable: messages wait, and no consumer runs.
            Invalid: a handler calls it.
        """
        if self._in_handler():
            raise Invalid("drain() inside a handler would wait for the handler's own message; call it from the test")
        deadline = time.monotonic() + timeout
        while True:
            seen = self._watch.count
            if self._watch.has_errors() and not allow_errors:
                raise _first(self._watch.take_errors())
            busy, delayed = self._look()
            if self._watch.count != seen:
                pass  # a handler may have published to a queue that was looked at before
            elif busy:
                self._watch.wait(seen, max(0.0, deadline - time.monotonic()))
            elif delayed:
                self._jump(delayed)
            else:
                return self._watch.take_errors()
            if time.monotonic() >= deadline:
                raise self._not_drained(timeout)

    def _look(self) -> tuple[bool, list[Queue]]:
        """Return whether a handler has or will have something to do now, and the queues where something is delayed."""
        busy = self._watch.running > 0
        delayed = []
        infos = [(route.queue, route.driver.info(route.queue)) for route in self._wiring.routes.values()]
        for queue, info in infos:
            if info.consumer_count:
                busy = busy or bool(info.ready or info.in_flight)
                if info.delayed:
                    delayed.append(queue)
        if not any(info.consumer_count for _, info in infos) and any(info.message_count for _, info in infos):
            raise Unavailable("messages wait and no consumer runs; start the engine, or a consumer with start_service")
        return busy, delayed

    def _jump(self, queues: list[Queue]) -> None:
        drivers = self._wiring.drivers
        due = min(cast(WatchedDriver, drivers[queue.driver]).next_due(queue) for queue in queues)
        if due < math.inf:
            self.advance(max(0.0, due - self.clock.monotonic()))

    def _not_drained(self, timeout: float) -> Timeout:
        left: dict[EntryId, QueueInfo] = {}
        for queue_id, route in self._wiring.routes.items():
            info = route.driver.info(route.queue)
            if info.message_count and info.consumer_count:
                left[queue_id] = info
        told = "; ".join(f"{queue_id}: {info}" for queue_id, info in left.items())
        errors = self._watch.take_errors()
        error = Timeout(
            f"not drained after {timeout:g} s; {self._watch.running} handlers run; {told or 'queues are empty'}"
        )
        if errors:
            error.add_note(f"{len(errors)} errors of handlers, the last: {errors[-1]}")
            error.add_note("a handler that always fails is retried for ever without dead_letter or retry.max_attempts")
        return error


def _first(errors: list[WippyQueueError]) -> WippyQueueError:
    if len(errors) > 1:
        errors[0].add_note(f"and {len(errors) - 1} more errors of handlers, the last: {errors[-1]}")
    return errors[0]


def _in_memory(application: entries.Application, clock: ManualClock, watch: Watch) -> entries.Application:
    """Return the application with every driver replaced, whose capabilities stay what they are."""
    replaced: dict[EntryId, entries.Entry] = {}
    for entry_id, entry in application.entries.items():
        replaced[entry_id] = entry
        if isinstance(entry, entries.DriverEntry):
            kind = attrs.evolve(entry.kind, create=lambda driver_id, _: WatchedDriver(driver_id, clock, watch))
            replaced[entry_id] = attrs.evolve(entry, kind=kind)
        elif isinstance(entry, entries.QueueEntry):
            replaced[entry_id] = attrs.evolve(entry, options=_memory_options(entry.options))
    return attrs.evolve(application, entries=replaced)


def _memory_options(options: object) -> MemoryQueueOptions:
    """Return those of a driver's queue options that memory has too, under the same names."""
    names = [field.name for field in attrs.fields(MemoryQueueOptions)]
    given = {name: getattr(options, name) for name in names if getattr(options, name, None) is not None}
    if given.get("overflow") not in ("block", "reject", "drop_oldest"):
        given.pop("overflow", None)
    return MemoryQueueOptions(**given)
