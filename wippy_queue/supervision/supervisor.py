"""The supervisor: starts services after what they need, stops them before, and restarts those that fail."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Final

import attrs

from wippy_queue.errors import Canceled, Kind, NotFound, StopReport, Unavailable, WippyQueueError
from wippy_queue.events import Event, ServiceStateChanged
from wippy_queue.ids import EntryId
from wippy_queue.lifecycle import Lifecycle, Service
from wippy_queue.suggest import did_you_mean

_log = logging.getLogger(__name__)

_STOP_SLACK: Final = 1.0  # seconds that a stop may overrun its timeout before its service is given up
_CHECK_INTERVAL: Final = 2.0  # seconds between two looks at what runs


class State(StrEnum):
    """Where a service stands; the names are those of the Wippy runtime."""

    UNKNOWN = "Unknown"
    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    EXITED = "Exited"
    FAILED = "Failed"


@attrs.frozen(kw_only=True)
class ServiceStatus:
    """A service as it stands now: ``since`` is in Unix seconds, ``error`` what made it fail last."""

    id: EntryId
    state: State
    since: float
    error: str | None = None
    restarts: int = 0
    wanted: bool = False  # it is to run; nobody has stopped it
    given_up: bool = False  # it has failed and is not started again


@attrs.define(eq=False)
class _Unit:
    """A service and what the supervisor knows of it; guarded by the supervisor's lock."""

    id: EntryId
    service: Service
    lifecycle: Lifecycle
    requires: tuple[EntryId, ...]
    required_by: list[EntryId] = attrs.Factory(list)
    state: State = State.UNKNOWN
    since: float = attrs.Factory(time.time)
    wanted: bool = False
    up: bool = False  # start() has returned and stop() was not called since
    turn: int = 0  # counts starts and stops: what an older one says is not heard
    busy: bool = False  # a thread is inside start() or stop()
    busy_until: float = math.inf  # monotonic; then it has taken too long
    stray: bool = False  # a start that was given up has not come back; there is no second one before
    running_since: float = 0.0  # monotonic
    tried_since: float | None = None  # monotonic; the first try since it was wanted
    due: float = 0.0  # monotonic; not started before
    failures: int = 0
    error: Exception | None = None
    stop_deadline: float | None = None  # monotonic; of the stop that is asked for, None: its own stop_timeout
    report: StopReport = attrs.Factory(StopReport)  # of its last stop


