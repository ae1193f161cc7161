"""Rates and latencies of the engine on each driver, beside the bare client library doing the same work.

    python tests/benchmarks/drivers.py [--rounds 3] [--driver amqp --driver redis ...]

More than ``wippy-queue bench --driver`` asks, of the same contestants: publishing by one and by many threads, 64
workers, a loop of the library without any. All in one run, in rotation: a RabbitMQ and a Redis on their usual local
ports, a moto server in a process of its own, sqlite in a temporary folder. Medians of the rounds; latencies of all
rounds together. The handler is Lua that does nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from wippy_queue.bench.baseline import bare_handlers
from wippy_queue.bench.client_contestant import ClientContestant
from wippy_queue.bench.contestant import Contestant, Task
from wippy_queue.bench.machine import describe
from wippy_queue.bench.measure import quantile
from wippy_queue.bench.threads import ThreadEngine
from wippy_queue.bench.workloads import WORKLOADS

ROOT: Final = Path(__file__).resolve().parents[2]
PREFETCH: Final = 100
_FIRST: Final = 1  # mark of the first message of a backlog
_LAST: Final = 2  # and of its last ones; other marks are the time of a publish, in nanoseconds
_TAIL: Final = 200  # a backlog is handled when so many of the last are; more than are ever in flight
_THREADS: Final = 16
_TEXT: Final = "x" * 180
_MOTO: Final = "import sys; from tests.moto_sqs import MotoSqs; print(MotoSqs().url, flush=True); sys.stdin.read()"
_LOOP: Final = "consume, 4 / plain loop"  # our four workers beside a loop of the library without any threads


@attrs.frozen(kw_only=True)
class Load:
    """What a driver is given to do."""

    seconds: float = 1.0  # of each publish measurement
    batch: int  # messages of a publish_many
    backlog: int  # messages of a consume measurement
    rate: float = 200.0  # messages per second for the latency
    latencies: int = 400


LOADS: Final = {
    "amqp": Load(batch=1000, backlog=20_000),
    "redis": Load(batch=1000, backlog=30_000),
    "sqs": Load(seconds=1.5, batch=100, backlog=400, rate=20.0, latencies=60),
    "sqlite": Load(batch=1000, backlog=20_000),
}
SIDES: Final[dict[str, Callable[[Task], Contestant]]] = {"ours": ThreadEngine, "bare": ClientContestant}


class PlainLoop(ClientContestant):
    """The library in one thread: no workers, no queue between threads."""

    def start(self) -> None:
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        (handler,) = bare_handlers(1, self._task.source, self._pass_on, self._task.started)
        while not self._ending.is_set():
            if fetched := self._client.fetch(PREFETCH):
                for _, body in fetched:
                    handler(body)
                self._client.ack([receipt for receipt, _ in fetched])

    def wait(self, handled: int, timeout: float) -> None:
        """Acks follow at once: there is nothing to wait for when the last handler has started."""

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()
        super().stop()


class Starts:
    """Notes when handlers start; any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all = threading.Event()
        self._left = 0
        self.first = self.last = 0
        self.latencies: list[float] = []  # milliseconds

    def expect(self, count: int) -> None:
        """Prepare for ``count`` marked messages beside the first."""
        self._left = count
        self._all.clear()

    def started(self, mark: int) -> None:
        now = time.monotonic_ns()
        if mark == _FIRST:
            self.first = now
            return
        if mark != _LAST:
            self.latencies.append((now - mark) / 1e6)
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self.last = now
                self._all.set()

    def wait(self) -> None:
        if not self._all.wait(120):
            raise TimeoutError(f"{self._left} messages were not handled")


def measure(make: Callable[[Task], Contestant], driver: str, url: str | None) -> tuple[dict[str, float], list[float]]:
    """Return rates, and latencies in milliseconds."""
    load = LOADS[driver]
    rates: dict[str, float] = {}
    with _running(make, driver, url, 1) as (contestant, _):
        rates["publish, 1 thread"] = _publish_rate(contestant, 1, load.seconds)
    with _running(make, driver, url, 1) as (contestant, _):
        rates[f"publish, {_THREADS} threads"] = _publish_rate(contestant, _THREADS, load.seconds)
    latencies: list[float] = []
    for concurrency in (4, 64):
        with _running(make, driver, url, concurrency) as (contestant, starts):
            stored, handled = _backlog(contestant, starts, load)
            rates.setdefault(f"publish_many of {load.batch}", stored)
            rates[f"consume, {concurrency} workers"] = handled
            if concurrency == 4:
                _pace(contestant, starts, load)
                latencies = starts.latencies[len(starts.latencies) // 10 :]  # warm by then
    return rates, latencies


@contextlib.contextmanager
def _running(
    make: Callable[[Task], Contestant], driver: str, url: str | None, concurrency: int
) -> Iterator[tuple[Contestant, Starts]]:
    gc.collect()
    starts = Starts()
    workload = WORKLOADS["noop"]
    task = Task(
        workload=workload,
        source=workload.text(1),
        started=starts.started,
        driver=driver,
        url=url,
        concurrency=concurrency,
        prefetch=PREFETCH,
    )
    contestant = make(task)
    try:
        yield contestant, starts
    finally:
        contestant.stop()


def _publish_rate(contestant: Contestant, threads: int, seconds: float) -> float:
    contestant.publish([{"text": _TEXT}])  # connects
    counts = [0] * threads
    barrier = threading.Barrier(threads + 1)

    def work(index: int) -> None:
        contestant.publish([{"text": _TEXT}])  # the thread's own connection, where it has one
        barrier.wait()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            contestant.publish([{"text": _TEXT}])
            counts[index] += 1

    workers = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    begun = time.perf_counter()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - begun)


