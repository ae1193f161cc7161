"""The whole benchmark: which runs, in which order, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs

from wippy_queue.bench.contestant import OURS
from wippy_queue.bench.machine import describe, loops_per_millisecond
from wippy_queue.bench.measure import Measures, Run
from wippy_queue.bench.workloads import WORKLOADS
from wippy_queue.errors import Internal

_PATIENCE: Final = 1800.0  # seconds that one process may take


@attrs.frozen(kw_only=True)
class Plan:
    """What is to be measured.

    Args:
        workloads: names.
        against: contestants beside this engine.
        concurrency: worker counts, each of them measured; empty: each workload's own.
        prefetch: sizes of the prefetch buffer, each of them measured.
        messages: of a backlog; None: each workload's own number.
        rounds: how often each contestant runs.
        rate: messages per second for the latency.
        latencies: how many messages to take the latency of.
    """

    workloads: Sequence[str]
    against: Sequence[str] = ()
    driver: str = "memory"
    url: str | None = None
    concurrency: Sequence[int] = ()
    prefetch: Sequence[int] = (400,)
    messages: int | None = None
    rounds: int = 3
    rate: float = 500.0
    latencies: int = 1000

    @property
    def engines(self) -> list[str]:
        """The contestants, this engine first, each of them once."""
        return list(dict.fromkeys([OURS, *self.against]))


@attrs.frozen
class Result:
    """One run and what it gave."""

    run: Run
    measures: Measures


@attrs.frozen
class Results:
    """The machine, and every run in the order in which they were done."""

    machine: dict[str, Any]
    results: Sequence[Result]


def runs_of(plan: Plan, loops: int) -> list[Run]:
    """Return all runs in their order: rounds outermost, contestants in rotation, so that drift hits all alike."""
    return [run for number in range(plan.rounds) for run in _round(plan, loops, number)]


def _round(plan: Plan, loops: int, number: int) -> Iterator[Run]:
    engines = plan.engines
    first = number % len(engines)
    for name in plan.workloads:
        workload = WORKLOADS[name]
        for concurrency in plan.concurrency or (workload.concurrency,):
            for prefetch in plan.prefetch:
                for engine in engines[first:] + engines[:first]:
                    yield Run(
                        engine=engine,
                        workload=name,
                        driver=plan.driver,
                        url=plan.url,
                        concurrency=concurrency,
                        prefetch=prefetch,
                        messages=plan.messages or workload.messages,
                        loops=loops,
                        rate=plan.rate,
                        latencies=plan.latencies,
                    )


def execute(plan: Plan, on_run: Callable[[Run, int, int], None]) -> Results:
    """Do all runs, one after the other.

    Args:
        plan: what is to be measured.
        on_run: called before each run, with its number (from 0) and how many there are.

    Raises:
        WippyQueueError: a contestant cannot run, or has failed; the message names it.
    """
    machine = describe()
    loops = loops_per_millisecond()
    runs = runs_of(plan, loops)
    results = []
    for number, run in enumerate(runs):
        on_run(run, number, len(runs))
        results.append(Result(run, run_in_child(run)))
    return Results({**machine, "lua_loops_per_ms": loops}, results)


def run_in_child(run: Run) -> Measures:
    """Do one run in a process of its own.

    Raises:
        Internal: it failed; the message holds what it said last.
    """
    command = [sys.executable, "-m", "wippy_queue.bench.child"]
    try:
        done = subprocess.run(  # noqa: S603 - this package, in this interpreter
            command, input=json.dumps(attrs.asdict(run)), capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise Internal(f"{run.engine} did not finish {run.workload} in {_PATIENCE:g} s") from None
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line and not line[0].isspace()]  # no frames of a traceback
        why = said[-1] if said else f"exit code {done.returncode}"
        raise Internal(f"{run.engine} failed at {run.workload}: {why}")
    measures = json.loads(done.stdout.splitlines()[-1])  # a contestant may have printed something before
    return Measures(**{**measures, "quantiles": tuple(measures["quantiles"])})
