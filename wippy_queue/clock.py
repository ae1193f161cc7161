"""The time, as drivers ask for it: a virtual one takes its place in tests."""

from __future__ import annotations

import time


class Clock:
    """The machine's clocks, in seconds."""

    def time(self) -> float:
        """Unix seconds, for what is written down."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never jump, for waits."""
        return time.monotonic()
