"""A driver between start and stop: two connections to RabbitMQ, and everything that goes through them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs
import msgspec
import pika

from wippy_queue.driver import GRACE
from wippy_queue.drivers.amqp.copier import Copier
from wippy_queue.drivers.amqp.delays import Delays
from wippy_queue.drivers.amqp.dropper import Dropper
from wippy_queue.drivers.amqp.graveyard import Graveyard
from wippy_queue.drivers.amqp.intake import GivenBack
from wippy_queue.drivers.amqp.link import Link
from wippy_queue.drivers.amqp.looker import Looker
from wippy_queue.drivers.amqp.options import MAX_PERIOD, AmqpConfig, AmqpConsumerOptions
from wippy_queue.drivers.amqp.outbox import Outbox, Parcel
from wippy_queue.drivers.amqp.parameters import connection_parameters
from wippy_queue.drivers.amqp.subscription import AmqpSubscription
from wippy_queue.drivers.amqp.topology import Declared, tier
from wippy_queue.errors import Conflict, Invalid, NotFound, QueueFull, Unavailable, WippyQueueError
from wippy_queue.ids import EntryId
from wippy_queue.message import DEAD_LETTER_REASON, RESERVED_PREFIX, Message
from wippy_queue.queues import QueueInfo

_log = logging.getLogger(__name__)

_ANSWER: Final = 10.0  # seconds for an answer of the broker, where the caller names none
_GOODBYE: Final = 1.0  # seconds of a stop that the broker has to answer to the close of the connections
_SOON: Final = 0.005  # seconds until the first repetition of what can only be asked for again; then twice that, ...
_ROOM: Final = 0.05  # ... up to this between two tries to get into a full queue
_IDLE: Final = 0.1  # ... and this between two looks whether a queue is idle


class Broker:
    """Everything that a running driver has.

    Thread safety: every method may be called from any thread but the links'.
    """

    def __init__(self, driver_id: EntryId, config: AmqpConfig, declared: Mapping[str, Declared]) -> None:
        self._id = driver_id
        self._config = config
        name = config.connection_name or driver_id
        self._consuming = self._link(f"{driver_id}-consuming", f"{name} (consuming)", self._consuming_up)
        self._publishing = self._link(f"{driver_id}-publishing", f"{name} (publishing)", self._publishing_up)
        self._outbox = Outbox(self._publishing)
        self._delays = Delays()
        self._copier = Copier(self._consuming, self._outbox, self._delays, config.frame_size)
        self._dropper = Dropper(f"{driver_id}-dropper")
        self._graveyard = Graveyard(self._consuming, self._copier, self._dropper, declared)
        self._given_back = GivenBack()
        self._looker = Looker(
            self._consuming, self._delays, self._graveyard, self._given_back, lambda: self._subscriptions
        )
        self._lock = threading.Lock()
        self._subscriptions: frozenset[AmqpSubscription] = frozenset()  # replaced as a whole, under the lock
        self._moved = threading.Condition()  # something was settled, purged or stopped
        self._moves = 0  # how often something went back to a queue; guarded by _moved
        self._stopping = threading.Event()

    def _link(self, name: str, shown: str, on_up: Callable[[pika.SelectConnection], None]) -> Link:
        config = self._config
        return Link(
            name,
            connection_parameters(config, shown),
            delay=config.reconnect_delay,
            max_delay=config.reconnect_max_delay,
            on_up=on_up,
        )

    def start(self) -> None:
        """Connect, or raise why not."""
        deadline = time.monotonic() + self._config.connection_timeout
        self._dropper.start()
        links = (self._consuming, self._publishing)
        for link in links:
            link.start()
        try:
            for link in links:
                link.wait_up(deadline - time.monotonic(), patient=False)
        except BaseException:
            self.stop(_GOODBYE)
            raise

    def stop(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._stopping.set()
        self._on_settled(True)
        subscriptions = list(self._subscriptions)
        for subscription in subscriptions:
            subscription.begin_close()
        for subscription in subscriptions:
            subscription.wait_closed(deadline)
        self._dropper.stop(deadline)
        self._outbox.close()
        links = (self._publishing, self._consuming)
        for link in links:
            link.begin_stop()
        deadline = min(deadline, time.monotonic() + _GOODBYE)
        for link in links:
            link.finish_stop(deadline)

    # on the links' threads

    def _consuming_up(self, connection: pika.SelectConnection) -> None:
        intakes = [subscription.intake for subscription in self._subscriptions] + self._graveyard.intakes
        if not intakes:
            self._consuming.settled()
        for intake in intakes:
            intake.open(connection)

    def _publishing_up(self, connection: pika.SelectConnection) -> None:
        self._outbox.open(connection)

    def _on_settled(self, moved: bool) -> None:
        with self._moved:
            self._moves += moved
            self._moved.notify_all()

    # declaring

    def declare(self, declared: Declared) -> Declared:
        """Declare the queue and return it as it is to be used."""
        what = f"queue {declared.queue.id}"
        while True:
            try:
                self._consuming.request(what, declared.declare, _ANSWER)
                return declared
            except Conflict as error:
                mismatch = declared.mismatch(error)
                name = str(mismatch.details.get("name"))
                if mismatch is error or declared.options.on_mismatch == "fail" or name in declared.as_it_is:
                    raise mismatch from None
                declared = attrs.evolve(declared, as_it_is=(*declared.as_it_is, name))
                fields = {"queue": declared.queue.id, **mismatch.details}
                _log.warning("a queue differs from its options and is used as it is", extra={"fields": fields})

    def catch_dropped(self, declared: Declared) -> None:
        """See to it that messages which the broker drops reach the flow."""
        self._graveyard.open(declared, _ANSWER)

    # publishing

    def publish(self, declared: Declared, messages: Sequence[Message], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        parcels = [self._parcel(declared, message, deadline) for message in messages]
        try:
            self._deliver(declared, parcels, deadline)
        except WippyQueueError as error:
            error.details["accepted"] = [parcel.id for parcel in parcels if parcel.fate == "stored"]
            raise

    def _parcel(self, declared: Declared, message: Message, deadline: float) -> Parcel:
        _check_priority(self._id, declared, message)
        if message.delay > MAX_PERIOD:
            raise Invalid(f"delay: driver {self._id} can keep a message for {MAX_PERIOD:g} s at most")
        expires_at = self._expires_at(declared, message)
        if expires_at != message.expires_at:
            message = msgspec.structs.replace(message, expires_at=expires_at)
        if expires_at is not None or "amqp.expiration" in message.headers:
            self._graveyard.open(declared, max(0.0, deadline - time.monotonic()))
        if message.delay <= 0:
            return self._copier.parcel(declared.name, message, waiting=False)
        ms = tier(message.delay)
        self._declare_delay(declared, ms, max(0.0, deadline - time.monotonic()))
        parcel = self._copier.parcel(declared.delay_name(ms), message, waiting=True)
        parcel.until = self._delays.until(declared, ms)
        return parcel

    def _declare_delay(self, declared: Declared, ms: int, timeout: float) -> None:
        if not self._delays.is_fresh(declared, ms):
            what = f"queue {declared.queue.id}"
            self._consuming.request(what, lambda channel: declared.declare_delay(channel, ms), timeout)
            self._delays.note(declared, ms)

    def _expires_at(self, declared: Declared, message: Message) -> float | None:
        own = message.expires_at
        if own is None and self._config.default_message_ttl is not None and DEAD_LETTER_REASON not in message.headers:
            own = message.timestamp + self._config.default_message_ttl
        if declared.message_ttl is None or message.attempts:
            return own
        limit = time.time() + declared.message_ttl
        return limit if own is None else min(own, limit)

    def _deliver(self, declared: Declared, parcels: Sequence[Parcel], deadline: float) -> None:
        """Publish until everything is stored: what a full queue refuses again and again, what found none once more."""
        left = parcels
        pause = _SOON
        mended = False
        while True:
            began = time.monotonic()
            self._outbox.publish(left, deadline)
            took = time.monotonic() - began
            self._keep_delays(declared, [parcel for parcel in left if parcel.fate == "stored"])
            left = [parcel for parcel in left if parcel.fate != "stored"]
            if not left:
                return
            returned = any(parcel.fate == "returned" for parcel in left)
            if returned or any(parcel.fate == "stale" for parcel in left):
                if returned and mended:
                    route = left[0].route
                    raise NotFound(f"queue {declared.queue.id}: RabbitMQ has no queue {route!r}; was it deleted?")
                self._mend(declared, left, deadline)
                mended = mended or returned
                continue
            self._wait_for_room(declared, pause, took, deadline)
            pause = min(2 * pause, _ROOM)

    def _mend(self, declared: Declared, parcels: Sequence[Parcel], deadline: float) -> None:
        """Somebody has deleted the queue: declare it again."""
        timeout = max(0.0, deadline - time.monotonic())
        self._consuming.request(f"queue {declared.queue.id}", declared.declare, timeout)
        self._renew_delays(declared, parcels, timeout)

    def _keep_delays(self, declared: Declared, stored: Sequence[Parcel]) -> None:
        """What was stored late, as by a broker that was out of memory, must not outlive the queue that it waits in."""
        now = time.monotonic()
        late = [parcel for parcel in stored if parcel.until < now]
        if late:
            self._renew_delays(declared, late, _ANSWER)

    def _renew_delays(self, declared: Declared, parcels: Sequence[Parcel], timeout: float) -> None:
        for ms in {int(parcel.route.rpartition(".")[2]) for parcel in parcels if parcel.route != declared.name}:
            self._delays.forget(declared, ms)
            self._declare_delay(declared, ms, timeout)
            for parcel in parcels:
                if parcel.route == declared.delay_name(ms):
                    parcel.until = self._delays.until(declared, ms)

    def _wait_for_room(self, declared: Declared, pause: float, took: float, deadline: float) -> None:
        """Wait until another try makes sense; the broker does not tell when there is room, so it is asked."""
        full = QueueFull(
            f"queue {declared.queue.id} is full: max_length is {declared.options.max_length}; consume faster, or raise"
            " max_length"
            if declared.options.max_length
            else f"queue {declared.queue.id}: RabbitMQ takes no more messages, perhaps by a policy"
        )
        if declared.options.overflow == "reject":
            raise full
        left = deadline - time.monotonic()
        last = left < pause + 2 * took + _SOON  # another try could not be confirmed in time
        if self._stopping.wait(max(0.0, left if last else pause)):
            raise Unavailable(f"driver {self._id} was stopped while a publish to {declared.queue.id} waited for room")
        if last or time.monotonic() >= deadline:  # on a busy machine a pause may take long
            raise full

    # consuming

    def subscribe(self, declared: Declared, window: int, options: AmqpConsumerOptions) -> AmqpSubscription:
        self._consuming.wait_up(self._config.connection_timeout)
        self._graveyard.open(declared, _ANSWER)
        subscription = AmqpSubscription(
            self._consuming,
            declared,
            self._given_back,
            self._copier,
            self._dropper,
            window=min(window, self._config.prefetch_count or window, 65_535),
            options=options,
            on_settled=self._on_settled,
            on_close=self._forget,
        )
        with self._lock:
            self._subscriptions |= {subscription}
        self._consuming.call(lambda: self._consuming.use(subscription.intake.open))
        if not options.no_wait:
            try:
                subscription.wait_attached(self._config.connection_timeout)
            except BaseException:
                subscription.close(GRACE)
                raise
        return subscription

    def _forget(self, subscription: AmqpSubscription) -> None:
        with self._lock:
            self._subscriptions -= {subscription}

    # looking

    def info(self, declared: Declared) -> QueueInfo:
        return self._looker.info(declared)

    def peek(self, declared: Declared, limit: int) -> list[Message]:
        return self._looker.peek(declared, limit)

    def purge(self, declared: Declared) -> int:
        count = self._looker.purge(declared)
        self._on_settled(True)
        return count

    def wait_idle(self, declared: Declared, timeout: float) -> bool:
        """Return whether the queue has become idle; the broker does not tell, so it is asked again and again."""
        deadline = time.monotonic() + timeout
        pause = _SOON
        while True:
            try:
                if self._looker.is_idle(declared, lambda: self._moves):
                    return True
                trouble = None
            except Unavailable as error:
                if error.retryable is False or self._stopping.is_set():
                    raise
                trouble = error
            left = deadline - time.monotonic()
            if left <= 0:
                if trouble is not None:
                    raise trouble
                return False
            with self._moved:
                self._moved.wait(min(left, pause))
            pause = min(2 * pause, _IDLE)


def _check_priority(driver_id: EntryId, declared: Declared, message: Message) -> None:
    """Refuse a priority that the queue cannot honour; one of a neutral header, or of a dead letter, only travels."""
    asked = message.priority or message.headers.get("amqp.priority")
    if not asked or declared.options.max_priority is not None or declared.as_it_is:
        return
    if message.headers.get("priority") == asked or any(key.startswith(RESERVED_PREFIX) for key in message.headers):
        return
    raise Invalid(
        f"priority: driver {driver_id} honours it on queues with the option max_priority; {declared.queue.id} has none"
    )
