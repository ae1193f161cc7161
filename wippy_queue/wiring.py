"""How the entries of an application become drivers, queues, functions, consumers and services; for the engine."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

import attrs

from wippy_queue import entries
from wippy_queue.access import Actor, SecurityContext, acting
from wippy_queue.consumer import Consumer, ConsumerSpec
from wippy_queue.driver import GRACE, Driver
from wippy_queue.environment import Environment, Variable
from wippy_queue.errors import ConfigurationError, Invalid, NotFound, Problem, StopReport
from wippy_queue.events import Event
from wippy_queue.flow.burial import Burial, Route, parked_queue
from wippy_queue.flow.publisher import Publisher
from wippy_queue.flow.settle import max_attempts
from wippy_queue.handler import Handler
from wippy_queue.handlers import PythonFunction, check_callable
from wippy_queue.ids import EntryId
from wippy_queue.lifecycle import Lifecycle
from wippy_queue.lua.handler import LuaFunction
from wippy_queue.lua.host import Function as Called
from wippy_queue.lua.host import Host, Source
from wippy_queue.lua.modules import NAMES as LUA_MODULES
from wippy_queue.message import Encoding, HeaderValue
from wippy_queue.options import KINDS
from wippy_queue.queues import Queue, RetryPolicy
from wippy_queue.security import Condition, DeclaredPolicy, Guard
from wippy_queue.store import Store
from wippy_queue.stores.memory import MemoryStore
from wippy_queue.suggest import did_you_mean
from wippy_queue.supervision import Supervisor
from wippy_queue.telemetry.bus import EventBus
from wippy_queue.telemetry.counters import Counters

_BATCH: Final = 64  # messages in one crossing into Lua; more gain little
_SHORT: Final = 0.1  # seconds; with a time limit below that a worker takes one message at a time, see `Deadline.start`
_KILL_GRACE: Final = 1.0  # seconds after its time limit that a handler in Lua has to end; a kill takes milliseconds
_PUBLISH_TIMEOUT: Final = 10.0  # seconds that a publish in a handler may wait, as in Python


class Function(Handler, Called, Protocol):
    """A handler that Python and other functions can call too."""


class Wiring:
    """The parts of one engine.

    Thread safety: everything is built before ``start`` lets other threads in, but for what `add_function` and
    `add_module` register.
    """

    def __init__(self, application: entries.Application, name: str) -> None:
        self.application = application
        self.bus = EventBus(name)
        self.counters = Counters()
        self.supervisor = Supervisor(name, self._emit)
        self.drivers: dict[EntryId, Driver] = {}
        self.stores: dict[EntryId, Store] = {}
        self.routes: dict[EntryId, Route] = {}
        self.consumers: dict[EntryId, Consumer] = {}
        self._python: dict[EntryId, PythonFunction] = {}
        self._modules: dict[str, Mapping[str, Callable[..., Any]]] = {}
        self._called: dict[EntryId, Function] = {}
        self._lock = threading.Lock()
        self.burial = Burial(self.routes, self._emit)
        self._requires = entries.dependencies(application)
        self.capabilities = {entry.id: entry.kind.capabilities for entry in self._of(entries.DriverEntry)}
        self.publisher = Publisher(self.routes, self.capabilities)
        self.guard = self._make_guard()
        self._add_drivers()
        self._add_stores()
        self._add_consumers()
        self.host = Host(
            publish=self._publish_from_lua,
            post=self.publisher.post,
            queue_encoding=lambda queue_id: self.publisher.route(queue_id).queue.encoding,
            may_wait=self.publisher.may_wait,
            info=self._info,
            store=self._store,
            function=lambda function_id: self.called(EntryId(function_id)),
            access=self.guard,
            environment=Environment(map(_variable_of, self._variables()), os.environ),
            modules=self._modules,
            libraries={entry.id: source_of(entry) for entry in self._of(entries.LuaLibraryEntry)},
            hook_mode=application.settings.lua.hook_mode,
            recycle_after=application.settings.lua.recycle_after,
        )

    def _emit(self, event: Event) -> None:
        self.counters.note(event)
        self.bus.emit(event)

    def _of(self, kind: type[Any]) -> list[Any]:
        return [entry for entry in self.application.entries.values() if isinstance(entry, kind)]

    def _add_drivers(self) -> None:
        queues: dict[EntryId, list[Queue]] = {}
        for entry in self._of(entries.DriverEntry):
            self.drivers[entry.id] = entry.kind.create(entry.id, self._resolved(entry.config))
            queues[entry.id] = []
        for entry in self._of(entries.QueueEntry):
            queue = self._queue(entry)
            queues[entry.driver].append(queue)
            self.routes[entry.id] = Route(queue, self.drivers[entry.driver])
        for entry in self._of(entries.DriverEntry):
            service = _DriverService(self.drivers[entry.id], queues[entry.id])
            self.supervisor.add(entry.id, service, _lifecycle(entry.lifecycle), self._requires[entry.id])

    def _resolved(self, config: Any) -> Any:
        """Return a driver's configuration with the entries that it refers to in the place of their ids."""
        found = {
            field.name: self.application.entries[getattr(config, field.name)]
            for field in attrs.fields(type(config))
            if KINDS in field.metadata and getattr(config, field.name) is not None
        }
        return attrs.evolve(config, **found)

    def _make_guard(self) -> Guard:
        policies: list[DeclaredPolicy] = []
        groups: dict[str, list[DeclaredPolicy]] = {}
        for entry in self._of(entries.PolicyEntry):
            policies.append(_policy_of(entry))
            for group in entry.groups:
                groups.setdefault(group, []).append(policies[-1])
        strict = self.application.settings.security.strict_mode
        return Guard(policies, groups, strict=strict, emit=self._emit)

    def security_of(self, actor: Actor | None) -> SecurityContext | None:
        """Return what a call from Python acts with: the actor, else what the handler that calls acts with.

        Raises:
            NotFound: the actor names a policy or a group that is not declared.
        """
        if actor is not None and not isinstance(actor, Actor):
            raise Invalid(f"actor: expected an Actor, found {actor!r}")
        return acting() if actor is None else self.guard.context(actor, actor.policies, actor.groups)

    def _security(self, entry: entries.ConsumerEntry) -> SecurityContext | None:
        declared = entry.lifecycle.security
        if declared is None:
            return None
        actor = None if declared.actor is None else Actor(declared.actor.id, declared.actor.meta)
        return self.guard.context(actor, declared.policies, declared.groups)

    def _variables(self) -> list[tuple[entries.EnvVariableEntry, bool]]:
        """Return the declared environment variables, each with whether it lives in memory."""
        memory = {entry.id for entry in self._of(entries.EnvStorageEntry) if entry.kind == "env.storage.memory"}
        return [(entry, entry.storage in memory) for entry in self._of(entries.EnvVariableEntry)]

    def _queue(self, entry: entries.QueueEntry) -> Queue:
        queue = Queue(
            id=entry.id,
            name=entry.queue_name,
            driver=entry.driver,
            encoding=entry.codec,
            options=entry.options,
            dead_letter=entry.dead_letter,
            retry=entry.retry,
            on_drop=lambda messages, reason: self.burial.drop(queue, messages, reason),
        )
        return queue

    def _add_stores(self) -> None:
        for entry in self._of(entries.StoreEntry):
            store = MemoryStore(entry.id, entry.max_size or sys.maxsize, entry.cleanup_interval)
            self.stores[entry.id] = store
            self.supervisor.add(entry.id, _StoreService(store), _lifecycle(entry.lifecycle), self._requires[entry.id])

    def required(self, ids: Iterable[EntryId]) -> set[EntryId]:
        """Return the services and everything that they require."""
        found: set[EntryId] = set()
        pending = list(ids)
        while pending:
            service_id = pending.pop()
            if service_id not in found:
                found.add(service_id)
                pending.extend(self._requires[service_id])
        return found

    def drained(self) -> list[EntryId]:
        """Return the queues that are to be empty when all the work is done: dead letters that nobody takes stay."""
        taken = {consumer.spec.queue.id for consumer in self.consumers.values()}
        return [queue_id for queue_id in self.routes if queue_id in taken or queue_id not in self._graves()]

    def _graves(self) -> set[EntryId]:
        return {route.queue.dead_letter.queue for route in self.routes.values() if route.queue.dead_letter}

    def grave(self, queue_id: str) -> Route:
        """Return where the dead letters of a queue are: itself, its dead-letter queue, or its parked messages."""
        route = self.publisher.route(queue_id)
        if route.queue.id in self._graves():
            return route
        if route.queue.dead_letter is not None:
            return self.routes[route.queue.dead_letter.queue]
        parked = parked_queue(route.queue)
        route.driver.declare(parked)
        return Route(parked, route.driver)

    # what Python registers

    def add_function(self, function_id: EntryId, function: Callable[..., Any]) -> None:
        if function_id in self.application.entries or function_id in self._python:
            raise Invalid(f"{function_id} is declared already; register the function under another id")
        self._python[function_id] = PythonFunction(function_id, function)

    def add_module(self, name: str, functions: Mapping[str, Callable[..., Any]]) -> None:
        named: Any = name
        given: Any = functions
        if not isinstance(named, str) or not named or not isinstance(given, Mapping):
            found = type(given).__name__
            raise Invalid(f"expected a name and a mapping of names to functions, found {named!r} and {found}")
        if name in LUA_MODULES or name in self._modules:
            raise Invalid(f"there is a module {name!r} already; choose another name")
        for key, function in given.items():
            if not isinstance(key, str) or not key:
                raise Invalid(f"module {name}: expected the name of a function, found {key!r}")
            check_callable(f"module {name}: {key}", function)
        self._modules[name] = dict(functions)

    def _add_consumers(self) -> None:
        for entry in self._of(entries.ConsumerEntry):
            route = self.routes[entry.queue]
            spec = ConsumerSpec(
                id=entry.id,
                queue=route.queue,
                driver=route.driver,
                function=entry.func,
                make_handler=partial(self._function, entry.func, entry.timeout, entry.memory_limit),
                retry=entry.retry,
                concurrency=entry.concurrency,
                prefetch=entry.prefetch,
                auto_ack=entry.auto_ack,
                options=entry.options,
                batch=self._batch(entry, route.queue),
                security=self._security(entry),
                exact_counts=self.capabilities[route.queue.driver].exact_counts,
                stuck_after=self._stuck_after(entry),
                max_stuck_workers=self.application.settings.lua.max_stuck_workers,
            )
            consumer = Consumer(spec, self.burial, self._emit)
            self.consumers[entry.id] = consumer
            self.supervisor.add(entry.id, consumer, _lifecycle(entry.lifecycle), self._requires[entry.id])

    def _batch(self, entry: entries.ConsumerEntry, queue: Queue) -> int:
        """Return how many messages a worker may take at a time.

        An ack before the handler, a very short time limit, and an only attempt, which the others in a hand would take
        along should the process die, need one at a time; elsewhere, and where Lua is quick, the hop between threads is
        what costs.
        """
        stuck_after = self._stuck_after(entry)
        alone = (
            entry.auto_ack
            or (stuck_after is not None and stuck_after < _KILL_GRACE + _SHORT)
            or (self.capabilities[queue.driver].durable and max_attempts(queue, entry.retry) <= 1)
            or not isinstance(self.application.entries.get(entry.func), entries.LuaFunctionEntry)
            or self.application.settings.lua.hook_mode == "off"
        )
        return 1 if alone else _BATCH

    def _stuck_after(self, entry: entries.ConsumerEntry) -> float | None:
        """Return when a handler that is still running counts as stuck: Lua is given time to be ended, Python cannot."""
        function = self.application.entries.get(entry.func)
        if not isinstance(function, entries.LuaFunctionEntry):
            return entry.timeout
        timeout = entry.timeout if entry.timeout is not None else function.timeout
        return None if timeout is None else timeout + _KILL_GRACE

    def check_names(self) -> None:
        """Check that Python has registered what the entries need of it.

        Raises:
            ConfigurationError: an entry names a function or a module that nobody has registered.
        """
        missing = [
            Problem(
                f"no {name.what} {name.name!r} is declared or registered{name.suggestion}",
                file=name.place.file,
                line=name.place.line,
                column=name.place.column,
                entry=name.entry,
                path=name.path,
            )
            for name in self.application.unresolved
            if name.name not in (self._modules if name.what == "module" else self._python)
        ]
        if missing:
            raise ConfigurationError(missing)

    # functions

    def called(self, function_id: EntryId) -> Function:
        """Return a function as ``Engine.call`` runs it."""
        with self._lock:
            function = self._called.get(function_id)
            if function is None:
                function = self._called[function_id] = self._function(function_id, None, None)
            return function

    def _function(self, function_id: EntryId, timeout: float | None, memory_limit: int | None) -> Function:
        if function_id in self._python:
            return self._python[function_id]
        entry = self.application.entries.get(function_id)
        if isinstance(entry, entries.LuaFunctionEntry):
            limit = timeout if timeout is not None else entry.timeout
            return LuaFunction(source_of(entry), self.host, timeout=limit, memory_limit=memory_limit)
        if isinstance(entry, entries.PythonFunctionEntry):
            return PythonFunction(function_id, _import(entry))
        known = [other.id for other in self._of(entries.LuaFunctionEntry)] + list(self._python)
        raise NotFound(f"no function {function_id!r} is declared{did_you_mean(function_id, known)}")

    # what Lua reaches

    def _publish_from_lua(
        self,
        queue_id: str,
        body: bytes,
        encoding: Encoding,
        headers: dict[str, HeaderValue],
        cancel: threading.Event,
        deadline: float,
    ) -> str:
        timeout = max(0.0, min(_PUBLISH_TIMEOUT, deadline - time.monotonic()))
        return self.publisher.publish_encoded(queue_id, body, encoding, headers, cancel, timeout)

    def _info(self, queue_id: str) -> Any:
        route = self.publisher.route(queue_id)
        return route.driver.info(route.queue)

    def _store(self, store_id: str) -> Store:
        try:
            return self.stores[EntryId(store_id)]
        except KeyError:
            raise NotFound(f"no store {store_id!r} is declared{did_you_mean(store_id, self.stores)}") from None


