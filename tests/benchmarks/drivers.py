"""Rates and latencies of the engine on each driver, beside the bare client library doing the same work.

    python tests/benchmarks/drivers.py [--rounds 3] [--driver amqp --driver redis ...]

All in one run, in rotation: a RabbitMQ and a Redis on their usual local ports, a moto server in a process of its own,
sqlite in a temporary folder. Medians of the rounds; latencies of all rounds together. The engine's handler is Lua that
does nothing; what the libraries do stands in `bare_clients.py`. Queues have names of their own, and are removed.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import attrs
import pika
import redis

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.bare_clients import Bare, Boto3, Pika, RedisStreams, Sqlite
from wippy_queue.bench.machine import describe
from wippy_queue.bench.measure import quantile
from wippy_queue.engine import Engine

ROOT: Final = Path(__file__).resolve().parents[2]
PREFETCH: Final = 100
_FIRST: Final = 1  # mark of the first message of a backlog
_LAST: Final = 2  # and of its last ones; other marks are the time of a publish, in nanoseconds
_TAIL: Final = 200  # a backlog is handled when so many of the last are; more than are ever in flight
_THREADS: Final = 16
_TEXT: Final = "x" * 180
_HANDLER: Final = """
local started = require("bench").started
return function(body)
  if body.mark then started(body.mark) end
