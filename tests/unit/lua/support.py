"""A host without an engine, and one-line access to Lua, for the tests of the Lua side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from wippy_queue.delivery import Delivery
from wippy_queue.environment import Environment
from wippy_queue.errors import Invalid, NotFound
from wippy_queue.handler import Outcome, WorkerContext
from wippy_queue.ids import EntryId
from wippy_queue.lua.handler import LuaFunction
from wippy_queue.lua.host import Host, Source
from wippy_queue.message import Encoding, HeaderValue, Message
from wippy_queue.queues import QueueInfo
from wippy_queue.security import Guard

FUNCTION = EntryId("app:handler")


@attrs.define
class Published:
    """A publisher that remembers; ``error`` is raised instead where it is set."""

    messages: list[tuple[str, bytes, Encoding, dict[str, HeaderValue]]] = attrs.field(factory=list)
    encodings: dict[str, Encoding] = attrs.field(factory=lambda: {"app:tasks": "json", "app:packed": "msgpack"})
    error: Exception | None = None

    def publish(
        self,
        queue_id: str,
        body: bytes,
        encoding: Encoding,
        headers: dict[str, HeaderValue],
        cancel: threading.Event,
        deadline: float,
    ) -> str:
        if self.error is not None:
            raise self.error
        self.messages.append((queue_id, body, encoding, headers))
        return f"m-{len(self.messages)}"

    def post(self, queue_id: str, bodies: Sequence[bytes], encoding: Encoding) -> None:
        if self.error is not None:
            raise self.error
        self.messages += [(queue_id, body, encoding, {}) for body in bodies]

    def queue_encoding(self, queue_id: str) -> Encoding:
        if queue_id not in self.encodings:
            raise NotFound(f"there is no queue {queue_id}")
        return self.encodings[queue_id]

    def info(self, queue_id: str) -> QueueInfo:
        self.queue_encoding(queue_id)
        return QueueInfo(message_count=3, ready=1, in_flight=2, delayed=0, consumer_count=1)


def no_store(store_id: str) -> object:
    raise NotFound(f"there is no store {store_id}")


def no_function(function_id: str) -> Any:
    raise NotFound(f"there is no function {function_id}")


def make_host(published: Published | None = None, **settings: Any) -> Host:
    published = published or Published()
    settings.setdefault("store", no_store)
    settings.setdefault("function", no_function)
    settings.setdefault("access", Guard())
    settings.setdefault("environment", Environment([], {}))
    return Host(
        publish=published.publish,
        post=published.post,
        queue_encoding=published.queue_encoding,
        info=published.info,
        **settings,
    )


def make_source(
    text: str, *, modules: tuple[str, ...] = (), imports: Mapping[str, EntryId] | None = None, method: str | None = None
) -> Source:
    return Source(id=FUNCTION, text=text, name="handler.lua", method=method, modules=modules, imports=imports or {})


def make_function(
    text: str,
    *,
    modules: tuple[str, ...] = (),
    imports: Mapping[str, EntryId] | None = None,
    method: str | None = None,
    host: Host | None = None,
    timeout: float | None = None,
    memory_limit: int | None = 64 << 20,
) -> LuaFunction:
    source = make_source(text, modules=modules, imports=imports, method=method)
    return LuaFunction(source, host or make_host(), timeout, memory_limit)


def call(body: str, *arguments: Any, modules: tuple[str, ...] = (), **settings: Any) -> Any:
    """Run ``body`` as a function of ``...`` and return its first value; an error it returns or raises is raised."""
    required = "".join(f'local {name} = require("{name}")\n' for name in modules)
    return make_function(f"{required}return function(...)\n{body}\nend", modules=modules, **settings).call(arguments)


def make_delivery(body: bytes = b"{}", encoding: Encoding = "json", **fields: Any) -> Delivery:
    fields.setdefault("id", "m-1")
    fields.setdefault("timestamp", 1_700_000_000.0)
    return Delivery(Message(body=body, encoding=encoding, **fields), receipt=None)


def make_worker(
    settle: Callable[[Delivery, Outcome], bool] | None = None,
    *,
    auto_ack: bool = False,
    cancel: threading.Event | None = None,
) -> WorkerContext:
    return WorkerContext(
        consumer=EntryId("app:consumer"),
        queue=EntryId("app:tasks"),
        worker=0,
        settle=settle or (lambda delivery, outcome: delivery.claim()),
        cancel=cancel or threading.Event(),
        auto_ack=auto_ack,
    )


__all__ = [
    "FUNCTION",
    "Invalid",
    "Published",
    "call",
    "make_delivery",
    "make_function",
    "make_host",
    "make_source",
    "make_worker",
]
