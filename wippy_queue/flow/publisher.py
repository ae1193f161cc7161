"""Step 1: from a body and headers to messages that a driver has accepted."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from wippy_queue.clock import Clock
from wippy_queue.codecs import encode_body
from wippy_queue.driver import Capabilities
from wippy_queue.durations import check_seconds, parse_duration
from wippy_queue.errors import Canceled, Invalid, NotFound, QueueFull, Unavailable
from wippy_queue.flow.burial import Route
from wippy_queue.ids import EntryId
from wippy_queue.message import ATTEMPTS, NO_HEADERS, RESERVED_PREFIX, Encoding, HeaderValue, Message
from wippy_queue.suggest import did_you_mean

# Seconds after which a publish that waits for room looks whether it was cancelled: in this process, and over a network,
# where what is cut short may have been stored all the same.
_LOCAL_SLICE: Final = 0.05
_REMOTE_SLICE: Final = 1.0
_TAIL: Final = (1 << 48) - 1
_OPTION_PREFIX: Final = "wippy."


class PublishOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a publisher may ask for beside body and headers; seconds."""

    message_id: str | None = None
    delay: float | None = None
    priority: int | None = None
    ttl: float | None = None


_NO_OPTIONS: Final = PublishOptions()


class _Ids:
    """Makes the ids of messages: UUIDs (RFC 9562, version 4), random but for the last twelve digits, which count.

    `uuid.uuid4` asks the kernel for each, and gives the interpreter lock away for that.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self) -> None:
        self._renew()

    def next(self) -> str:
        if self._process != os.getpid():  # a child of a fork must not go on where its parent does
            self._renew()
        return f"{self._head}{next(self._count) & _TAIL:012x}"

    def _renew(self) -> None:
        start = str(uuid.uuid4())
        self._head, self._count = start[:-12], itertools.count(int(start[-12:], 16))
        self._process = os.getpid()


class Publisher:
    """Publishes to the declared queues.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, routes: Mapping[EntryId, Route], capabilities: Mapping[EntryId, Capabilities]) -> None:
        self._routes = routes
        self._capabilities = capabilities  # by driver id
        self._count = itertools.count(1)
        self._ids = _Ids()
        self.clock = Clock()  # what messages are stamped with; a virtual one takes its place in tests
        self.published = 0  # publishes that were begun; join looks at it

    def route(self, queue_id: str) -> Route:
        """Return the queue and its driver.

        Raises:
            NotFound: no such queue is declared.
        """
        try:
            return self._routes[queue_id]  # type: ignore[index]  # an EntryId is a str and equal to it
        except (KeyError, TypeError):
            raise NotFound(f"no queue {queue_id!r} is declared{did_you_mean(str(queue_id), self._routes)}") from None

    def may_wait(self, queue_id: str) -> bool:
        """Return whether a publish to the queue can take its time: for a disk, a network, or room."""
        route = self._routes.get(queue_id)  # type: ignore[call-overload]  # an EntryId is a str and equal to it
        return route is None or self._capabilities[route.queue.driver].durable or _bounded(route)

    def publish(
        self,
        queue_id: str,
        bodies: Iterable[Any],
        headers: Mapping[str, Any] | None,
        options: PublishOptions,
        timeout: float,
    ) -> list[str]:
        """Encode the bodies, publish them in order and return their ids.

        Args:
            queue_id: the registry id of the queue.
            bodies: JSON values or bytes.
            headers: the same for all of them.
            options: the same for all of them; ``message_id`` is for a single body.
            timeout: seconds to wait for the driver.

        Raises:
            Invalid: a body, a header or an option that cannot be published; nothing was.
            NotFound: there is no such queue.
            QueueFull, Unavailable, Timeout: the driver did not take it; ``details["accepted"]`` lists what it took.
        """
        route = self.route(queue_id)
        check_seconds(timeout, "timeout")
        if type(bodies) is not list:
            bodies = _listed(bodies)
        encoded = []
        for index, body in enumerate(bodies):
            try:
                encoded.append(encode_body(body, route.queue.encoding))
            except Invalid as error:
                raise Invalid(str(error) if len(bodies) == 1 else f"bodies[{index}]: {error}") from None
        return self._publish(route, encoded, headers, options, timeout)

    def publish_encoded(
        self,
        queue_id: str,
        body: bytes,
        encoding: Encoding,
        headers: Mapping[str, Any] | None,
        cancel: threading.Event,
        timeout: float,
    ) -> str:
        """Publish a body that a handler has encoded already; a wait for room ends when ``cancel`` is set.

        Raises:
            Canceled: the handler's consumer stops; nothing was published.
        """
        route = self.route(queue_id)
        deadline = time.monotonic() + timeout
        piece = math.inf
        if _bounded(route):  # only then there is a wait to be cut short
            piece = _REMOTE_SLICE if self._capabilities[route.queue.driver].shared else _LOCAL_SLICE
        while True:
            left = deadline - time.monotonic()
            try:
                return self._publish(route, [(body, encoding)], headers, _NO_OPTIONS, max(0.0, min(left, piece)))[0]
            except QueueFull:
                if cancel.is_set():
                    raise Canceled(f"publish to {queue_id} was cancelled while it waited for room") from None
                if left <= piece:
                    raise

    def post(self, queue_id: str, bodies: Sequence[bytes], encoding: Encoding) -> None:
        """Publish bodies that handlers have encoded already to a queue where that cannot wait, as `may_wait` tells.

        Raises:
            NotFound: there is no such queue.
            Unavailable: the driver does not run.
        """
        self._publish(self.route(queue_id), [(body, encoding) for body in bodies], None, _NO_OPTIONS, 0.0)

    def _publish(
        self,
        route: Route,
        encoded: Sequence[tuple[bytes, Encoding]],
        headers: Mapping[str, Any] | None,
        options: PublishOptions,
        timeout: float,
    ) -> list[str]:
        kept: Mapping[str, HeaderValue] = NO_HEADERS
        if headers:
            kept, options = split_headers(headers, options)
        capabilities = self._capabilities[route.queue.driver]
        plain = not kept and options == _NO_OPTIONS
        priority = 0 if plain else _check_options(options, kept, capabilities, route)
        now = self.clock.time()
        messages = [
            Message(
                id=options.message_id or self._ids.next(),
                body=body,
                encoding=encoding,
                headers=kept,
                timestamp=now,
                priority=priority,
                delay=options.delay or 0.0,
                expires_at=None if options.ttl is None else now + options.ttl,
            )
            for body, encoding in encoded
        ]
        self.published = next(self._count)
        try:
            route.driver.publish(route.queue, messages, timeout)
        except NotFound as error:  # it is declared here, so its driver is still starting, or somebody deleted it
            raise Unavailable(f"queue {route.queue.id} is not there now: {error}") from error
        return [message.id for message in messages]


