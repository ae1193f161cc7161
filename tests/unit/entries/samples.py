"""Two drivers that never run, and an application to break."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, NoReturn

import attrs

from wippy_queue import entries
from wippy_queue.driver import Capabilities, DriverKind
from wippy_queue.ids import EntryId
from wippy_queue.options import duration, size, whole

MODULES = frozenset({"json", "logger", "queue", "time"})


@attrs.frozen(kw_only=True)
class NoFields:
    """Nothing to say."""


@attrs.frozen(kw_only=True)
class MemoryOptions:
    max_length: int = whole(0)
    overflow: Literal["block", "reject", "drop_oldest"] = "block"
    message_ttl: float | None = duration(None)


@attrs.frozen(kw_only=True)
class Tls:
    enabled: bool = False
    ca: str | None = None


class QueueType(StrEnum):
    CLASSIC = "classic"
    QUORUM = "quorum"


@attrs.frozen(kw_only=True)
class RabbitConfig:
    url: str = attrs.field(validator=attrs.validators.matches_re(r"amqps?://.+"))
    heartbeat: float = duration(20.0, minimum=1.0, maximum=3600.0)
    reconnect_delay: float = duration(1.0)
    reconnect_max_delay: float = duration(30.0)
    frame_size: int = size(128 * 1024, minimum=4096)
    channel_max: int = attrs.field(default=0, validator=attrs.validators.in_((0, 1, 2)))
    password: str | None = attrs.field(
        default=None, repr=False, validator=attrs.validators.optional(attrs.validators.max_len(12))
    )
    tls: Tls = attrs.field(factory=Tls)
    labels: Mapping[str, Any] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if self.reconnect_delay > self.reconnect_max_delay:
            raise ValueError(f"reconnect_delay must not be longer than reconnect_max_delay, at {self.url}")


@attrs.frozen(kw_only=True)
class RabbitQueue:
    durable: bool = True
    queue_type: QueueType = QueueType.CLASSIC
    max_priority: int | None = whole(None, maximum=9)
    bindings: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class RabbitConsumer:
    consumer_tag: str | None = None
    exclusive: bool = False


def _never(_name: EntryId, _config: Any) -> NoReturn:
    raise AssertionError("loading an application creates no driver")


MEMORY = DriverKind(
    kind="queue.driver.memory",
    config=NoFields,
    queue_options=MemoryOptions,
    consumer_options=NoFields,
    capabilities=Capabilities(),
    create=_never,
)
RABBIT = DriverKind(
    kind="queue.driver.amqp",
    config=RabbitConfig,
    queue_options=RabbitQueue,
    consumer_options=RabbitConsumer,
    capabilities=Capabilities(),
    create=_never,
)
DRIVERS = {kind.kind: kind for kind in (MEMORY, RABBIT)}

APPLICATION = """\
version: "1.0"
namespace: app.queue
entries:
  - name: memory
    kind: queue.driver.memory
    lifecycle:
      auto_start: true
  - name: rabbit
    kind: queue.driver.amqp
    url: amqp://localhost/
  - name: tasks
    kind: queue.queue
    driver: memory
    options:
      max_length: 100
    dead_letter:
      queue: failed
    retry:
      initial_delay: 100ms
  - name: failed
    kind: queue.queue
    driver: app.queue:rabbit
    driver_options:
      amqp:
        durable: true
      memory:
        max_length: 5
  - name: worker
    kind: queue.consumer
    queue: tasks
    func: handler
    concurrency: 4
    lifecycle:
      auto_start: true
      depends_on:
        - app.queue:tasks
  - name: handler
    kind: function.lua
    source: file://handler.lua
    modules:
      - json
      - logger
    imports:
      helpers: app.queue:helpers
  - name: helpers
    kind: library.lua
    source: return {}
  - name: resize
    kind: function.python
    source: images.tools:resize
  - name: cache
    kind: store.memory
    max_size: 10
"""


def write(folder: Path, text: str | bytes = APPLICATION, name: str = "_index.yaml") -> Path:
    """Write an application with its one Lua file; return the YAML file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "handler.lua").write_text("return function(body) return body end\n", encoding="utf-8")
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def load(folder: Path, text: str | None = None, **options: Any) -> entries.Application:
    """Load a folder, with ``text`` as its index where it is given."""
    if text is not None:
        write(folder, text)
    return entries.load([folder], **{"driver_kinds": DRIVERS, "known_modules": MODULES, **options})
