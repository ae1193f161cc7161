"""How long the drivers of the suite's tests lease messages."""

from __future__ import annotations

from typing import Final

import pytest

from wippy_queue.testing.conformance import DriverConformance
from wippy_queue.testing.conformance.crashing import Crashing

_LONG: Final = 30.0  # seconds that no machine stalls for


def lease_for(suite: DriverConformance, request: pytest.FixtureRequest) -> float:
    """Return the seconds for the test that runs: few only where it waits for their end."""
    return suite.lease if hasattr(Crashing, request.function.__name__) else _LONG