def _listed(bodies: object) -> list[Any]:
    if not isinstance(bodies, Iterable) or isinstance(bodies, (str, bytes, bytearray, memoryview, Mapping)):
        raise Invalid(f"bodies: expected a list of bodies, found {type(bodies).__name__}; publish() is for one body")
    return list(bodies)


def _bounded(route: Route) -> bool:
    return bool(getattr(route.queue.options, "max_length", 0))


def split_headers(
    headers: Mapping[Any, Any], options: PublishOptions
) -> tuple[Mapping[str, HeaderValue], PublishOptions]:
    """Check the headers and take out those that are options (``wippy.delay``, ...); explicit options win.

    Raises:
        Invalid: a header that publishers may not set, or a value that cannot travel.
    """
    if not isinstance(headers, Mapping):
        raise Invalid(f"headers: expected a mapping of names to values, found {type(headers).__name__}")
    kept: dict[str, HeaderValue] = {}
    wanted: dict[str, Any] = {}
    for key, value in headers.items():
        if type(key) is not str or not key or not _travels(key):
            raise Invalid(f"headers: keys must be text, found {key!r}")
        if key == ATTEMPTS or key.startswith(RESERVED_PREFIX):
            raise Invalid(f"headers: {key!r} is written by the engine, publishers may not set it; choose another name")
        if not _travels(value):
            raise Invalid(
                f"headers: {key!r} must be text, a finite number of at most 64 bits or a boolean, found {value!r}"
            )
        if key.startswith(_OPTION_PREFIX):
            wanted[key.removeprefix(_OPTION_PREFIX)] = value
        else:
            kept[key] = value
    for name, value in wanted.items():
        if name not in _OPTION_NAMES:
            raise Invalid(
                f"headers: there is no option {_OPTION_PREFIX + name!r}"
                f"{did_you_mean(_OPTION_PREFIX + name, [_OPTION_PREFIX + known for known in _OPTION_NAMES])}"
            )
        if getattr(options, name) is None:
            wish: Any = _option_value(name, value)
            options = msgspec.structs.replace(options, **{name: wish})
    return kept or NO_HEADERS, options


_OPTION_NAMES: Final = PublishOptions.__struct_fields__


def _travels(value: object) -> bool:
    if isinstance(value, bool):
        return True
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
        return True
    return False


def _option_value(name: str, value: HeaderValue) -> object:
    if name in ("delay", "ttl") and isinstance(value, str):
        try:
            return parse_duration(value)
        except ValueError as error:
            raise Invalid(f"headers: {_OPTION_PREFIX}{name}: {error}") from None
    return value


def _check_options(
    options: PublishOptions, headers: Mapping[str, HeaderValue], capabilities: Capabilities, route: Route
) -> int:
    """Return the priority, after refusing what makes no sense or what the driver cannot do."""
    message_id: Any = options.message_id
    if message_id is not None and (type(message_id) is not str or not message_id or not _travels(message_id)):
        raise Invalid(f"message_id: expected text, found {message_id!r}")
    values: list[tuple[str, Any, bool]] = [
        ("delay", options.delay, capabilities.delay),
        ("ttl", options.ttl, capabilities.ttl),
    ]
    for name, value, able in values:
        if value is None:
            continue
        check_seconds(value, name)
        if not able and value:
            raise _not_able(name, route)
    priority: Any = options.priority
    if priority is None:
        asked = headers.get("priority")
        if type(asked) is int and 0 <= asked <= 9 and capabilities.priority:
            return asked
        return 0
    if type(priority) is not int or not 0 <= priority <= 9:
        raise Invalid(f"priority: expected an integer from 0 to 9, found {priority!r}")
    if not capabilities.priority and priority:
        raise _not_able("priority", route)
    return int(priority)


def _not_able(name: str, route: Route) -> Invalid:
    return Invalid(f"{name}: driver {route.queue.driver} of queue {route.queue.id} cannot honour it; leave it out")
