"""Copies of messages that come back: with new attempts, after a delay, admitted whatever the queue's limit says."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from wippy_queue.drivers.amqp.delays import Delays
from wippy_queue.drivers.amqp.link import Link
from wippy_queue.drivers.amqp.outbox import Batch, Outbox, Parcel
from wippy_queue.drivers.amqp.topology import Declared, tier
from wippy_queue.drivers.amqp.wire import to_wire
from wippy_queue.errors import Invalid, Unavailable, WippyQueueError
from wippy_queue.message import Message

_FRAME_SPARE: Final = 1024  # bytes of a frame for what is no header

Copied = Callable[[WippyQueueError | None], None]


class Copier:
    """Publishes what a consumer gives back.

    Thread safety: ``parcel`` and ``able`` from any thread; the rest on the consuming link's thread, where ``done`` is
    called too.
    """

    def __init__(self, link: Link, outbox: Outbox, delays: Delays, frame: int) -> None:
        self._link = link
        self._outbox = outbox
        self._delays = delays
        self._frame = frame  # bytes

    @property
    def able(self) -> bool:
        """Whether messages can be published now."""
        return self._outbox.able

    def parcel(self, route: str, message: Message, *, waiting: bool, returns: int = 0) -> Parcel:
        """Return a message ready to be sent.

        Raises:
            Invalid: it has headers that cannot travel.
        """
        room = int(min(self._frame, self._outbox.frame)) - _FRAME_SPARE
        try:
            properties, mandatory = to_wire(message, waiting=waiting, room=room, returns=returns)
        except UnicodeEncodeError as error:
            raise Invalid(f"message {message.id!r}: its id or headers hold what is no text: {error}") from error
        return Parcel(message.id, route, properties, message.body, mandatory)

    def retry(self, declared: Declared, message: Message, delay: float, done: Copied) -> None:
        """Publish a copy that is tried again, at the tail; ``done`` gets None once the broker has stored it."""
        ms = tier(delay) if delay > 0 else 0
        self._copy(declared, declared.delay_name(ms) if ms else declared.back, message, ms, 0, done)

    def hand_back(self, declared: Declared, message: Message, done: Copied, *, returns: int = 0) -> None:
        """Publish a copy that comes next, and does not look like one that came back from a crash."""
        self._copy(declared, declared.due, message, 0, returns, done)

    def _copy(self, declared: Declared, route: str, message: Message, ms: int, returns: int, done: Copied) -> None:
        try:
            parcel = self.parcel(route, message, waiting=ms > 0, returns=returns)
        except WippyQueueError as error:
            done(error)
            return
        parcel.mandatory = True

        def sent() -> None:  # on the publishing link's thread
            self._link.call(lambda: self._sent(declared, parcel, ms, done))

        def post() -> None:
            if ms:
                parcel.until = self._delays.until(declared, ms)
            self._outbox.post(Batch([parcel], sent))

        if ms and not self._delays.is_fresh(declared, ms):

            def ready(_: Any, error: WippyQueueError | None) -> None:
                if error is not None:
                    done(Unavailable(error.message))
                    return
                self._delays.note(declared, ms)
                post()

            self._link.perform(f"queue {declared.queue.id}", lambda channel: declared.declare_delay(channel, ms), ready)
        else:
            post()

    def _sent(self, declared: Declared, parcel: Parcel, ms: int, done: Copied) -> None:
        if parcel.fate == "stored" and parcel.until < time.monotonic():
            # The broker took its time, out of memory perhaps: the delay queue must not vanish before what waits in it.
            self._delays.forget(declared, ms)

            def kept(_: Any, error: WippyQueueError | None) -> None:
                done(None if error is None else Unavailable(error.message))

            self._link.perform(f"queue {declared.queue.id}", lambda channel: declared.declare_delay(channel, ms), kept)
        elif parcel.fate == "stored":
            done(None)
        elif parcel.fate == "stale":
            self._delays.forget(declared, ms)
            done(Unavailable(f"queue {declared.queue.id}: the copy had to wait for RabbitMQ"))
        elif parcel.fate == "returned":  # somebody has deleted the queue: make it anew, then let the caller try again
            if ms:
                self._delays.forget(declared, ms)
            missing = Unavailable(f"queue {declared.queue.id}: {parcel.route!r} is gone")
            self._link.perform(f"queue {declared.queue.id}", declared.declare, lambda *_: done(missing))
        else:
            error = None if parcel.batch is None else parcel.batch.error
            done(error or Unavailable(f"queue {declared.queue.id}: RabbitMQ did not take a message back"))
