"""What a subscription holds: stretches of leases, receipts of deliveries, and settlements on their way."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence

from wippy_queue.delivery import Settlement
from wippy_queue.drivers.redis import wire
from wippy_queue.drivers.redis.transport import Request

_log = logging.getLogger(__name__)


class Owner:
    """A stretch of time in which the leases were ours without a gap; its token is unknown to anybody else."""

    __slots__ = ("alive", "claims", "entered", "flushes", "held_key", "lease", "strays", "token", "until")

    def __init__(self, base: bytes, lease: float) -> None:
        self.token = secrets.token_hex(12).encode()
        self.held_key = base + b"held:" + self.token
        self.lease = lease
        self.alive = True  # False: lost, or closed
        self.entered = False  # the server knows it
        self.strays = False  # it may hold what a claim brought whose answer never came
        self.claims = 0  # claims and flushes are numbered, so that one that comes late, or twice, is not done again
        self.flushes = 0
        self.until = time.monotonic() + lease  # the lease holds until then at least

    def extended(self, asked: float) -> None:
        self.entered = True
        self.until = max(self.until, asked + self.lease)


class Receipt:
    """What the driver needs to know of a delivery."""

    __slots__ = ("begun", "id", "owner", "place")

    def __init__(self, owner: Owner, message_id: bytes, place: int) -> None:
        self.owner = owner
        self.id = message_id
        self.place = place
        self.begun = False

    def mark(self) -> bytes:
        """Return its place, which says as well whether its handler has begun: half a place behind."""
        if not self.begun:
            return b"%d" % self.place
        return b"%d.5" % self.place if self.place >= 0 else b"-%d.5" % (-self.place - 1)


class Batch:
    """Settlements that are being sent, or that their owner leaves."""

    __slots__ = ("leaves", "owner", "request", "settlements")

    def __init__(self, owner: Owner, settlements: list[Settlement], request: Request, *, leaves: bool = False) -> None:
        self.owner = owner
        self.settlements = settlements
        self.request = request
        self.leaves = leaves


def settle_request(base: bytes, owner: Owner, batch: Sequence[Settlement], marks: Sequence[Receipt]) -> Request:
    """Return what sends settlements, and the marks of handlers that have begun."""
    acked: list[bytes] = []
    released: list[bytes] = []
    requeued: list[wire.Argument] = []  # four each
    for settlement in batch:
        message_id: bytes = settlement.delivery.receipt.id
        if settlement.action == "ack":
            acked.append(message_id)
        elif settlement.action == "release":
            released.append(message_id)
        else:
            message = settlement.message or settlement.delivery.message
            expires = wire.expiry(message, None)
            again = (message_id, wire.milliseconds(settlement.delay), expires, wire.encode_meta(message, expires))
            requeued.extend(again)
    begun = [part for receipt in marks for part in (receipt.mark(), receipt.id)]
    counts = (len(marks), len(acked), len(released), len(requeued) // 4)
    lease = wire.milliseconds(owner.lease)
    return Request("settle", base, (owner.token, owner.flushes, lease, *counts, *begun, *acked, *released, *requeued))


def tell(settlements: Sequence[Settlement], error: Exception | None) -> None:
    """Report what became of them; called without a lock held."""
    for settlement in settlements:
        try:
            settlement.finish(error)
        except Exception:
            _log.exception("the callback of a settlement failed")
