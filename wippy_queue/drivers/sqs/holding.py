"""What a subscription holds: leases, and what waits for the feeder, one message of a FIFO group at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import attrs

from wippy_queue.delivery import Delivery
from wippy_queue.drivers.sqs.batches import Item


@attrs.define(eq=False, kw_only=True)
class Lease:
    """What we hold of a message; guarded by its subscription's condition."""

    handle: str
    received: float  # monotonic
    until: float  # monotonic; it is ours no longer than that
    renewed: float  # monotonic
    sent: float  # Unix seconds
    group: str | None
    live: bool = True  # neither settled, nor lost, nor given back
    leaving: bool = False  # it is on its way back: an extension would hide it from everybody
    renewal: Item | None = None  # under way
    after_renewal: Item | None = None  # what must not be overtaken by it

    def end(self) -> float:
        return self.until


class Inbox:
    """Deliveries that came and were not asked for yet.

    Thread safety: none; its subscription's condition guards it.
    """

    def __init__(self) -> None:
        self._deliveries: deque[Delivery] = deque()
        self._groups: dict[str, Lease] = {}  # FIFO groups, and of each the message that is with the consumer

    def put(self, deliveries: Iterable[Delivery]) -> None:
        self._deliveries.extend(deliveries)

    def take(self, limit: int) -> list[Delivery]:
        """Take up to ``limit``, in order, but none of a group of which one is with the consumer."""
        taken: list[Delivery] = []
        kept: list[Delivery] = []
        while self._deliveries and len(taken) < limit:
            delivery = self._deliveries.popleft()
            group = delivery.receipt.group
            if group is None:
                taken.append(delivery)
            elif group in self._groups:
                kept.append(delivery)
            else:
                self._groups[group] = delivery.receipt
                taken.append(delivery)
        self._deliveries.extendleft(reversed(kept))
        return taken

    def free(self, lease: Lease) -> None:
        """The consumer has done with it: the next of its group may be taken."""
        if lease.group is not None and self._groups.get(lease.group) is lease:
            del self._groups[lease.group]

    def drop(self, lease: Lease) -> None:
        self._deliveries = deque(delivery for delivery in self._deliveries if delivery.receipt is not lease)
        self.free(lease)

    def drop_group(self, group: str | None) -> list[Lease]:
        """Take out what waits of a group, in order; None is none."""
        if group is None:
            return []
        dropped = [delivery for delivery in self._deliveries if delivery.receipt.group == group]
        self._deliveries = deque(delivery for delivery in self._deliveries if delivery not in dropped)
        return [delivery.receipt for delivery in dropped]

    def drop_all(self) -> list[Delivery]:
        dropped = list(self._deliveries)
        self._deliveries.clear()
        return dropped