def _backlog(contestant: Contestant, starts: Starts, load: Load) -> tuple[float, float]:
    """Return the rates of publishing a backlog and of handling it."""
    bodies: list[dict[str, Any]] = [{"text": _TEXT} for _ in range(load.backlog)]
    bodies[0]["mark"] = _FIRST
    for body in bodies[-_TAIL:]:
        body["mark"] = _LAST
    starts.expect(_TAIL)
    begun = time.perf_counter()
    for start in range(0, load.backlog, load.batch):
        contestant.publish(bodies[start : start + load.batch])
    stored = load.backlog / (time.perf_counter() - begun)
    contestant.start()
    starts.wait()
    contestant.wait(load.backlog, 60)
    return stored, load.backlog / (starts.last - starts.first) * 1e9


def _plain_loop(driver: str, url: str | None) -> float:
    with _running(PlainLoop, driver, url, 1) as (contestant, starts):
        return _backlog(contestant, starts, LOADS[driver])[1]


def _pace(contestant: Contestant, starts: Starts, load: Load) -> None:
    starts.expect(load.latencies)
    contestant.pace(({"text": _TEXT} for _ in range(load.latencies)), load.rate)
    starts.wait()


def compare(driver: str, url: str | None, rounds: int) -> list[str]:
    """Return the lines of a driver's table."""
    rates: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
    latencies: dict[str, list[float]] = {"ours": [], "bare": []}
    for number in range(rounds):
        for side in list(SIDES)[:: -1 if number % 2 else 1]:
            print(f"{driver}: round {number + 1}, {side}", file=sys.stderr)
            found, taken = measure(SIDES[side], driver, url)
            found[_LOOP] = found["consume, 4 workers"] if side == "ours" else _plain_loop(driver, url)
            rates[side].append(found)
            latencies[side] += taken
    lines = []
    for what in rates["ours"][0]:
        ours, bare = (statistics.median(found[what] for found in rates[side]) for side in ("ours", "bare"))
        lines.append(f"{driver:<7} {what:<24} {ours:>10,.0f} {bare:>10,.0f} {ours / bare:>7.2f}")
    for what, q in (("latency p50, ms", 0.5), ("latency p99, ms", 0.99)):
        ours, bare = (quantile(sorted(latencies[side]), q) for side in ("ours", "bare"))
        lines.append(f"{driver:<7} {what:<24} {ours:>10.2f} {bare:>10.2f} {ours / bare:>7.2f}")
    return lines


@contextlib.contextmanager
def _url_of(driver: str) -> Iterator[str | None]:
    if driver != "sqs":
        yield None
    else:
        pipe = subprocess.PIPE
        with subprocess.Popen([sys.executable, "-c", _MOTO], cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as moto:
            assert moto.stdout is not None
            yield moto.stdout.readline().strip()
            moto.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description="The engine beside bare client libraries.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--driver", action="append", choices=LOADS, help="may be repeated; default: all of them")
    given = parser.parse_args()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ[name] = "testing"  # moto asks for some
    os.environ["AWS_DEFAULT_REGION"] = "eu-west-1"
    machine = describe()
    print(f"{machine['time']}  {machine['cpu']}, {machine['cores']} cores, load before {machine['load_before']}")
    print(f"{given.rounds} rounds, prefetch {PREFETCH}, bodies of about 200 bytes; rates are messages per second\n")
    print(f"{'':<32} {'ours':>10} {'bare':>10} {'ratio':>7}", flush=True)
    for driver in given.driver or LOADS:
        with _url_of(driver) as url:
            print("\n".join(compare(driver, url, given.rounds)), flush=True)


if __name__ == "__main__":
    main()
