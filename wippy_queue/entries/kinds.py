"""The kinds of entries, one class each: its fields are those of the YAML, checked and with every reference resolved."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NewType

import attrs

from wippy_queue.driver import DriverKind
from wippy_queue.entries.fields import ALSO, CHOICES, NOT_WRITTEN, refers_to
from wippy_queue.entries.nodes import Place
from wippy_queue.ids import EntryId
from wippy_queue.message import Encoding
from wippy_queue.options import SHAPE, duration, size, whole
from wippy_queue.patterns import Pattern
from wippy_queue.queues import DeadLetter, RetryPolicy

DRIVER_KINDS: Final = "queue.driver."  # what every kind of driver begins with

DEFAULT_MEMORY_LIMIT: Final = 64 * 2**20

CODECS: Final[Mapping[str, Encoding]] = {
    "json/plain": "json",
    "json": "json",
    "application/msgpack": "msgpack",
    "msgpack": "msgpack",
}

ModuleName = NewType("ModuleName", str)  # under `modules:`
Imports = NewType("Imports", dict[str, EntryId])  # under `imports:`; a list of ids will do
Names = NewType("Names", tuple[str, ...])  # a list, or one text; never empty
GroupName = NewType("GroupName", str)  # the id of a group of policies; a bare name is one in the entry's namespace
GroupReference = NewType("GroupReference", str)  # the same, of a group that some policy belongs to

_META: Final = re.compile(r"(actor\.)?meta(\.[^.\s]+)+")


@attrs.frozen
class LuaSource:
    """The text of a Lua source, and what to call it in a trace."""

    text: str
    name: str


def _share(default: Any) -> Any:
    return attrs.field(
        default=default,
        validator=attrs.validators.optional(attrs.validators.and_(attrs.validators.ge(0.0), attrs.validators.le(1.0))),
    )


def _factor(default: Any) -> Any:
    return attrs.field(default=default, validator=attrs.validators.optional(attrs.validators.ge(1.0)))


def _not_empty(_instance: Any, attribute: Any, value: str) -> None:
    if not value.strip():
        raise ValueError(f"'{attribute.name}' must not be empty")


def _names_callable(_instance: Any, attribute: Any, value: str) -> None:
    module, colon, name = value.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise ValueError(f"'{attribute.name}' must be like package.module:callable")


def _names_fact(_instance: Any, attribute: Any, value: str) -> None:
    if value in {"actor.id", "action", "resource"} or _META.fullmatch(value):
        return
    raise ValueError(f"'{attribute.name}' must be actor.id, actor.meta.NAME, action, resource or meta.NAME")


def _check_delays(delays: Any) -> None:
    if delays.initial_delay > delays.max_delay:
        raise ValueError("initial_delay is longer than max_delay; raise max_delay too")


@attrs.frozen(kw_only=True)
class Restart:
    """How a failed service is started again; seconds, and ``max_attempts`` 0 means for ever."""

    initial_delay: float = duration(1.0)
    max_delay: float = duration(90.0)
    backoff_factor: float = _factor(2.0)
    jitter: float = _share(0.1)
    max_attempts: int = whole(0)

    def __attrs_post_init__(self) -> None:
        _check_delays(self)


@attrs.frozen(kw_only=True)
class Actor:
    """Who a service acts as."""

    id: str = attrs.field(validator=_not_empty)
    meta: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Security:
    """The actor and the scope that a service runs with; None where nothing was said."""

    actor: Actor | None = None
    policies: tuple[EntryId, ...] | None = attrs.field(default=None, metadata=refers_to("security.policy"))
    groups: tuple[GroupReference, ...] | None = None


@attrs.frozen(kw_only=True)
class Lifecycle:
    """When a service starts, how long it may take, and what becomes of it when it fails; seconds."""

    auto_start: bool = False
    start_timeout: float = duration(10.0)
    stop_timeout: float = duration(10.0)
    stable_threshold: float = duration(5.0)
    depends_on: tuple[EntryId, ...] = attrs.field(default=(), metadata={**refers_to(), ALSO: "requires"})
    restart: Restart = attrs.field(factory=Restart)
    security: Security | None = None


@attrs.frozen(kw_only=True)
class Retry:
    """The fields of ``retry`` that are given; the others are those of the queue, or the defaults."""

    initial_delay: float | None = duration(None)
    max_delay: float | None = duration(None)
    backoff_factor: float | None = _factor(None)
    jitter: float | None = _share(None)
    max_attempts: int | None = whole(None)

    def over(self, policy: RetryPolicy) -> RetryPolicy:
        """Return ``policy`` with what is given here in its place.

        Raises:
            ValueError: the two do not go together.
        """
        given = {key: value for key, value in attrs.asdict(self).items() if value is not None}
        merged = attrs.evolve(policy, **given)
        _check_delays(merged)
        return merged


@attrs.frozen(kw_only=True)
class DeadLetterFields:
    """``dead_letter`` of a queue."""

    queue: EntryId = attrs.field(metadata=refers_to("queue.queue"))
    max_attempts: int = whole(3, minimum=1)


@attrs.frozen(kw_only=True)
class Entry:
    """What every entry has."""

    id: EntryId = attrs.field(metadata=NOT_WRITTEN)
    meta: Mapping[str, Any] = attrs.field(metadata=NOT_WRITTEN)  # as written
    place: Place = attrs.field(metadata=NOT_WRITTEN)


@attrs.frozen(kw_only=True)
class Service(Entry):
    """An entry that is started and stopped."""

    lifecycle: Lifecycle = attrs.field(factory=Lifecycle)


@attrs.frozen(kw_only=True)
class DriverEntry(Service):
    """``queue.driver.*``"""

    kind: DriverKind = attrs.field(metadata=NOT_WRITTEN)
    config: Any = attrs.field(metadata=NOT_WRITTEN)  # an instance of kind.config


@attrs.frozen(kw_only=True)
class QueueEntry(Entry):
    """``queue.queue``"""

    driver: EntryId = attrs.field(metadata=refers_to(DRIVER_KINDS))
    queue_name: str = attrs.field(default="", validator=_not_empty)  # "": the entry's name
    codec: Encoding = attrs.field(default="json", metadata={CHOICES: CODECS})
    options: object = attrs.field(metadata=NOT_WRITTEN)  # an instance of the driver kind's queue_options
    dead_letter: DeadLetter | None = attrs.field(default=None, metadata={SHAPE: DeadLetterFields})
    retry: RetryPolicy = attrs.field(default=RetryPolicy(), metadata={SHAPE: Retry})


@attrs.frozen(kw_only=True)
class ConsumerEntry(Service):
    """``queue.consumer``"""

    queue: EntryId = attrs.field(metadata=refers_to("queue.queue"))
    func: EntryId = attrs.field(metadata=refers_to("function.lua", "function.python", late=True))
    concurrency: int = whole(1, minimum=1, maximum=1000)
    prefetch: int = whole(10, minimum=1, maximum=10_000)
    auto_ack: bool = False
    timeout: float | None = duration(None, minimum=0.001)  # seconds; None: no limit
    memory_limit: int | None = size(DEFAULT_MEMORY_LIMIT, minimum=64 * 2**10)  # bytes; None for a Python function
    retry: RetryPolicy = attrs.field(
        default=RetryPolicy(), metadata={SHAPE: Retry}
    )  # the queue's, with the consumer's own over it
    options: object = attrs.field(metadata=NOT_WRITTEN)  # an instance of the driver kind's consumer_options


@attrs.frozen(kw_only=True)
class LuaLibraryEntry(Entry):
    """``library.lua``"""

    source: str = attrs.field(metadata={SHAPE: LuaSource})  # the text
    source_name: str = attrs.field(metadata=NOT_WRITTEN)  # for traces: the file, or the id
    modules: tuple[ModuleName, ...] = ()
    imports: Mapping[str, EntryId] = attrs.field(factory=dict, metadata={SHAPE: Imports, **refers_to("library.lua")})


@attrs.frozen(kw_only=True)
class LuaFunctionEntry(LuaLibraryEntry):
    """``function.lua``"""

    method: str | None = None
    timeout: float | None = duration(None, minimum=0.001)


@attrs.frozen(kw_only=True)
class PythonFunctionEntry(Entry):
    """``function.python``"""

    source: str = attrs.field(validator=_names_callable)  # package.module:callable


@attrs.frozen(kw_only=True)
class StoreEntry(Service):
    """``store.memory``"""

    max_size: int = whole(0)  # keys; 0: no limit
    cleanup_interval: float = duration(60.0, minimum=0.001)


@attrs.frozen(kw_only=True)
class EnvStorageEntry(Entry):
    """``env.storage.os`` and ``env.storage.memory``"""

    kind: str = attrs.field(metadata=NOT_WRITTEN)


@attrs.frozen(kw_only=True)
class EnvVariableEntry(Entry):
    """``env.variable``"""

    variable: str = ""  # "": the entry's name
    storage: EntryId | None = attrs.field(
        default=None, metadata=refers_to("env.storage.")
    )  # None: the environment of the process
    default: str | None = attrs.field(default=None, repr=False)
    read_only: bool = False
    readonly: bool = False  # the same, as Wippy spells it


@attrs.frozen(kw_only=True)
class Condition:
    """What must hold for a policy to match."""

    field: str = attrs.field(validator=_names_fact)
    operator: Literal[
        "eq",
        "ne",
        "lt",
        "gt",
        "lte",
        "gte",
        "in",
        "nin",
        "exists",
        "nexists",
        "contains",
        "ncontains",
        "matches",
        "nmatches",
    ]
    value: Any = None
    value_from: str | None = attrs.field(default=None, validator=attrs.validators.optional(_names_fact))

    def __attrs_post_init__(self) -> None:
        if self.operator in {"exists", "nexists"}:
            if self.value_from is not None or self.value not in (None, True):
                raise ValueError(f"{self.operator} compares nothing; remove the value")
        elif (self.value is None) == (self.value_from is None):
            raise ValueError(f"{self.operator} needs one of value and value_from")
        elif self.value is None:
            return
        elif self.operator in {"in", "nin"} and not isinstance(self.value, list):
            raise ValueError(f"{self.operator} needs a list as its value")
        elif self.operator in {"lt", "lte", "gt", "gte"} and (
            isinstance(self.value, bool) or not isinstance(self.value, (int, float, str))
        ):
            raise ValueError(f"{self.operator} needs a number or a text as its value")
        elif self.operator in {"matches", "nmatches"}:
            if not isinstance(self.value, str):
                raise ValueError(f"{self.operator} needs a pattern, which is text, as its value")
            Pattern(self.value)


@attrs.frozen(kw_only=True)
class Policy:
    """Which actions on which resources are allowed or denied; ``*`` stands for anything."""

    actions: tuple[str, ...] = attrs.field(metadata={SHAPE: Names})
    resources: tuple[str, ...] = attrs.field(metadata={SHAPE: Names})
    effect: Literal["allow", "deny"]
    conditions: tuple[Condition, ...] = ()


@attrs.frozen(kw_only=True)
class PolicyEntry(Entry):
    """``security.policy``"""

    policy: Policy
    groups: tuple[GroupName, ...] = ()


@attrs.frozen(kw_only=True)
class AwsConfigEntry(Entry):
    """``config.aws``"""

    region: str | None = None
    access_key_id: str | None = attrs.field(default=None, repr=False)
    secret_access_key: str | None = attrs.field(default=None, repr=False)
    session_token: str | None = attrs.field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together; give both, or neither for AWS's chain")


ENTRY_CLASSES: Final[Mapping[str, type[Entry]]] = {
    "queue.queue": QueueEntry,
    "queue.consumer": ConsumerEntry,
    "function.lua": LuaFunctionEntry,
    "library.lua": LuaLibraryEntry,
    "function.python": PythonFunctionEntry,
    "store.memory": StoreEntry,
    "env.storage.os": EnvStorageEntry,
    "env.storage.memory": EnvStorageEntry,
    "env.variable": EnvVariableEntry,
    "security.policy": PolicyEntry,
    "config.aws": AwsConfigEntry,
}

# What has its class above and no behaviour yet: take a line out here when it has.
NOT_YET_KINDS: Final[frozenset[str]] = frozenset()
NOT_YET_FIELDS: Final[Mapping[type, frozenset[str]]] = {}
# Drivers of the specification; one without a DriverKind is «not supported yet».
PLANNED_DRIVERS: Final = tuple(f"{DRIVER_KINDS}{name}" for name in ("memory", "sqlite", "amqp", "redis", "sqs"))
