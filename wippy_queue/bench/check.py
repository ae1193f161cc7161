"""``make bench-check``: fails where this engine has become much slower than it was, beside what does not change.

Ratios hold on a busy machine as rates do not, and the margins are wide: a floor is about half of what was measured when
it was set. What falls below is measured once more before it counts.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import attrs
from rich.console import Console

from wippy_queue.bench.report import ratios_of, rows_of
from wippy_queue.bench.runner import Plan, execute
from wippy_queue.errors import WippyQueueError

# This engine's rate over another's, at least; by workload and contestant.
FLOORS: Final[Mapping[tuple[str, str], float]] = MappingProxyType(
    {
        ("noop", "asyncio"): 0.5,
        ("noop", "baseline"): 0.6,
        ("json", "asyncio"): 0.9,
        ("cpu", "asyncio"): 0.8,  # more only where a second core is idle
        ("cpu", "baseline"): 0.5,
        ("sleep", "asyncio"): 0.6,
        ("sleep", "baseline"): 0.5,
        ("mixed", "asyncio"): 0.8,
    }
)

_PLAN: Final = Plan(workloads=(), against=("asyncio", "baseline"), rounds=3, latencies=0)


@attrs.frozen
class Fall:
    """A ratio that is below its floor."""

    workload: str
    engine: str
    ratio: float

    def __str__(self) -> str:
        floor = FLOORS[self.workload, self.engine]
        return f"{self.workload}: {self.ratio:.2f} of {self.engine}, expected {floor:g} or more"


def falls(ratios: Mapping[str, Mapping[str, float]]) -> list[Fall]:
    """Return what is below its floor, of what was measured."""
    return [
        Fall(workload, engine, ratios[workload][engine])
        for (workload, engine), floor in FLOORS.items()
        if engine in ratios.get(workload, {}) and ratios[workload][engine] < floor
    ]


def _measure(workloads: Sequence[str]) -> list[Fall]:
    ratios = ratios_of(rows_of(execute(attrs.evolve(_PLAN, workloads=workloads), lambda *_: None).results))
    for workload, found in ratios.items():
        _say(f"{workload}: " + ", ".join(f"{ratio:.2f} of {engine}" for engine, ratio in found.items()))
    return falls(ratios)


def _say(line: str) -> None:
    Console(highlight=False, soft_wrap=True).print(line)


def main() -> None:
    """Measure, and again what has fallen; the exit code is 1 where it has fallen twice."""
    try:
        fallen = _measure(list(dict.fromkeys(workload for workload, _ in FLOORS)))
        if fallen:
            _say("below the floor, so once more: " + "; ".join(map(str, fallen)))
            again = _measure(list(dict.fromkeys(fall.workload for fall in fallen)))
            before = {(fall.workload, fall.engine) for fall in fallen}
            fallen = [fall for fall in again if (fall.workload, fall.engine) in before]
    except WippyQueueError as error:
        sys.exit(f"Error: {error}")
    if fallen:
        sys.exit("slower than it was, twice: " + "; ".join(map(str, fallen)))


if __name__ == "__main__":
    main()
