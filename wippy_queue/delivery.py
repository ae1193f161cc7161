"""A delivery: a message on its way to a handler, and the gate through which it is settled exactly once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from wippy_queue.message import Message

Action = Literal["ack", "requeue", "release"]


class Delivery(msgspec.Struct, eq=False, gc=False):
    """A message that a driver has handed out, with what the driver needs to settle it.

    Thread safety: every attribute is read-only but the gate; ``claim`` may be called from any thread and is true for
    one caller only, who then owes the driver a settlement.
    """

    message: Message
    receipt: Any  # the driver's own
    epoch: int = 0  # of the connection or the lease that it came from
    _gate: threading.Lock = msgspec.field(default_factory=threading.Lock)

    def claim(self) -> bool:
        """Return whether the caller is the one that may settle."""
        return self._gate.acquire(blocking=False)

    @staticmethod
    def claim_all(deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Claim each of them; return those that the caller may settle."""
        return [delivery for delivery in deliveries if delivery._gate.acquire(False)]

    @property
    def claimed(self) -> bool:
        """Whether somebody has settled, or is about to."""
        return self._gate.locked()


class Settlement(msgspec.Struct, eq=False, gc=False):
    """What is to become of a delivery; a driver calls ``finish`` when it has been done, or can no longer be.

    ``ack`` removes the message. ``requeue`` puts ``message`` (the delivery's, with its new attempts and headers) at
    the tail after ``delay`` seconds. ``release`` hands it back uncounted, at the head where the driver can.
    """

    delivery: Delivery
    action: Action = "ack"
    message: Message | None = None  # requeue only
    delay: float = 0.0  # requeue only, seconds
    done: Callable[[Exception | None], None] | None = None

    def finish(self, error: Exception | None = None) -> None:
        """What a driver calls, once, from any thread: with None when it has done it, else with what was lost."""
        if self.done is not None:
            self.done(error)
