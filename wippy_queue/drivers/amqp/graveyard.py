"""What RabbitMQ drops by itself: it puts those messages into a queue, from which they are handed to the flow."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from pika import BasicProperties
from pika.channel import Channel

from wippy_queue.drivers.amqp.copier import Copier
from wippy_queue.drivers.amqp.dropper import Drop, Dropper
from wippy_queue.drivers.amqp.intake import Intake, Receipt
from wippy_queue.drivers.amqp.link import Link, Steps
from wippy_queue.drivers.amqp.topology import Declared
from wippy_queue.drivers.amqp.wire import from_wire
from wippy_queue.errors import WippyQueueError
from wippy_queue.message import Message

_WINDOW: Final = 100  # dropped messages of one queue in hand


class Graveyard:
    """Consumes the ``.dropped`` queues.

    Thread safety: ``open`` and ``holds`` from any thread but the link's; ``intakes`` from any.
    """

    def __init__(self, link: Link, copier: Copier, dropper: Dropper, declared: Mapping[str, Declared]) -> None:
        self._link = link
        self._copier = copier
        self._dropper = dropper
        self._declared = declared  # by name, as they were declared last
        self._lock = threading.Lock()
        self._intakes: dict[str, Intake] = {}

    @property
    def intakes(self) -> list[Intake]:
        with self._lock:
            return list(self._intakes.values())

    def open(self, declared: Declared, timeout: float) -> None:
        """Have the dropped messages of a queue handed over from now on."""
        with self._lock:
            if declared.name in self._intakes:
                return
        self._link.request(f"queue {declared.queue.id}", declared.declare_dropped, timeout)
        with self._lock:
            if declared.name in self._intakes:
                return
            intake = self._intakes[declared.name] = self._intake(declared)
        self._link.call(lambda: self._link.use(intake.open))

    def _intake(self, declared: Declared) -> Intake:
        name = declared.name

        def arrived(epoch: int, tag: int, _: bool, properties: BasicProperties, body: bytes) -> Receipt:
            current = self._declared.get(name, declared)
            message, reason = _read(properties, body, current)
            receipt = Receipt(tag, message)
            if reason in {"expired", "maxlen"}:
                self._dropper.put(
                    Drop(
                        current.queue,
                        message,
                        "expired" if reason == "expired" else "maxlen",
                        lambda: epoch == intake.epoch,
                        lambda: self._link.call(lambda: _forget(intake, epoch, receipt)),
                    )
                )
            else:  # a quorum queue has given it up after many deliveries: how often is for the flow to decide
                self._link.later(0.0, lambda: self._put_back(intake, epoch, receipt, current, message))
            return receipt

        intake = Intake(
            self._link,
            f"queue {declared.queue.id}, what it drops",
            (declared.dropped,),
            window=_WINDOW,
            shared_window=False,
            prepare=declared.declare_dropped,
            on_message=arrived,
            on_change=lambda: None,
            on_lost=_nothing,
        )
        return intake

    def _put_back(self, intake: Intake, epoch: int, receipt: Receipt, declared: Declared, message: Message) -> None:
        def copied(error: WippyQueueError | None) -> None:
            if error is None:
                _forget(intake, epoch, receipt)
            elif epoch == intake.epoch:
                self._link.later(1.0, lambda: self._put_back(intake, epoch, receipt, declared, message))

        self._copier.retry(declared, message, 0.0, copied)

    def holds(self, declared: Declared, timeout: float) -> bool:
        """Return whether dropped messages of the queue have not been handed over yet."""
        with self._lock:
            intake = self._intakes.get(declared.name)
        if intake is None:
            return False
        if intake.holds:
            return True

        def steps(channel: Channel) -> Steps[Any]:
            return (yield lambda callback: channel.queue_declare(declared.dropped, passive=True, callback=callback))

        answer = self._link.request(f"queue {declared.queue.id}", steps, timeout)
        return bool(answer.method.message_count or intake.holds)


def _forget(intake: Intake, epoch: int, receipt: Receipt) -> None:
    if epoch == intake.epoch:
        intake.settle([receipt], [])


def _nothing(_: Iterable[Receipt], __: WippyQueueError) -> None: ...


def _read(properties: BasicProperties, body: bytes, declared: Declared) -> tuple[Message, str]:
    """Return a message that the broker has dropped, and why it says so."""
    message, returns, counted = from_wire(properties, body, declared.queue)
    deaths = (properties.headers or {}).get("x-death")
    reason = ""
    if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict):
        reason = str(deaths[0].get("reason", ""))
    return msgspec.structs.replace(message, attempts=message.attempts + returns + counted), reason
