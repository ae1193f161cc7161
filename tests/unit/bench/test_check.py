"""The guard against becoming slow: what counts as a fall, and that one bad run does not fail it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from wippy_queue.bench import check
from wippy_queue.bench.contestant import BUILT_IN
from wippy_queue.bench.runner import Plan, Results
from wippy_queue.bench.workloads import WORKLOADS

Ratios = Mapping[str, Mapping[str, float]]

GOOD: Ratios = {workload: dict.fromkeys(BUILT_IN, 10.0) for workload in WORKLOADS}
SLOW: Ratios = {**GOOD, "json": {"asyncio": 0.01}}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[Ratios], list[list[str]]]:
    """Make the runs give these ratios, one after the other; return which workloads were run."""

    def give(*ratios: Ratios) -> list[list[str]]:
        asked: list[list[str]] = []
        given: Iterator[Ratios] = iter(ratios)

        def execute(plan: Plan, _on_run: object) -> Results:
            asked.append(list(plan.workloads))
            return Results({}, [])

        monkeypatch.setattr(check, "execute", execute)
        monkeypatch.setattr(check, "rows_of", lambda _: None)
        monkeypatch.setattr(check, "ratios_of", lambda _: next(given))
        return asked

    return give


def test_every_floor_is_of_something_that_is_measured() -> None:
    assert {workload for workload, _ in check.FLOORS} <= set(WORKLOADS)
    assert {engine for _, engine in check.FLOORS} <= set(BUILT_IN)


def test_ratios_above_the_floors_pass_at_the_first_try(measured: Callable[..., list[list[str]]]) -> None:
    asked = measured(GOOD)
    check.main()
    assert asked == [["noop", "json", "cpu", "sleep", "mixed"]]


def test_a_fall_that_does_not_repeat_itself_passes(measured: Callable[..., list[list[str]]]) -> None:
    asked = measured(SLOW, {"json": {"asyncio": 10.0}})
    check.main()
    assert asked[1:] == [["json"]]


def test_a_fall_that_repeats_itself_fails_and_is_named(measured: Callable[..., list[list[str]]]) -> None:
    measured(SLOW, SLOW)
    with pytest.raises(SystemExit, match=r"json: 0\.01 of asyncio, expected 0\.9 or more"):
        check.main()
