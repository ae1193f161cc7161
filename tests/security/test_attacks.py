"""Every attack, in both hook modes, through a real consumer: it is contained, the worker and its neighbour go on."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.security.attacks import ATTACKS, STUCK, Ending
from tests.security.child import PATIENCE, timeout_of

MODES = ("async", "count")

_CHILD = Path(__file__).parent / "child.py"
_REACTION = 0.1  # seconds that a kill may take
_LATE = 0.9  # the same on a machine that is busy with other things; beyond it, a worker counts as stuck
_MANY = 5  # reactions of which a median says something, though a few met a machine that stalled
_MEMORY = 400 << 20  # bytes that the process may have at most


@attrs.frozen
class Journal:
    lines: list[dict[str, Any]]
    code: int
    errors: str

    @property
    def culprit(self) -> str:
        """The attack that was begun and has not ended."""
        begun = [line["begin"] for line in self.lines if "begin" in line]
        ended = [line["end"] for line in self.lines if "end" in line]
        return begun[-1] if len(begun) > len(ended) else "none"

    def of(self, key: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if key in line]


def run_child(*arguments: str) -> Journal:
    root = _CHILD.parents[2]
    process = subprocess.run(
        [sys.executable, _CHILD, *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    return Journal([json.loads(line) for line in process.stdout.splitlines()], process.returncode, process.stderr)


def run_in_each_mode(name: str) -> Mapping[str, Journal]:
    """Both at the same time: a worker under attack needs one processor."""
    with ThreadPoolExecutor(len(MODES)) as pool:
        return dict(zip(MODES, pool.map(lambda mode: run_child(mode, name), MODES), strict=True))


@pytest.fixture(scope="module", params=ATTACKS)
def attacked(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Journal]]:
    """A class of attacks, and its journal in each mode."""
    return request.param, run_in_each_mode(request.param)


@pytest.fixture(scope="module")
def stuck() -> Mapping[str, Journal]:
    return run_in_each_mode("stuck")


def ending(line: dict[str, Any]) -> Ending:
    if line["error"] is None:
        return "ok"
    if line["kind"] == "Timeout":
        return "time"
    return "memory" if "exceeded its memory limit" in line["error"] else "error"


def matches(found: Ending, wanted: Ending) -> bool:
    """Whether an attack ended as it should; on a slow machine the time limit comes first."""
    others = {
        "limit": {"time", "memory", "error"},
        "error": {"time", "memory"},
        "memory": {"time"},
        "ok": {"time"},
    }
    return found == wanted or found in others.get(wanted, set())


def faults(line: dict[str, Any], wanted: Ending, limit: float) -> list[str]:
    found = []
    if not matches(ending(line), wanted):
        found.append(f"ended with {line['error']!r}, expected {wanted}")
    if not line["right"] or line["normal"]:
        found.append(f"the message behind it went wrong: {line['normal'] or 'another result'}")
    if line["thread"] != "app:victim-consumer-worker-0" or line["stuck"]:
        found.append(f"its worker was lost: {line['thread']}, {line['stuck']} stuck")
    if line["took"] is not None and line["took"] > limit + _LATE:
        found.append(f"took {line['took']} s")
    if line["memory"] > _MEMORY:
        found.append(f"left the process with {line['memory'] >> 20} MiB")
    if line["length"] > 20_000:
        found.append(f"its error has {line['length']} characters")
    return found


@pytest.mark.parametrize("mode", MODES)
def test_attacks_are_contained(attacked: tuple[str, Mapping[str, Journal]], mode: str) -> None:
    name, journals = attacked
    journal = journals[mode]
    assert journal.code == 0, f"the process ended during {journal.culprit!r}:\n{journal.errors}"
    limit = timeout_of(name)
    found = {
        line["end"]: problems
        for line in journal.of("end")
        if (problems := faults(line, ATTACKS[name][line["end"]][0], limit))
    }
    assert not found, json.dumps(found, indent=1)
    assert {line["end"] for line in journal.of("end")} == set(ATTACKS[name])
    assert len({line["ident"] for line in journal.of("end")}) == 1, "the worker is always the same thread"
    reactions = [
        line["took"] - limit for line in journal.of("end") if line["kind"] == "Timeout" and line["took"] is not None
    ]
    assert len(reactions) < _MANY or statistics.median(reactions) < _REACTION
    last = {line["end"]: ending(line) for line in journal.of("end")}  # floods that ran out of time come again
    floods = [last[flood] for flood, (wanted, _) in ATTACKS[name].items() if wanted == "memory"]
    assert floods.count("memory") >= len(floods) / 2
    (summary,) = journal.of("neighbour")
    assert summary["neighbour"] > 0
    assert summary["wrong"] == []
    assert summary["slowest"] < 2, "the neighbour was kept waiting"
    assert summary["died"] == []
    assert summary["loggers"] <= 101
    assert journal.of("stopped")


@pytest.mark.parametrize("mode", MODES)
def test_what_cannot_be_ended_costs_a_worker_and_in_the_end_the_consumer(
    stuck: Mapping[str, Journal], mode: str
) -> None:
    journal = stuck[mode]
    assert journal.code == 0, f"the process ended during {journal.culprit!r}:\n{journal.errors}"
    assert [line["stuck"] for line in journal.of("end")] == [1, 2]
    assert all(line["normal"] for line in journal.of("end")), "the worker that took its place works"
    (last,) = journal.of("failed")
    service, error = last["failed"]
    assert service == "app:victim-consumer"
    assert "more than lua.max_stuck_workers allows (1)" in error
    assert last["parked"] == len(STUCK), "the failure policy has had the messages"
    assert all("could not be ended" in error for error in last["errors"])
    assert last["stop"] < PATIENCE / 2, "a stop does not wait for what is stuck"
