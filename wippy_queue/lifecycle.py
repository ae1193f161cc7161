"""When a service starts, how long that may take, and what happens when it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs

from wippy_queue.errors import StopReport
from wippy_queue.queues import RetryPolicy


@attrs.frozen(kw_only=True)
class Lifecycle:
    """What a supervisor needs to know of the ``lifecycle`` block of an entry; seconds."""

    start_timeout: float = 10.0
    stop_timeout: float = 10.0
    stable_threshold: float = 5.0  # one that stayed up longer starts counting its failures afresh
    restart: RetryPolicy = attrs.field(factory=lambda: RetryPolicy(initial_delay=1.0, max_delay=90.0))


class Service(Protocol):
    """What a supervisor starts and stops: a driver, a consumer, a store. ``start`` and ``stop`` come one at a time."""

    def start(self, on_failure: Callable[[Exception], None]) -> None:
        """Come up, or raise; ``on_failure`` is for what breaks later."""

    def cancel_start(self) -> None:
        """Make a ``start`` that waits on another thread give up."""

    def stop(self, timeout: float) -> StopReport:
        """Let go of everything within ``timeout`` seconds, also after a failure."""

    def check(self) -> None:
        """Raise when the service does not do its work although nothing has failed; cheap, called now and then."""