end
"""
_MOTO: Final = "import sys; from tests.moto_sqs import MotoSqs; print(MotoSqs().url, flush=True); sys.stdin.read()"
_LOOP: Final = "consume, 4 / plain loop"  # our four workers beside a loop of the library without any threads


@attrs.frozen(kw_only=True)
class Load:
    """What a driver is given to do."""

    bare: type[Bare]
    seconds: float = 1.0  # of each publish measurement
    batch: int  # messages of a publish_many
    backlog: int  # messages of a consume measurement
    rate: float = 200.0  # messages per second for the latency
    latencies: int = 400


LOADS: Final = {
    "amqp": Load(bare=Pika, batch=1000, backlog=20_000),
    "redis": Load(bare=RedisStreams, batch=1000, backlog=30_000),
    "sqs": Load(bare=Boto3, seconds=1.5, batch=100, backlog=400, rate=20.0, latencies=60),
    "sqlite": Load(bare=Sqlite, batch=1000, backlog=20_000),
}


class Contestant(Protocol):
    """What is measured; made with an address, a concurrency, a prefetch and ``started``."""

    def publish(self, body: dict[str, Any]) -> None: ...
    def publish_many(self, bodies: Sequence[dict[str, Any]]) -> None: ...
    def start(self) -> None: ...
    def drain(self) -> None: ...
    def close(self) -> None: ...


Make = Callable[[str, int, int, Callable[[int], None]], Contestant]


class Ours:
    """The engine, with one queue and one consumer."""

    def __init__(
        self, driver: str, address: str, concurrency: int, prefetch: int, started: Callable[[int], None]
    ) -> None:
        self._driver, self._address = driver, address
        self._name = f"ours-{uuid.uuid4().hex}"
        fields: dict[str, dict[str, Any]] = {
            "amqp": {"url": address},
            "redis": {"url": address, "key_prefix": f"{self._name}:"},
            "sqs": {"endpoint": address},
            "sqlite": {"file": f"{address}/{self._name}.db"},
        }
        self._engine = Engine.from_entries(
            [
                {"name": "driver", "kind": f"queue.driver.{driver}", **fields[driver]},
                {"name": "tasks", "kind": "queue.queue", "driver": "bench:driver", "queue_name": self._name},
                {"name": "handler", "kind": "function.lua", "source": _HANDLER, "modules": ["bench"]},
                {
                    "name": "consumer",
                    "kind": "queue.consumer",
                    "queue": "bench:tasks",
                    "func": "bench:handler",
                    "concurrency": concurrency,
                    "prefetch": prefetch,
                    "lifecycle": {"auto_start": True, "start_timeout": 60, "stop_timeout": 60},
                },
            ],
            namespace="bench",
        )
        self._engine.module("bench", {"started": started})
        self._engine.start(consumers=False)

    def publish(self, body: dict[str, Any]) -> None:
        self._engine.publish("bench:tasks", body)

    def publish_many(self, bodies: Sequence[dict[str, Any]]) -> None:
        self._engine.publish_many("bench:tasks", bodies)

    def start(self) -> None:
        self._engine.start()

    def drain(self) -> None:
        self._engine.join("bench:tasks", timeout=60)

    def close(self) -> None:
        self._engine.stop()
        if self._driver == "amqp":
            connection = pika.BlockingConnection(pika.URLParameters(self._address))
            for suffix in ("", ".due", ".dropped"):
                connection.channel().queue_delete(self._name + suffix)
            connection.close()
        if self._driver == "redis":
            server = redis.Redis.from_url(self._address)
            for key in server.scan_iter(f"{self._name}:*", count=1000):
                server.delete(key)
            server.close()


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


def measure(make: Make, address: str, load: Load) -> tuple[dict[str, float], list[float]]:
    """Return rates, and latencies in milliseconds."""
    rates: dict[str, float] = {}
    with _running(make, address, 1) as (contestant, _):
        rates["publish, 1 thread"] = _publish_rate(contestant, 1, load.seconds)
    with _running(make, address, 1) as (contestant, _):
        rates[f"publish, {_THREADS} threads"] = _publish_rate(contestant, _THREADS, load.seconds)
    latencies: list[float] = []
    for concurrency in (4, 64):
        with _running(make, address, concurrency) as (contestant, starts):
            stored, handled = _backlog(contestant, starts, load)
            rates.setdefault(f"publish_many of {load.batch}", stored)
            rates[f"consume, {concurrency} workers"] = handled
            if concurrency == 4:
                _pace(contestant, starts, load)
                latencies = starts.latencies[len(starts.latencies) // 10 :]  # warm by then
    return rates, latencies


@contextlib.contextmanager
def _running(make: Make, address: str, concurrency: int) -> Iterator[tuple[Contestant, Starts]]:
    gc.collect()
    starts = Starts()
    contestant = make(address, concurrency, PREFETCH, starts.started)
    try:
        yield contestant, starts
    finally:
        contestant.close()


def _publish_rate(contestant: Contestant, threads: int, seconds: float) -> float:
    contestant.publish({"text": _TEXT})  # connects
    counts = [0] * threads
    barrier = threading.Barrier(threads + 1)

    def work(index: int) -> None:
        contestant.publish({"text": _TEXT})  # the thread's own connection, where it has one
        barrier.wait()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            contestant.publish({"text": _TEXT})
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
        contestant.publish_many(bodies[start : start + load.batch])
    stored = load.backlog / (time.perf_counter() - begun)
    contestant.start()
    starts.wait()
    contestant.drain()
    return stored, load.backlog / (starts.last - starts.first) * 1e9


def _plain_loop(load: Load, address: str) -> float:
    with _running(load.bare, address, 0) as (contestant, starts):
        return _backlog(contestant, starts, load)[1]


def _pace(contestant: Contestant, starts: Starts, load: Load) -> None:
    starts.expect(load.latencies)
    begun = time.monotonic()
    for number in range(load.latencies):
        time.sleep(max(0.0, begun + number / load.rate - time.monotonic()))
        contestant.publish({"text": _TEXT, "mark": time.monotonic_ns()})
    starts.wait()


def compare(driver: str, address: str, rounds: int) -> list[str]:
    """Return the lines of a driver's table."""
    load = LOADS[driver]
    sides: list[tuple[str, Make]] = [("ours", lambda *args: Ours(driver, *args)), ("bare", load.bare)]
    rates: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
    latencies: dict[str, list[float]] = {"ours": [], "bare": []}
    for number in range(rounds):
        for side, make in sides[:: -1 if number % 2 else 1]:
            print(f"{driver}: round {number + 1}, {side}", file=sys.stderr)
            found, taken = measure(make, address, load)
            found[_LOOP] = found["consume, 4 workers"] if side == "ours" else _plain_loop(load, address)
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
def _address_of(driver: str) -> Iterator[str]:
    if driver == "amqp":
        yield "amqp://guest:guest@127.0.0.1:5672/"
    elif driver == "redis":
        yield "redis://127.0.0.1:6379/0"
    elif driver == "sqlite":
        with tempfile.TemporaryDirectory(prefix="wippy-queue-bench-") as folder:
            yield folder
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
        with _address_of(driver) as address:
            print("\n".join(compare(driver, address, given.rounds)), flush=True)


if __name__ == "__main__":
    main()
