"""Consuming on one channel: deliveries in, acks out, and a new channel whenever the old one is lost."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import pika
from pika import BasicProperties
from pika.channel import Channel

from wippy_queue.delivery import Delivery
from wippy_queue.drivers.amqp.link import Link, Steps, drive
from wippy_queue.drivers.amqp.trouble import channel_trouble
from wippy_queue.errors import Unavailable, WippyQueueError
from wippy_queue.message import Message

_log = logging.getLogger(__name__)

_FIRST_RETRY: Final = 0.1  # seconds until a lost channel is opened again; doubled each time that fails
_LAST_RETRY: Final = 10.0
_REMEMBERED: Final = 100_000


class Receipt:
    """What a delivery is settled with."""

    __slots__ = ("begun", "message", "moving", "tag")

    def __init__(self, tag: int, message: Message) -> None:
        self.tag = tag
        self.message = message
        self.begun = False
        self.moving = False  # a copy of it is on its way, which takes its place


class GivenBack:
    """Which messages this process gave back although no handler had failed: RabbitMQ says only that they come again.

    Thread safety: the consuming link's thread alone.
    """

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()

    def add(self, queue: str, message_id: str) -> None:
        key = (queue, message_id)
        self._counts[key] = self._counts.pop(key, 0) + 1
        if len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)

    def count(self, queue: str, message_id: str) -> int:
        return self._counts.get((queue, message_id), 0)

    def forget(self, queue: str, message_id: str) -> int:
        return self._counts.pop((queue, message_id), 0) if self._counts else 0


class Intake:
    """Consumes queues on a channel of its own.

    Deliveries of a lost channel are void: the broker gives them to somebody else. So each channel is an epoch, and what
    belongs to an older one is never settled.

    Thread safety: the consuming link's thread, but for ``epoch``, ``holds``, ``begin`` and ``error``, any thread.
    """

    def __init__(
        self,
        link: Link,
        what: str,
        queues: Sequence[str],
        *,
        window: int,
        shared_window: bool,
        prepare: Callable[[Channel], Steps[None]],
        on_message: Callable[[int, int, bool, BasicProperties, bytes], Receipt],
        on_change: Callable[[], None],
        on_lost: Callable[[Iterable[Receipt], WippyQueueError], None],
        consumer_tag: str | None = None,
        exclusive: bool = False,
    ) -> None:
        self._link = link
        self._what = what
        self._queues = queues
        self._window = window
        self._shared_window = shared_window
        self._prepare = prepare
        self._on_message = on_message  # (epoch, tag, redelivered, properties, body)
        self._on_change = on_change  # attached, or in trouble: see ``attached`` and ``error``
        self._on_lost = on_lost  # receipts that were neither acked nor given back, and why
        self._consumer_tag = consumer_tag
        self._exclusive = exclusive
        self._lock = threading.Lock()  # guards the epoch and the receipts' ``begun``
        self._epoch = 0
        self._channel: Channel | None = None
        self._open: dict[int, Receipt] = {}  # by tag
        self._order: deque[int] = deque()  # tags in the order of their delivery, from the first one that is open
        self._gone: set[int] = set()  # tags in _order that are settled
        self._asked: list[Callable[[WippyQueueError | None], None]] = []  # who waits for a sync
        self._retry = _FIRST_RETRY
        self._cancelled = False
        self._quiet = False  # cancelled, and no more deliveries will come
        self._waiting: list[Callable[[], None]] = []  # for that
        self._ended = False
        self.attached = False
        self.error: WippyQueueError | None = None  # why it is not attached

    # any thread

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def held(self) -> list[Receipt]:
        """What is not settled, in the order of its delivery; the link's thread."""
        return list(self._open.values())

    @property
    def holds(self) -> int:
        """How many deliveries are not settled."""
        return len(self._open)

    def begin(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Note that handlers start; return the deliveries that are not void."""
        with self._lock:
            valid = [delivery for delivery in deliveries if delivery.epoch == self._epoch]
            for delivery in valid:
                delivery.receipt.begun = True
            return valid

    def retract(self, deliveries: Sequence[Delivery]) -> None:
        with self._lock:
            for delivery in deliveries:
                delivery.receipt.begun = False

    # the link's thread

    def open(self, connection: Any) -> None:
        """Begin to consume on a new channel."""
        if self._cancelled or self._channel is not None or not connection.is_open:
            return
        self._next_epoch()
        self._channel = connection.channel(on_open_callback=lambda channel: drive(channel, self._attach(channel), done))
        self._channel.add_on_close_callback(self._closed)

        def done(_: Any, error: WippyQueueError | None) -> None:
            if error is not None:
                self._trouble(error)
                return
            self.attached, self.error, self._retry = True, None, _FIRST_RETRY
            self._link.settled()
            self._on_change()

    def _next_epoch(self) -> None:
        with self._lock:
            self._epoch += 1

    def _attach(self, channel: Channel) -> Steps[None]:
        channel.add_on_cancel_callback(lambda _: self._cancelled_by_broker(channel))
        yield from self._prepare(channel)
        yield self._qos(channel)
        epoch = self._epoch
        for number, queue in enumerate(self._queues):
            last = number == len(self._queues) - 1
            tag = self._consumer_tag and (self._consumer_tag if last else f"{self._consumer_tag}.{number}")
            yield lambda callback, queue=queue, tag=tag: channel.basic_consume(
                queue,
                lambda _, method, properties, body: self._message(epoch, method, properties, body),
                exclusive=self._exclusive,
                consumer_tag=tag,
                callback=callback,
            )

    def _qos(self, channel: Channel) -> Callable[..., object]:
        return lambda callback: channel.basic_qos(
            prefetch_count=self._window, global_qos=self._shared_window, callback=callback
        )

    def _message(self, epoch: int, method: Any, properties: BasicProperties, body: bytes) -> None:
        tag = int(method.delivery_tag)  # a plain number: pika's own is slow
        receipt = self._on_message(epoch, tag, method.redelivered, properties, body)
        self._open[tag] = receipt
        self._order.append(tag)

    def settle(self, acked: Iterable[Receipt], returned: Iterable[Receipt]) -> None:
        """Ack and give back deliveries of this epoch: the completed prefix at once, the rest one by one."""
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        for receipt in returned:
            if self._open.pop(receipt.tag, None) is not None:
                channel.basic_nack(receipt.tag, requeue=True)
                self._gone.add(receipt.tag)
        tags = {receipt.tag for receipt in acked if self._open.pop(receipt.tag, None) is not None}
        # The highest tag of this batch inside the prefix: one that was acked before would close the channel.
        last: int | None = None
        while self._order:
            tag = self._order[0]
            if tag in tags:
                tags.discard(tag)
                last = tag
            elif tag in self._gone:
                self._gone.discard(tag)
            else:
                break
            self._order.popleft()
        if last is not None:
            channel.basic_ack(last, multiple=True)
        for tag in tags:
            channel.basic_ack(tag)
        self._gone |= tags

    def sync(self, done: Callable[[WippyQueueError | None], None]) -> None:
        """Call ``done`` when the broker has seen what was settled so far, and we what it had delivered by then."""
        channel = self._channel
        if channel is None or not channel.is_open:
            done(Unavailable(f"{self._what}: the connection was lost"))
            return
        self._asked.append(done)

        def steps(channel: Channel) -> Steps[None]:
            yield self._qos(channel)

        def answered(_: Any, error: WippyQueueError | None) -> None:
            if done in self._asked:  # else the channel was lost, and that was told
                self._asked.remove(done)
                done(error)

        drive(channel, steps(channel), answered)

    def cancel(self, done: Callable[[], None]) -> None:
        """Ask for no more deliveries; ``done`` is called when none will come."""
        if self._quiet:
            done()
            return
        self._waiting.append(done)
        if self._cancelled:
            return
        self._cancelled = True
        channel = self._channel
        if channel is None or not channel.is_open:
            self._hush()
            return
        # The queue itself first: it has the traffic.
        tags = channel.consumer_tags[::-1]

        def steps(channel: Channel) -> Steps[None]:
            for tag in tags:
                yield lambda callback, tag=tag: _cancel(channel, tag, callback)

        drive(channel, steps(channel), lambda *_: self._hush())

    def _hush(self) -> None:
        """No more deliveries will come."""
        self._quiet = True
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done()

    def close(self, done: Callable[[WippyQueueError | None], None]) -> None:
        """Close the channel; the broker takes back what is not settled. ``done`` gets None when it has seen it all."""
        self._cancelled = self._ended = True
        channel = self._channel
        if channel is None or not (channel.is_open or channel.is_opening):
            done(self.error or Unavailable(f"{self._what}: the connection was lost"))
            return

        def closed(_: Channel, reason: Exception) -> None:
            ours = isinstance(reason, pika.exceptions.ChannelClosedByClient)
            done(None if ours else channel_trouble(reason, self._what))

        channel.add_on_close_callback(closed)
        channel.close()

    def _closed(self, channel: Channel, reason: Exception) -> None:
        if channel is self._channel:
            error = channel_trouble(reason, self._what)
            # What the broker has agreed to it will agree to again, or say why not: an ack did not come in its time.
            self._lose(Unavailable(error.message) if self.attached else error)

    def _cancelled_by_broker(self, channel: Channel) -> None:
        """A queue was deleted, or has moved."""
        if channel is self._channel and not self._ended:
            self._trouble(Unavailable(f"{self._what}: RabbitMQ has ended the subscription; was a queue deleted?"))

    def _trouble(self, error: WippyQueueError) -> None:
        channel = self._channel
        self._lose(error)
        if channel is not None and channel.is_open:
            channel.close()

    def _lose(self, error: WippyQueueError) -> None:
        """The channel is gone, and with it what was delivered on it."""
        channel, self._channel = self._channel, None
        with self._lock:
            self._epoch += 1
            lost, self._open = list(self._open.values()), {}
        self._order.clear()
        self._gone.clear()
        self.attached, self.error = False, error
        asked, self._asked = self._asked, []
        for done in asked:
            done(error)
        self._on_lost(lost, error)
        self._on_change()
        if self._cancelled:
            self._hush()
        connection = None if channel is None else channel.connection
        if self._cancelled or connection is None or error.retryable is False:
            return
        if connection.is_open:  # else the link tells when there is another one
            fields = {"subscription": self._what, "error": str(error)}
            _log.warning("a channel to RabbitMQ was lost; it is opened again", extra={"fields": fields})
            self._link.later(self._retry, lambda: self.open(connection))
            self._retry = min(_LAST_RETRY, self._retry * 2)


def _cancel(channel: Channel, tag: str, callback: Callable[[Any], object]) -> None:
    """End a consumer, and keep what is on its way: pika would reject that, so that it came again as after a crash."""
    channel.basic_cancel(tag, callback=callback)
    channel._cancelled.discard(tag)  # type: ignore[attr-defined]  # no public name; a test watches over it
