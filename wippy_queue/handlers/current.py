"""The message in hand, for Python handlers: what ``queue.message()`` is in Lua."""

from __future__ import annotations

import threading

from wippy_queue.delivery import Delivery
from wippy_queue.errors import Invalid, WippyQueueError
from wippy_queue.handler import ACK, Outcome, WorkerContext
from wippy_queue.message import HeaderValue

_here = threading.local()  # .message: the one that this thread's handler works on


class CurrentMessage:
    """The message that a handler works on; it is of no use after the handler has returned.

    Thread safety: may be passed to other threads; settling is single-shot, the first wins.
    """

    def __init__(self, delivery: Delivery, context: WorkerContext) -> None:
        self._delivery: Delivery | None = delivery
        self._context = context

    @property
    def id(self) -> str:
        return self._valid().message.id

    @property
    def attempts(self) -> int:
        """Deliveries before this one whose handler had started and which did not end in an ack."""
        return self._valid().message.attempts

    @property
    def headers(self) -> dict[str, HeaderValue]:
        """All headers, ``timestamp`` and ``attempts`` included."""
        return self._valid().message.all_headers()

    def header(self, key: str) -> HeaderValue | None:
        """Return one header, or None."""
        return self.headers.get(key)

    def ack(self) -> None:
        """Remove the message now, whatever the handler does next.

        Raises:
            Invalid: it was settled already, or the handler has returned.
        """
        self._settle(ACK)

    def nack(self, error: WippyQueueError | None = None) -> None:
        """Fail the message now, whatever the handler does next.

        Args:
            error: why; its ``retryable`` and ``details["retry_after"]`` are honoured.

        Raises:
            Invalid: it was settled already, or the handler has returned.
        """
        self._settle(Outcome(error=error or WippyQueueError("the handler called nack()"), by_hand=True))

    def _settle(self, outcome: Outcome) -> None:
        delivery = self._valid()
        if self._context.auto_ack:
            raise Invalid("the consumer has auto_ack: true, its messages are acked before the handler starts")
        if not self._context.settle(delivery, outcome):
            raise Invalid(f"message {delivery.message.id} is settled already")

    def _valid(self) -> Delivery:
        if self._delivery is None:
            raise Invalid("the message was released: its handler has returned")
        return self._delivery

    def _enter(self) -> None:
        _here.message = self

    def _leave(self) -> None:
        _here.message = None
        self._delivery = None


def current_message() -> CurrentMessage:
    """Return the message that the calling thread's handler works on.

    Raises:
        Invalid: the calling thread runs no handler of a consumer.
    """
    message: CurrentMessage | None = getattr(_here, "message", None)
    if message is None:
        raise Invalid("there is no current message: current_message() works inside the handler of a consumer")
    return message
