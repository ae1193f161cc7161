"""One run: a contestant, a workload, and what is measured of them; in a process of its own (see `child.py`)."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from wippy_queue.bench.contestant import Contestant, Task, find
from wippy_queue.bench.workloads import WORKLOADS, Body, Workload
from wippy_queue.errors import Internal

FIRST: Final = 1  # the mark of messages of a backlog; of others it is the time of their publish, in ns
QUANTILES: Final = (*(n / 100 for n in range(100)), 0.995, 0.999, 1.0)

_CHUNK: Final = 200  # messages that are published at once
_EVERY: Final = 500  # messages, of which one is marked: the handler of the very first may be late to call Python
_PATIENCE: Final = 300.0  # seconds that one phase may take


@attrs.frozen(kw_only=True)
class Run:
    """What one run is told.

    Args:
        engine: the contestant's name.
        workload: the workload's name.
        loops: turns of Lua's loop that take 1 ms.
        rate: messages per second for the latency, before `Workload.rate` bounds it.
        latencies: how many messages to take the latency of; 0: none.
    """

    engine: str
    workload: str
    driver: str
    url: str | None = None
    concurrency: int
    prefetch: int
    messages: int
    loops: int
    rate: float
    latencies: int


@attrs.frozen(kw_only=True)
class Measures:
    """What one run gives. Latencies are milliseconds from publish to handler start, at a fixed rate."""

    rate: float  # messages handled per second, from the first handler's start until all are settled
    publish_rate: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    cpu_us: float  # CPU time of the process for a message, while it handled the backlog
    peak_rss_mb: float
    start_s: float
    stop_s: float
    quantiles: tuple[float, ...] = ()  # of the latency, at `QUANTILES`


class _Probe:
    """Notes when handlers start, and the first one of all; any thread."""

    def __init__(self) -> None:
        self.first = 0
        self.first_cpu = 0
        self.latencies: list[int] = []

    def started(self, mark: int) -> None:
        now = time.monotonic_ns()
        if mark != FIRST:
            self.latencies.append(now - mark)
        elif not self.first:
            self.first, self.first_cpu = now, time.process_time_ns()


def measure(run: Run) -> Measures:
    """Do one run.

    Raises:
        WippyQueueError: the contestant cannot run this, did not finish in time, or has lost messages.
    """
    workload = WORKLOADS[run.workload]
    probe = _Probe()
    task = Task(
        workload=workload,
        source=workload.text(run.loops),
        started=probe.started,
        driver=run.driver,
        url=run.url,
        concurrency=run.concurrency,
        prefetch=run.prefetch,
    )
    bodies = [workload.body(number) for number in range(run.messages)]
    for body in bodies[::_EVERY]:
        body["mark"] = FIRST
    factory = find(run.engine, run.driver)
    begun = time.perf_counter()
    contestant = factory(task)
    start_s = time.perf_counter() - begun
    try:
        publish_s = _publish(contestant, bodies)
        begun = time.perf_counter()
        contestant.start()
        start_s += time.perf_counter() - begun
        contestant.wait(run.messages, _PATIENCE)
        handled_s = (time.monotonic_ns() - probe.first) / 1e9
        cpu_s = (time.process_time_ns() - probe.first_cpu) / 1e9
        peak_rss_mb = _peak_rss_mb()
        if run.latencies:
            contestant.pace(_paced(workload, run.latencies), workload.rate(run.rate, run.concurrency))
            contestant.wait(run.messages + run.latencies, _PATIENCE)
    finally:
        begun = time.perf_counter()
        contestant.stop()
        stop_s = time.perf_counter() - begun
    _check(run, probe)
    latencies = sorted(latency / 1e6 for latency in probe.latencies[len(probe.latencies) // 10 :])  # warm by then
    return Measures(
        rate=run.messages / handled_s,
        publish_rate=run.messages / publish_s,
        p50_ms=quantile(latencies, 0.5),
        p99_ms=quantile(latencies, 0.99),
        p999_ms=quantile(latencies, 0.999),
        cpu_us=cpu_s / run.messages * 1e6,
        peak_rss_mb=peak_rss_mb,
        start_s=start_s,
        stop_s=stop_s,
        quantiles=tuple(quantile(latencies, q) for q in QUANTILES),
    )


def _publish(contestant: Contestant, bodies: Sequence[Body]) -> float:
    begun = time.perf_counter()
    for start in range(0, len(bodies), _CHUNK):
        contestant.publish(bodies[start : start + _CHUNK])
    return time.perf_counter() - begun


def _paced(workload: Workload, count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield workload.body(number)


def _check(run: Run, probe: _Probe) -> None:
    if not probe.first:
        raise Internal(f"{run.engine}: the handler of the first message never called started(); see bench.Task")
    if len(probe.latencies) != run.latencies:
        raise Internal(
            f"{run.engine}: {len(probe.latencies)} of {run.latencies} messages were handled when it said that all were"
        )


def quantile(ordered: Sequence[float], q: float) -> float:
    """Return the smallest value that ``q`` of all are not above; 0 where there are none."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)] if ordered else 0.0


def _peak_rss_mb() -> float:
    """Return the most memory that this process has had, in MB."""
    try:  # a child's ru_maxrss begins with its parent's on Linux, so the kernel's own figure comes first
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
