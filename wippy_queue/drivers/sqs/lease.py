"""What we hold of a message that was received."""

from __future__ import annotations

import attrs

from wippy_queue.delivery import Settlement
from wippy_queue.drivers.sqs.batches import Item


@attrs.define(eq=False, kw_only=True)
class Lease:
    """What we hold of a message; guarded by its subscription's condition."""

    handle: str
    received: float  # monotonic
    until: float  # monotonic; it is ours no longer than that
    renewed: float  # monotonic
    sent: float  # Unix seconds
    live: bool = True  # neither settled, nor lost, nor given back
    settlement: Settlement | None = None  # on its way; whoever takes it out tells it
    leaving: bool = False  # it is on its way back: an extension would hide it from everybody
    renewal: Item | None = None  # under way
    after_renewal: Item | None = None  # what must not be overtaken by it

    def end(self) -> float:
        return self.until

    def take(self) -> Settlement | None:
        """Return the settlement that is still to be told."""
        settlement, self.settlement = self.settlement, None
        return settlement
