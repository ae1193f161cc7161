"""Publishing: pipelined, each message confirmed by the broker, with a bounded window and a deadline for the caller."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import attrs
import pika
from pika import BasicProperties, exceptions
from pika.channel import Channel

from wippy_queue.drivers.amqp.link import Link, drive
from wippy_queue.drivers.amqp.trouble import words
from wippy_queue.errors import Invalid, Timeout, Unavailable, WippyQueueError

_log = logging.getLogger(__name__)

_WINDOW: Final = 1000  # messages that are sent and not confirmed, at most
_TOO_LARGE: Final = re.compile(r"message size \d+ is larger than configured max size (\d+)")  # what RabbitMQ says

# waiting: not sent. sent: neither confirmed nor refused. unknown: it never will be, for the connection is gone.
# stale: not sent, for its delay queue may be gone by now.
Fate = Literal["waiting", "sent", "stored", "refused", "returned", "stale", "unknown"]


@attrs.define(eq=False)
class Parcel:
    """One message on its way to the broker. ``fate`` is written by the outbox alone."""

    id: str
    route: str  # the name of the queue
    properties: BasicProperties
    body: bytes
    mandatory: bool = True
    until: float = math.inf  # monotonic; not to be sent later, for its queue must be declared anew before
    fate: Fate = "waiting"
    batch: Batch | None = None


class Batch:
    """Parcels that are published together; ``done`` is called once, when each of them has met its fate."""

    __slots__ = ("abandoned", "done", "error", "left", "parcels")

    def __init__(self, parcels: Sequence[Parcel], done: Callable[[], None]) -> None:
        self.parcels = parcels
        self.left = len(parcels)
        self.done = done
        self.abandoned = False  # nobody waits: what is not sent yet never will be
        self.error: WippyQueueError | None = None  # why parcels are unknown
        for parcel in parcels:
            parcel.batch = self
            parcel.fate = "waiting"


class Outbox:
    """Publishes through one channel of the publishing connection.

    Thread safety: ``post`` and ``publish`` from any thread but the link's; everything else runs on the link's.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()  # guards the fates, _queue, _scheduled and _closed
        self._queue: deque[Parcel] = deque()
        self._scheduled = False
        self._closed = False
        self.frame = math.inf  # bytes that the broker has agreed to; any thread may read it
        self._channel: Channel | None = None
        self._connection: Any = None  # that the channel is of, or the last one was
        self._largest = math.inf  # bytes of a body; known once the broker has closed a channel for a larger one
        self._sent: dict[int, Parcel] = {}  # by the number that the broker confirms
        self._number = 0
        self._returned: dict[tuple[str, str | None], int] = {}  # what came back; its confirm follows

    # from any thread

    def post(self, batch: Batch) -> None:
        """Publish as soon as can be; ``batch.done`` tells, on the link's thread."""
        with self._lock:
            closed, wake = self._closed, not self._scheduled
            if closed:
                batch.error = Unavailable(f"{self._link.name} was stopped")
            elif (large := next((p for p in batch.parcels if len(p.body) > self._largest), None)) is not None:
                batch.error = self._too_large(large)  # before anything of it is sent
            else:
                self._queue.extend(batch.parcels)
                self._scheduled = True
        if batch.error is not None:
            batch.done()
        elif wake:
            self._link.call(self._pump)

    def publish(self, parcels: Sequence[Parcel], deadline: float) -> None:
        """Publish and wait until the broker has stored, refused or returned each of them: see their fates.

        Raises:
            Timeout, Unavailable: at the deadline (monotonic seconds), or when the connection is lost meanwhile.
        """
        finished = threading.Event()
        batch = Batch(parcels, finished.set)
        self.post(batch)
        if not finished.wait(max(0.0, deadline - time.monotonic())):
            with self._lock:
                batch.abandoned = batch.left > 0
                if batch.abandoned:  # its bodies must not stay until the broker is back
                    self._queue = deque(parcel for parcel in self._queue if parcel.batch is not batch)
        if batch.error is not None:
            raise batch.error
        if batch.abandoned:
            raise self._late(parcels)

    @property
    def able(self) -> bool:
        """Whether the broker takes messages now."""
        return self._link.why_down() is None and self._link.blocked is None

    def _late(self, parcels: Sequence[Parcel]) -> WippyQueueError:
        unknown = sum(parcel.fate == "sent" for parcel in parcels)
        outcome = (
            f"the outcome of {unknown} of {len(parcels)} messages is unknown: publishing them again may repeat them"
            if unknown
            else f"{sum(parcel.fate == 'waiting' for parcel in parcels)} of {len(parcels)} messages were not sent"
        )
        blocked = self._link.blocked
        if blocked is not None:
            return Unavailable(f"RabbitMQ at {self._link.address} is out of memory or disk ({blocked}); {outcome}")
        down = self._link.why_down()
        if down is not None:
            return Unavailable(f"{down.message}; {outcome}", retryable=down.retryable)
        return Timeout(f"RabbitMQ at {self._link.address} has not confirmed in time; {outcome}")

    def close(self) -> None:
        """Let everybody go who waits; what was sent may or may not be stored. Any thread."""
        with self._lock:
            self._closed = True
            waiting = list(self._queue)
            self._queue.clear()
        self._fail(
            [p for p in waiting if p.fate == "waiting"], Unavailable(f"{self._link.name} was stopped"), "waiting"
        )
        self._link.call(lambda: self._lose(Unavailable(f"{self._link.name} was stopped; the outcome is unknown")))

    # on the link's thread

    def open(self, connection: pika.SelectConnection) -> None:
        """The connection is there: get a channel that confirms."""
        if connection is not self._connection:
            self._connection, self._largest, self.frame = connection, math.inf, connection.params.frame_max
            connection.add_on_connection_unblocked_callback(lambda *_: self._pump())
        channel = connection.channel(on_open_callback=self._select)
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(self._on_return)

    def _select(self, channel: Channel) -> None:
        def ready(_: Any, error: WippyQueueError | None) -> None:
            if error is not None:
                _log.warning("publishing cannot begin", extra={"fields": {"error": str(error)}})
                channel.close()
                return
            self._channel = channel
            self._number = 0
            self._link.settled()
            self._pump()

        def steps(channel: Channel) -> Any:
            yield lambda callback: channel.confirm_delivery(self._on_confirm, callback=callback)

        drive(channel, steps(channel), ready)

    def _channel_closed(self, channel: Channel, reason: Exception) -> None:
        if channel is self._channel:
            self._channel = None
        said = words(reason)
        too_large = _TOO_LARGE.search(said)
        if too_large is not None:
            self._largest = int(too_large[1])
            guilty = {number: parcel for number, parcel in self._sent.items() if len(parcel.body) > self._largest}
            for number in guilty:
                del self._sent[number]
            for parcel in guilty.values():
                self._refuse_size(parcel)
        self._lose(Unavailable(f"RabbitMQ closed the channel: {said}; the outcome is unknown"))
        connection = channel.connection
        if connection.is_open and not self._closed:  # else the link opens another one
            self._link.later(1.0 if too_large is None else 0.0, lambda: self._reopen(connection))

    def _refuse_size(self, parcel: Parcel) -> None:
        self._fail([parcel], self._too_large(parcel), "refused")

    def _too_large(self, parcel: Parcel) -> Invalid:
        text = f"{len(parcel.body)} bytes, and this RabbitMQ takes {self._largest} at most (max_message_size)"
        return Invalid(f"message {parcel.id}: its body has {text}")

    def _reopen(self, connection: Any) -> None:
        if connection.is_open and self._channel is None:
            self.open(connection)

    def _pump(self) -> None:
        """Send what waits, as far as the window goes."""
        channel = self._channel
        with self._lock:
            self._scheduled = False
            if channel is None or self._link.blocked is not None:
                return
            batch: list[Parcel] = []
            finished: list[Batch] = []
            now = time.monotonic()
            while self._queue and len(self._sent) + len(batch) < _WINDOW:
                parcel = self._queue.popleft()
                if parcel.batch is None or parcel.batch.abandoned:
                    continue
                if parcel.until < now:
                    _settle(parcel, "stale", finished)
                    continue
                parcel.fate = "sent"
                batch.append(parcel)
        for one in finished:
            one.done()
        if batch:
            connection: Any = channel.connection
            with connection.together():
                self._send(channel, batch)

    def _send(self, channel: Channel, batch: Sequence[Parcel]) -> None:
        for index, parcel in enumerate(batch):
            if parcel.batch is None or parcel.batch.abandoned:
                continue  # one before it of its batch could not be sent
            if len(parcel.body) > self._largest:  # it would cost everybody the channel
                self._refuse_size(parcel)
                continue
            try:
                channel.basic_publish("", parcel.route, parcel.body, parcel.properties, parcel.mandatory)
            except exceptions.ChannelWrongStateError:  # closing; what is not sent waits for the next one
                with self._lock:
                    for other in batch[index:]:
                        other.fate = "waiting"
                    self._queue.extendleft(reversed(batch[index:]))
                return
            except Exception as error:
                self._fail([parcel], Invalid(f"message {parcel.id} cannot be sent: {words(error)}"), "refused")
            else:
                self._number += 1
                self._sent[self._number] = parcel

    def _on_return(self, _: Channel, method: Any, properties: BasicProperties, __: bytes) -> None:
        key = (method.routing_key, _key(properties))
        self._returned[key] = self._returned.get(key, 0) + 1

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        number = method.delivery_tag
        if method.multiple:
            parcels = [self._sent.pop(n) for n in [n for n in self._sent if n <= number]]
        else:
            parcel = self._sent.pop(number, None)
            parcels = [] if parcel is None else [parcel]
        stored = type(method).__name__ == "Ack"
        finished: list[Batch] = []
        with self._lock:
            for parcel in parcels:
                fate: Fate = "stored" if stored else "refused"
                if self._returned and self._came_back(parcel):
                    fate = "returned"
                _settle(parcel, fate, finished)
            wake = bool(self._queue) and not self._scheduled
        for batch in finished:
            batch.done()
        if wake:
            self._pump()

    def _came_back(self, parcel: Parcel) -> bool:
        key = (parcel.route, _key(parcel.properties))
        count = self._returned.get(key, 0)
        if count > 1:
            self._returned[key] = count - 1
        elif count:
            del self._returned[key]
        return count > 0

    def _lose(self, error: WippyQueueError) -> None:
        """What was sent will not be confirmed any more."""
        lost, self._sent = list(self._sent.values()), {}
        self._returned.clear()
        self._fail(lost, error, "unknown")

    def _fail(self, parcels: Sequence[Parcel], error: WippyQueueError, fate: Fate) -> None:
        """These parcels meet that fate, and with them what their batches have not sent yet."""
        finished: list[Batch] = []
        with self._lock:
            for parcel in parcels:
                _settle(parcel, fate, finished)
            for batch in {parcel.batch for parcel in parcels if parcel.batch is not None}:
                batch.error = batch.error or error
                if batch.left:
                    batch.abandoned = True
                    batch.left = 0
                    finished.append(batch)
        for batch in finished:
            batch.done()


def _key(properties: BasicProperties) -> str | None:
    """Return what a returned message is known by: its id, or where that is too long, the header that holds it."""
    return properties.message_id or str((properties.headers or {}).get("x-wippy"))


def _settle(parcel: Parcel, fate: Fate, finished: list[Batch]) -> None:
    parcel.fate = fate
    batch = parcel.batch
    if batch is not None and batch.left:
        batch.left -= 1
        if batch.left == 0:
            finished.append(batch)
