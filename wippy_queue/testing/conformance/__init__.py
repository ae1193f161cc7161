"""The suite that every driver passes: what it asks for is what the flow relies on.

A driver's author writes one subclass; a test that the driver's ``Capabilities`` rule out is skipped and says so::

    class TestMemory(DriverConformance):
        kind = KIND

        def make_driver(self) -> Driver:
            return MemoryDriver(EntryId("test:memory"))

`harness.py` lists what else a subclass may set.
"""

from __future__ import annotations

import pytest

for _part in ("harness", "publishing", "consuming", "settling", "stopping", "crashing", "timing", "limits", "looking"):
    pytest.register_assert_rewrite(f"{__name__}.{_part}")

from wippy_queue.testing.conformance.consuming import Consuming  # noqa: E402  # after the lines above, for pytest
from wippy_queue.testing.conformance.crashing import Crashing  # noqa: E402
from wippy_queue.testing.conformance.limits import Limits  # noqa: E402
from wippy_queue.testing.conformance.looking import Looking  # noqa: E402
from wippy_queue.testing.conformance.publishing import Publishing  # noqa: E402
from wippy_queue.testing.conformance.settling import Settling  # noqa: E402
from wippy_queue.testing.conformance.stopping import Stopping  # noqa: E402
from wippy_queue.testing.conformance.timing import Timing  # noqa: E402

__all__ = ["DriverConformance"]


class DriverConformance(Publishing, Consuming, Settling, Stopping, Crashing, Timing, Limits, Looking):
    """Every test of the suite; see the package for how to use it."""