class Supervisor:
    """Starts, watches, restarts and stops services.

    Thread safety: every method may be called from any thread. One thread of its own takes the decisions; each start
    and stop runs on a short-lived thread, so that independent services do not wait for each other.
    """

    def __init__(self, name: str, emit: Callable[[Event], None]) -> None:
        self._name = name
        self._emit = emit
        self._units: dict[EntryId, _Unit] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._next_check = 0.0

    def add(self, service_id: EntryId, service: Service, lifecycle: Lifecycle, requires: Iterable[EntryId]) -> None:
        """Take a service on; everything that it requires is added before it starts."""
        with self._changed:
            unit = _Unit(service_id, service, lifecycle, tuple(requires))
            unit.required_by = [other.id for other in self._units.values() if service_id in other.requires]
            for needed in unit.requires:
                if needed in self._units:
                    self._units[needed].required_by.append(service_id)
            self._units[service_id] = unit

    def statuses(self) -> dict[EntryId, ServiceStatus]:
        with self._changed:
            return {
                unit.id: ServiceStatus(
                    id=unit.id,
                    state=unit.state,
                    since=unit.since,
                    error=None if unit.error is None else str(unit.error),
                    restarts=unit.failures,
                    wanted=unit.wanted,
                    given_up=unit.wanted and unit.state in (State.FAILED, State.EXITED) and unit.due == math.inf,
                )
                for unit in self._units.values()
            }

    def start(self, ids: Iterable[EntryId], wait: bool = True) -> None:
        """Start the services and what they require.

        Args:
            ids: the services.
            wait: return when all are up; else at once, supervision does the rest.

        Raises:
            NotFound: there is no such service.
            Unavailable: one is not up after its ``start_timeout``; what was started is stopped again.
            Canceled: they were stopped meanwhile.
        """
        with self._changed:
            targets = self._closure(ids, lambda unit: unit.requires)
            over = (State.EXITED, State.FAILED)
            fresh = [unit for unit in targets if not unit.wanted or unit.state in over]
            for unit in fresh:
                unit.wanted, unit.tried_since, unit.due, unit.failures, unit.error = True, None, 0.0, 0, None
                if unit.state in over:
                    self._enter(unit, State.STOPPED)
            self._ensure_thread()
            self._changed.notify_all()
            if not wait:
                return
            culprit = self._wait_up(targets)
        if culprit is not None:
            error = _not_up(culprit)
            self.stop([unit.id for unit in fresh], None)
            raise error from culprit.error

    def _wait_up(self, targets: list[_Unit]) -> _Unit | None:
        """Wait until all run and return None, or the one for which there is no hope. Caller holds the lock."""
        while True:
            now = time.monotonic()
            next_look = math.inf
            for unit in targets:
                if not unit.wanted:
                    raise Canceled(f"{unit.id} was stopped while it started")
                if unit.state is State.RUNNING:
                    continue
                hopeless = isinstance(unit.error, WippyQueueError) and unit.error.kind is Kind.INVALID
                if unit.state is State.EXITED or (unit.state is State.FAILED and hopeless):
                    return unit
                if unit.tried_since is not None:
                    overdue = unit.tried_since + unit.lifecycle.start_timeout
                    if now >= overdue:
                        unit.error = unit.error or Unavailable("its start() did not return")
                        return unit
                    next_look = min(next_look, overdue)
            if all(unit.state is State.RUNNING for unit in targets):
                return None
            self._changed.wait(None if next_look == math.inf else next_look - now)

    def stop(self, ids: Iterable[EntryId] | None, timeout: float | None) -> StopReport:
        """Stop the services (None: all) and before them what requires them.

        Args:
            ids: the services.
            timeout: seconds for all of it; None: each may take its own ``stop_timeout``.

        Raises:
            NotFound: there is no such service.
        """
        with self._changed:
            targets = self._closure(list(self._units) if ids is None else ids, lambda unit: unit.required_by)
            now = time.monotonic()
            for unit in targets:
                unit.wanted = False
                unit.report = StopReport()
                unit.stop_deadline = None if timeout is None else now + timeout
                if unit.state is State.STARTING:
                    unit.busy_until = (unit.stop_deadline or now + unit.lifecycle.stop_timeout) + _STOP_SLACK
                    unit.service.cancel_start()
            self._ensure_thread()
            self._changed.notify_all()
            while any(unit.up or unit.busy for unit in targets):
                self._changed.wait()
            for unit in targets:
                if unit.state in (State.FAILED, State.STARTING):
                    self._enter(unit, State.STOPPED)
            return sum((unit.report for unit in targets), StopReport())

    def close(self) -> None:
        """End the supervisor's own thread; everything has been stopped before."""
        with self._changed:
            self._thread = None
            self._changed.notify_all()

    def _closure(self, ids: Iterable[EntryId], neighbours: Callable[[_Unit], Iterable[EntryId]]) -> list[_Unit]:
        found: dict[EntryId, _Unit] = {}
        pending = list(ids)
        while pending:
            service_id = pending.pop()
            unit = self._units.get(service_id)
            if unit is None:
                raise NotFound(f"there is no service {service_id}{did_you_mean(service_id, self._units)}")
            if service_id not in found:
                found[service_id] = unit
                pending.extend(neighbours(unit))
        return list(found.values())

    # the supervisor's thread

    def _ensure_thread(self) -> None:
        """Caller holds the lock."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"{self._name}-supervisor", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            with self._changed:
                if self._thread is not me:
                    return
                try:
                    due = self._look()
                except Exception:
                    _log.exception("the supervisor failed to look at its services")
                    due = time.monotonic() + _CHECK_INTERVAL
                if not any(unit.wanted or unit.up or unit.busy for unit in self._units.values()):
                    self._thread = None  # the next start begins another one
                    return
                if due > time.monotonic():
                    self._changed.wait(None if due == math.inf else due - time.monotonic())

    def _look(self) -> float:
        """Do what is to be done now; return when something may be to be done next. Caller holds the lock."""
        now = time.monotonic()
        next_look = math.inf
        check = now >= self._next_check
        if check:
            self._next_check = now + _CHECK_INTERVAL
        for unit in self._units.values():
            if unit.busy:
                if now >= unit.busy_until:
                    self._give_up(unit)
                    next_look = now  # at once: others may have waited for it
                else:
                    next_look = min(next_look, unit.busy_until)
            elif unit.wanted and not unit.up and unit.state in (State.UNKNOWN, State.STOPPED, State.FAILED):
                if not all(self._units[need].state is State.RUNNING for need in unit.requires):
                    continue
                if unit.stray:
                    self._note_try(unit, now)
                elif now >= unit.due:
                    self._launch_start(unit, now)
                    next_look = min(next_look, unit.busy_until)
                else:
                    next_look = min(next_look, unit.due)
            elif unit.up and (not unit.wanted or unit.state in (State.FAILED, State.EXITED)):
                others = [self._units[other] for other in unit.required_by]
                if unit.wanted or not any(other.up or other.busy for other in others):
                    self._launch_stop(unit, now)
                    next_look = min(next_look, unit.busy_until)
            elif unit.up:
                if check:
                    self._check(unit)
                next_look = min(next_look, self._next_check)
        return next_look

    def _check(self, unit: _Unit) -> None:
        try:
            unit.service.check()
        except Exception as error:
            self._failed(unit, unit.turn, error)

    def _note_try(self, unit: _Unit, now: float) -> None:
        if unit.tried_since is None:
            unit.tried_since = now
            self._changed.notify_all()  # who waits for it knows now until when

    def _launch_start(self, unit: _Unit, now: float) -> None:
        self._note_try(unit, now)
        self._enter(unit, State.STARTING)
        self._launch(unit, now + unit.lifecycle.start_timeout, self._start_unit)

    def _launch_stop(self, unit: _Unit, now: float) -> None:
        timeout = unit.lifecycle.stop_timeout
        if unit.stop_deadline is not None and not unit.wanted:
            timeout = max(0.0, unit.stop_deadline - now)
        if not unit.wanted:
            self._enter(unit, State.STOPPING)
        self._launch(unit, now + timeout + _STOP_SLACK, lambda u, turn: self._stop_unit(u, turn, timeout))

    def _launch(self, unit: _Unit, busy_until: float, work: Callable[[_Unit, int], None]) -> None:
        unit.busy, unit.busy_until = True, busy_until
        unit.turn += 1
        verb = "start" if unit.state is State.STARTING else "stop"
        threading.Thread(target=work, args=(unit, unit.turn), name=f"{unit.id}-{verb}", daemon=True).start()

    def _give_up(self, unit: _Unit) -> None:
        """A start or a stop takes too long. Caller holds the lock."""
        if unit.state is State.STARTING and unit.wanted:
            unit.busy_until = math.inf  # its thread comes back some time; there is no second start before
            unit.error = unit.error or Unavailable(
                f"{unit.id} did not start within {unit.lifecycle.start_timeout:g} s", retryable=True
            )
            unit.service.cancel_start()
        else:
            unit.turn += 1
            unit.busy, unit.up = False, False
            unit.stray = unit.stray or unit.state is State.STARTING
            unit.error = Unavailable(f"{unit.id} did not stop in time and was given up")
            self._enter(unit, State.FAILED)
            self._changed.notify_all()

    # threads of single starts and stops

    def _start_unit(self, unit: _Unit, turn: int) -> None:
        error: Exception | None = None
        try:
            unit.service.start(lambda trouble: self._failed_later(unit, turn, trouble))
        except Exception as trouble:
            error = trouble
        with self._changed:
            late = unit.turn != turn
            if not late:
                self._started(unit, error)
                self._changed.notify_all()
        if late:
            if error is None:
                self._stop_service(unit, 0.0)  # nobody waits for it any more
            with self._changed:
                unit.stray = False
                self._changed.notify_all()

    def _started(self, unit: _Unit, error: Exception | None) -> None:
        """Caller holds the lock."""
        unit.busy, unit.busy_until = False, math.inf
        if error is None:
            unit.up, unit.running_since = True, time.monotonic()
            if unit.state is State.STARTING:
                unit.error = None
                self._enter(unit, State.RUNNING)
        elif unit.wanted:
            self._note_failure(unit, error)
        else:
            self._enter(unit, State.STOPPED)

    def _stop_unit(self, unit: _Unit, turn: int, timeout: float) -> None:
        report = self._stop_service(unit, timeout)
        with self._changed:
            unit.report += report
            if unit.turn == turn:
                unit.busy, unit.busy_until, unit.up = False, math.inf, False
                if unit.state is State.STOPPING:
                    self._enter(unit, State.STOPPED)
            self._changed.notify_all()

    @staticmethod
    def _stop_service(unit: _Unit, timeout: float) -> StopReport:
        try:
            return unit.service.stop(timeout)
        except Exception as trouble:
            _log.warning(
                "a service failed while it was stopped",
                extra={"fields": {"service": unit.id, "error": f"{type(trouble).__name__}: {trouble}"}},
            )
            return StopReport()

    def _failed_later(self, unit: _Unit, turn: int, error: Exception) -> None:
        with self._changed:
            self._failed(unit, turn, error)

    def _failed(self, unit: _Unit, turn: int, error: Exception) -> None:
        """A service that was up has failed. Caller holds the lock."""
        if unit.turn != turn or not unit.wanted or unit.state not in (State.RUNNING, State.STARTING):
            return
        if unit.state is State.RUNNING and time.monotonic() - unit.running_since > unit.lifecycle.stable_threshold:
            unit.failures = 0
        self._note_failure(unit, error)
        self._changed.notify_all()

    def _note_failure(self, unit: _Unit, error: Exception) -> None:
        """Fix the state after a failure and when to try again. Caller holds the lock."""
        unit.error = error
        unit.failures += 1
        restart = unit.lifecycle.restart
        final = isinstance(error, WippyQueueError) and error.retryable is False
        exhausted = restart.max_attempts and unit.failures > restart.max_attempts
        unit.due = math.inf if final or exhausted else time.monotonic() + restart.delay(unit.failures)
        self._enter(unit, State.EXITED if final else State.FAILED)
        _log.error(
            "a service failed",
            extra={
                "fields": {
                    "service": unit.id,
                    "error": f"{type(error).__name__}: {error}",
                    "restart_in": None if unit.due == math.inf else round(unit.due - time.monotonic(), 3),
                }
            },
        )

    def _enter(self, unit: _Unit, state: State) -> None:
        if unit.state is state:
            return
        old, unit.state, unit.since = unit.state, state, time.time()
        self._emit(
            ServiceStateChanged(
                service=unit.id,
                old=old.value,
                new=state.value,
                error=None if unit.error is None or state is State.RUNNING else str(unit.error),
            )
        )


def _not_up(unit: _Unit) -> Unavailable:
    error = unit.error
    if unit.state is State.EXITED or (isinstance(error, WippyQueueError) and error.kind is Kind.INVALID):
        return Unavailable(f"{unit.id} is not up, and another try would not help: {error}", retryable=False)
    return Unavailable(f"{unit.id} is not up after {unit.lifecycle.start_timeout:g} s: {error}")
