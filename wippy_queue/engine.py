"""The engine: what an application holds in its hands."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import attrs

from wippy_queue import entries
from wippy_queue.access import Actor
from wippy_queue.application import read_application
from wippy_queue.drivers import DRIVER_KINDS
from wippy_queue.durations import check_seconds
from wippy_queue.errors import (
    Conflict,
    Invalid,
    NotFound,
    Problem,
    ShutdownTimeout,
    StopReport,
    Timeout,
    WippyQueueError,
)
from wippy_queue.events import Event
from wippy_queue.flow.burial import parked_queue
from wippy_queue.flow.publisher import PublishOptions
from wippy_queue.ids import EntryId
from wippy_queue.lua.host import Chunks
from wippy_queue.lua.modules import NAMES as LUA_MODULES
from wippy_queue.message import Message
from wippy_queue.queues import QueueInfo
from wippy_queue.redact import redact
from wippy_queue.suggest import did_you_mean
from wippy_queue.supervision import Health, ServiceStatus, assess
from wippy_queue.wiring import Wiring

if TYPE_CHECKING:  # rarely needed: the methods that do import them
    from wippy_queue.deadletters import DeadLetters
    from wippy_queue.moving import MoveReport

_F = TypeVar("_F", bound=Callable[..., Any])
_JOIN_SLICE: Final = 3600.0  # seconds; a join without a deadline waits in pieces of this
_numbers = itertools.count(1)  # for the names of threads; nothing depends on it


class Engine:
    """An application that runs: its drivers, queues, consumers and functions.

    Make one with `Engine.load` or `Engine.from_entries`, and use it as a context manager, or call `start` and `stop`.

    Thread safety: every method may be called from any thread, most of them from inside handlers too; several engines
    may live in one process. An engine belongs to the process that made it.
    """

    def __init__(self, application: entries.Application) -> None:
        self._application = application
        self._wiring = Wiring(application, f"engine-{next(_numbers)}")
        self._pid = os.getpid()

    @classmethod
    def load(
        cls,
        *paths: str | os.PathLike[str],
        settings: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        skip_unsupported: bool = False,
    ) -> Engine:
        """Load an application from YAML; nothing is started.

        Args:
            paths: folders, whose every ``_index.yaml`` is read, or YAML files.
            settings: engine settings by name, like ``{"shutdown.timeout": "30s"}``; they win over ``wippy.yaml``.
            overrides: fields to replace, as ``{entry id: {field: value}}``; ``kind`` may be one of them.
            skip_unsupported: drop what exists in Wippy but not here, with a warning each, instead of refusing it.

        Raises:
            ConfigurationError: there are mistakes; all of them are in it.
        """
        return cls(read_application(*paths, settings=settings, overrides=overrides, skip_unsupported=skip_unsupported))

    @classmethod
    def from_entries(
        cls,
        declared: Sequence[Mapping[str, Any]],
        namespace: str = "app",
        base_dir: str | os.PathLike[str] = ".",
        settings: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        skip_unsupported: bool = False,
    ) -> Engine:
        """Make an application of entries given as Python dicts, with the fields that YAML has.

        Args:
            declared: the entries.
            namespace: theirs.
            base_dir: the folder that ``file://`` sources are relative to.
            settings: see `load`.
            overrides: see `load`.
            skip_unsupported: see `load`.

        Raises:
            ConfigurationError: there are mistakes; all of them are in it.
        """
        return cls(
            entries.from_entries(
                declared,
                namespace=namespace,
                base_dir=base_dir,
                driver_kinds=DRIVER_KINDS,
                settings=settings,
                overrides=overrides,
                skip_unsupported=skip_unsupported,
                known_modules=LUA_MODULES,
                check_lua=Chunks().check,
            )
        )

    # life

    def start(self, wait: bool = True, consumers: bool = True) -> None:
        """Start every service with ``auto_start`` and what it depends on; harmless when they run already.

        Args:
            wait: return when all are up. Otherwise at once, and supervision brings them up.
            consumers: False for a process that only publishes: drivers and stores, but no consumer.

        Raises:
            ConfigurationError: an entry needs a Python function or module that was not registered.
            Unavailable: a service is not up after its ``start_timeout``; what was started is stopped again.
            Canceled: the engine was stopped meanwhile.
            Conflict: the engine was made in another process, before a fork.
        """
        self._check_process()
        chosen = self._wiring.required(entry.id for entry in self._services() if entry.lifecycle.auto_start)
        if consumers:
            self._wiring.check_names()
        else:
            chosen -= set(self._wiring.consumers)
        self._wiring.supervisor.start(chosen, wait)

    def stop(self, timeout: float | None = None) -> StopReport:
        """Stop gracefully: handlers that run may finish, everything else goes back to its queue.

        Called from inside a handler it begins the stop on another thread and returns an empty report at once, for the
        handler's own message cannot be waited for.

        Args:
            timeout: seconds for the whole stop; None: the setting ``shutdown.timeout``, and without that each service
                has its own ``stop_timeout``. Consumers, and then drivers, that are late get half a second more for the
                last words to their brokers.

        Returns:
            The ids of the messages that were finished and handed back.

        Raises:
            ShutdownTimeout: messages could not be finished by the deadline; everything is torn down all the same.
            Conflict: the engine was made in another process, before a fork.
        """
        self._check_process()
        _check_timeout(timeout)
        if self._in_handler():
            threading.Thread(target=self._stop_quietly, args=(timeout,), name="engine-stop", daemon=True).start()
            return StopReport()
        return self._stop(None, timeout if timeout is not None else self._application.settings.shutdown.timeout)

    def _stop(self, ids: Sequence[EntryId] | None, timeout: float | None) -> StopReport:
        _check_timeout(timeout)
        report = self._wiring.supervisor.stop(ids, timeout)
        if ids is None:
            self._wiring.supervisor.close()
        if report.abandoned:
            raise ShutdownTimeout(
                f"{len(report.abandoned)} messages were cut at the deadline of the stop, or could not be settled any"
                f" more: {', '.join(report.abandoned[:10])}{', ...' if len(report.abandoned) > 10 else ''}",
                report,
            )
        return report

    def _stop_quietly(self, timeout: float | None) -> None:
        try:
            self._stop(None, timeout)
        except ShutdownTimeout:
            pass  # the consumers have logged whom they cut

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except ShutdownTimeout:
            if error is None:
                raise

    def services(self) -> dict[EntryId, ServiceStatus]:
        """Return every service as it stands now."""
        self._check_process()
        return self._wiring.supervisor.statuses()

    def health(self) -> Health:
        """Return how the engine is: cheap, and without asking any broker."""
        return assess(self.services())

    def start_service(self, service_id: str, wait: bool = True) -> None:
        """Start one service and what it depends on; see `start`.

        Raises:
            NotFound: there is no such service.
            Unavailable: it is not up after its ``start_timeout``.
        """
        self._check_process()
        _check_id(service_id, "service")
        if service_id in self._wiring.consumers:
            self._wiring.check_names()
        self._wiring.supervisor.start([EntryId(service_id)], wait)

    def stop_service(self, service_id: str, timeout: float | None = None) -> StopReport:
        """Stop one service, and before it those that depend on it; see `stop`.

        Raises:
            NotFound: there is no such service.
            ShutdownTimeout: messages could not be finished by the deadline.
            Invalid: a handler of that very consumer asks.
        """
        self._check_process()
        _check_id(service_id, "service")
        if self._in_handler():
            raise Invalid("a handler cannot wait for the stop of a service; call stop_service from another thread")
        return self._stop([EntryId(service_id)], timeout)

    def verify(self) -> list[Problem]:
        """Ask every backend whether it would take the drivers and queues as they are declared; nothing is created.

        Returns:
            What stands against it, with the places of the entries; a queue that a backend would make is no problem.
        """
        self._check_process()
        found: list[Problem] = []
        for driver_id, driver in self._wiring.drivers.items():
            queues = [route.queue for route in self._wiring.routes.values() if route.queue.driver == driver_id]
            try:
                found += driver.verify(queues)
            except WippyQueueError as error:
                found.append(Problem(str(error), entry=driver_id))
        return [self._placed(problem) for problem in found]

    # messages

    def publish(
        self,
        queue: str,
        body: Any,
        headers: Mapping[str, Any] | None = None,
        *,
        message_id: str | None = None,
        delay: float | None = None,
        priority: int | None = None,
        ttl: float | None = None,
        timeout: float = 10.0,
        actor: Actor | None = None,
    ) -> str:
        """Publish a message; once this returns it is never lost, as far as the queue's driver is durable.

        Args:
            queue: the registry id of the queue.
            body: a JSON value (dict with text keys, list, str, int within 64 bits, finite float, bool, None inside) or
                bytes; None, {} and [] are refused.
            headers: text keys; text, number or boolean values. Names that begin with ``x_``, and ``attempts``, belong
                to the engine.
            message_id: instead of a new UUID.
            delay: seconds, 1e9 at most, until it may be delivered.
            priority: 0 to 9, higher first.
            ttl: seconds after which it expires when it was not delivered.
            timeout: seconds to wait for the driver, and for room in a full queue.
            actor: who publishes; None: whoever the handler acts as that this is called in, and nobody elsewhere.

        Returns:
            The id of the message.

        Raises:
            NotFound: no such queue is declared, or no policy or group that the actor names.
            PermissionDenied: the actor may not, or nobody is named and strict mode asks for an actor.
            Invalid: the body, a header or an option cannot be published, or not on this driver.
            QueueFull: there was no room in time.
            Unavailable: the driver is not running or cannot be reached.
            Conflict: the engine was made in another process, before a fork.
        """
        self._check_publish(queue, actor)
        options = PublishOptions(message_id=message_id, delay=delay, priority=priority, ttl=ttl)
        return self._wiring.publisher.publish(queue, [body], headers, options, timeout)[0]

    def publish_many(
        self,
        queue: str,
        bodies: Iterable[Any],
        headers: Mapping[str, Any] | None = None,
        *,
        delay: float | None = None,
        priority: int | None = None,
        ttl: float | None = None,
        timeout: float = 10.0,
        actor: Actor | None = None,
    ) -> list[str]:
        """Publish messages in order, much faster than one by one; see `publish` for arguments and errors.

        Returns:
            Their ids. On a partial failure ``error.details["accepted"]`` lists the ids that are in.
        """
        self._check_publish(queue, actor)
        options = PublishOptions(delay=delay, priority=priority, ttl=ttl)
        return self._wiring.publisher.publish(queue, bodies, headers, options, timeout)

    def call(self, function: str, *args: Any, actor: Actor | None = None, timeout: float | None = None) -> Any:
        """Call a function in the calling thread and return its first value.

        Args:
            function: the registry id.
            args: JSON values or bytes.
            actor: who calls, and whom the function acts as; None: as in `publish`.
            timeout: seconds; None: the function's own.

        Raises:
            NotFound: no such function is declared, or no policy or group that the actor names.
            PermissionDenied: the actor may not, or nobody is named and strict mode asks for an actor.
            WippyQueueError: what the function returned as an error or raised, of its kind.
        """
        self._check_process()
        _check_timeout(timeout)
        security = self._wiring.security_of(actor)
        self._wiring.guard.require(security, "funcs.call", function)
        return self._wiring.called(EntryId(function)).call(args, timeout, security)

    def join(self, *queues: str, timeout: float | None = None) -> None:
        """Wait until nothing is ready, delayed or in flight in the queues.

        Messages that were parked or dead-lettered do not count. Where no queue is named, all are meant but for
        dead-letter queues without a consumer.

        Args:
            queues: registry ids.
            timeout: seconds; None: for ever.

        Raises:
            Timeout: there was still something at the deadline.
            Invalid: a handler asks, whose own message is in flight.
            NotFound: no such queue is declared.
        """
        self._check_process()
        _check_timeout(timeout)
        if self._in_handler():
            raise Invalid("join() inside a handler would wait for the handler's own message; call it from outside")
        publisher = self._wiring.publisher
        routes = [publisher.route(queue) for queue in queues or self._wiring.drained()]
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            before = publisher.published
            for route in routes:
                while not route.driver.wait_idle(route.queue, max(0.0, min(_JOIN_SLICE, deadline - time.monotonic()))):
                    if time.monotonic() >= deadline:
                        info = attrs.asdict(route.driver.info(route.queue))
                        counts = ", ".join(f"{info[name]} {name}" for name in ("ready", "in_flight", "delayed"))
                        raise Timeout(f"queue {route.queue.id} still holds messages after {timeout:g} s: {counts}")
            if publisher.published == before:
                return  # no handler of one queue has published to another that was looked at before

    def info(self, queue: str) -> QueueInfo:
        """Return how many messages the queue holds; what its driver cannot know is None.

        Raises:
            NotFound: no such queue is declared.
        """
        self._check_process()
        route = self._wiring.publisher.route(queue)
        info = route.driver.info(route.queue)
        if route.queue.dead_letter is not None:
            return attrs.evolve(info, parked=0)
        try:
            parked = route.driver.info(parked_queue(route.queue)).message_count
        except NotFound:
            parked = 0
        return attrs.evolve(info, parked=parked)

    def counters(self, queue: str) -> dict[str, int]:
        """Return how often what went wrong with the queue since this engine was made, in this process.

        ``failed`` handlers, messages ``dead_lettered``, ``parked``, ``dropped_expired`` and ``dropped_maxlen`` (those
        two where there is no dead-letter queue), ``settles_lost`` and ``stuck`` handlers.

        Raises:
            NotFound: no such queue is declared.
        """
        self._check_process()
        return self._wiring.counters.of(self._wiring.publisher.route(queue).queue.id)

    def peek(self, queue: str, limit: int = 10) -> list[Message]:
        """Return up to ``limit`` waiting messages, next first, and leave them where they are.

        Raises:
            NotFound: no such queue is declared.
            Invalid: the limit is no number from 0 to 2147483647.
        """
        self._check_process()
        if type(limit) is not int or not 0 <= limit < 2**31:
            raise Invalid(f"limit: expected how many messages, from 0 to 2147483647, found {limit!r}")
        route = self._wiring.publisher.route(queue)
        return route.driver.peek(route.queue, limit)

    def purge(self, queue: str) -> int:
        """Drop every waiting message, ready or delayed, and return how many there were."""
        self._check_process()
        route = self._wiring.publisher.route(queue)
        return route.driver.purge(route.queue)

    def dead_letters(self, queue: str) -> DeadLetters:
        """Return the dead letters of a queue: to list, show, replay or purge them.

        Args:
            queue: a dead-letter queue, or a queue that has one, or a queue without one: then it is about the messages
                that were parked.

        Raises:
            NotFound: no such queue is declared.
        """
        self._check_process()
        from wippy_queue.deadletters import DeadLetters

        return DeadLetters(self._wiring.grave(queue), self._wiring.routes)

    def move(
        self,
        source: str,
        target: str,
        *,
        limit: int | None = None,
        rate: float | None = None,
        lossy: bool = False,
        progress: Callable[[int], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> MoveReport:
        """Move the messages that wait in one queue to another one, of the same driver or of another.

        They keep their ids, headers, attempts, priorities and times of publishing and expiry; a body is encoded anew
        where the queues have different codecs. Each is published first and removed second: a move that is interrupted
        leaves a second copy of some at worst, and another one goes on where it ended. Delayed messages stay until they
        are due; so do those that cannot be moved, which the report lists.

        Args:
            source: the registry id of the queue that they are in.
            target: the registry id of the queue that they go to.
            limit: messages to look at, at most; None: all that were there when the move began.
            rate: messages per second at most; None: as fast as it goes.
            lossy: move a message without its priority or time to live where the target cannot honour them; otherwise
                it stays.
            progress: called now and then with how many have been moved.
            cancel: ends the move early when it is set.

        Raises:
            NotFound: no such queue is declared.
            Invalid: both are the same queue, or an argument makes no sense; nothing was moved.
            QueueFull, Unavailable, Timeout: the target takes no more, or a driver is away; ``details`` has ``moved``
                and ``failed`` as the report has them.
        """
        self._check_process()
        route = self._wiring.publisher.route
        from wippy_queue.moving import move

        return move(
            route(source),
            route(target),
            self._wiring.capabilities,
            limit=limit,
            rate=rate,
            lossy=lossy,
            progress=progress,
            cancel=cancel,
        )

    def pause(self, consumer: str, timeout: float | None = None) -> StopReport:
        """Have a consumer take nothing until `resume`; what it has buffered goes back at once. See `stop_service`."""
        self._check_consumer(consumer)
        return self.stop_service(consumer, timeout)

    def resume(self, consumer: str) -> None:
        """Have a consumer go on after `pause`."""
        self._check_consumer(consumer)
        self.start_service(consumer)

    # extending

    def function(self, function_id: str) -> Callable[[_F], _F]:
        """Register a Python callable as the entry ``function_id``: a decorator, to be used before `start`.

        Raises:
            Invalid: the id is malformed, or taken; or the callable is a coroutine or a generator.
        """

        if not isinstance(function_id, str):
            raise Invalid(f'expected an id, like @engine.function("app:resize"), found {function_id!r}')
        entry_id = EntryId.parse(function_id)

        def register(function: _F) -> _F:
            self._wiring.add_function(entry_id, function)
            return function

        return register

    def module(self, name: str, functions: Mapping[str, Callable[..., Any]]) -> None:
        """Give Lua a module ``name`` of Python functions, to be used before `start`.

        A function returns a value, or raises: then Lua gets ``nil, err``. Arguments and results are JSON values or
        bytes. The functions are called by many workers at once.

        Raises:
            Invalid: there is a module of that name already, or what should be a function is none.
        """
        self._wiring.add_module(name, functions)

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Have ``callback`` called with every event, on a thread of its own; the function that comes back ends that."""
        self._check_process()
        if not callable(callback):
            raise Invalid(f"expected a function that takes an event, found {callback!r}")
        return self._wiring.bus.subscribe(callback)

    # helpers

    def _placed(self, problem: Problem) -> Problem:
        place = self._application.entries[EntryId(str(problem.entry))].place
        return attrs.evolve(
            problem, message=redact(problem.message), file=place.file, line=place.line, column=place.column
        )

    def _services(self) -> list[entries.Service]:
        return [entry for entry in self._application.entries.values() if isinstance(entry, entries.Service)]

    def _check_consumer(self, consumer: str) -> None:
        _check_id(consumer, "consumer")
        if consumer not in self._wiring.consumers:
            raise NotFound(f"there is no consumer {consumer}{did_you_mean(consumer, self._wiring.consumers)}")

    def _in_handler(self) -> bool:
        me = threading.get_ident()
        return any(consumer.runs_on(me) for consumer in self._wiring.consumers.values())

    def _check_publish(self, queue: str, actor: Actor | None) -> None:
        self._check_process()
        security, guard = self._wiring.security_of(actor), self._wiring.guard
        if guard.may_refuse(security):
            guard.require(security, "queue.publish")
            guard.require(security, "queue.publish.queue", queue)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise Conflict(
                "this engine was made before a fork and cannot be used in the child; make a new one there,"
                " or start the child with multiprocessing's method spawn, as sqlite wants it"
            )


def _check_id(given: object, noun: str) -> None:
    if not isinstance(given, str):
        raise Invalid(f"expected the id of a {noun}, found {given!r}")


def _check_timeout(timeout: object) -> None:
    if timeout is not None:
        check_seconds(timeout, "timeout")