class _DriverService:
    """A driver as a service: up when it runs and its queues are declared."""

    def __init__(self, driver: Driver, queues: Sequence[Queue]) -> None:
        self._driver = driver
        self._queues = queues

    def start(self, on_failure: Callable[[Exception], None]) -> None:
        self._driver.start()
        for queue in self._queues:
            self._driver.declare(queue)

    def cancel_start(self) -> None: ...

    def stop(self, timeout: float) -> StopReport:
        self._driver.stop(max(GRACE, timeout))
        return StopReport()

    def check(self) -> None: ...


class _StoreService:
    """A store as a service."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def start(self, on_failure: Callable[[Exception], None]) -> None:
        self._store.start()

    def cancel_start(self) -> None: ...

    def stop(self, timeout: float) -> StopReport:
        self._store.stop()
        return StopReport()

    def check(self) -> None: ...


def _lifecycle(declared: entries.Lifecycle) -> Lifecycle:
    return Lifecycle(
        start_timeout=declared.start_timeout,
        stop_timeout=declared.stop_timeout,
        stable_threshold=declared.stable_threshold,
        restart=RetryPolicy(**attrs.asdict(declared.restart)),
    )


def _policy_of(entry: entries.PolicyEntry) -> DeclaredPolicy:
    policy = entry.policy
    conditions = tuple(Condition(**attrs.asdict(condition, recurse=False)) for condition in policy.conditions)
    return DeclaredPolicy(
        id=entry.id,
        actions=policy.actions,
        resources=policy.resources,
        effect=policy.effect,
        conditions=conditions,
    )


def _variable_of(declared: tuple[entries.EnvVariableEntry, bool]) -> Variable:
    entry, in_memory = declared
    return Variable(
        id=entry.id,
        name=entry.variable or entry.id.name,
        storage=entry.storage if in_memory and entry.storage is not None else "process",
        default=entry.default,
        read_only=entry.read_only or entry.readonly,
    )


def source_of(entry: entries.LuaLibraryEntry) -> Source:
    """Return a function's or a library's source as the Lua side wants it."""
    return Source(
        id=entry.id,
        text=entry.source,
        name=entry.source_name,
        method=entry.method if isinstance(entry, entries.LuaFunctionEntry) else None,
        modules=entry.modules,
        imports=entry.imports,
    )


def _import(entry: entries.PythonFunctionEntry) -> Callable[..., Any]:
    """Import what ``source: package.module:callable`` names."""
    module_name, _, path = entry.source.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise Invalid(f"{entry.id}: source: cannot import {entry.source!r}: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise Invalid(f"{entry.id}: source: {entry.source!r} is not callable")
    return found  # type: ignore[no-any-return]
