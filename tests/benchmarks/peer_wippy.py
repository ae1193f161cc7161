"""This engine under the protocol of the peers' benchmarks, and side by side with them.

    python tests/benchmarks/peer_wippy.py --peers ../shared/bench/peers [--comparison NAME ...] [--rounds 3] [--out F]
    PYTHONPATH=../shared/bench/peers python tests/benchmarks/peer_wippy.py --broker redis --flush --prefetch 400

The first has the peers' own `run_all.py` measure our cases in rotation with theirs, with its options and its table, and
adds the ratios of our medians to theirs. The second is one run, as each peer's script makes it. Both need what the
peers' requirements.txt lists, and flush a Redis: see --redis-url.

Queues are durable, publishes confirmed, messages acked when their handler has returned; the backlog is published in
batches. Handlers are Lua. The protocol wants each message recorded: by a call of Python at its end, and but for
handlers that do nothing another one at its start. --variant, words with commas between them:

    normal  sqlite's durability is normal, in place of full
    inside  the workers are in the process that publishes, as they have to be with memory
    python  the handler is Python, the same function that the peers run
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2]))

_parser = argparse.ArgumentParser(add_help=False)
_parser.add_argument("--peers", type=Path, help="the folder of run_all.py; without it, this is one run")
_parser.add_argument("--comparison", action="append", help="may be repeated; default: all of them")
GIVEN, OTHERS = _parser.parse_known_args()
if GIVEN.peers is not None:
    sys.path.insert(0, str(GIVEN.peers.resolve()))

import common  # type: ignore[import-not-found]  # noqa: E402  # the peers', from the folder that was given just above
import run_all  # type: ignore[import-not-found]  # noqa: E402  # the same

from wippy_queue.bench.machine import describe  # noqa: E402  # from the path that was set above
from wippy_queue.engine import Engine  # noqa: E402  # the same

Case = dict[str, Any]  # what run_all.case makes
Line = dict[str, Any]  # what common.main prints, with the case's key
Body = dict[str, Any]

NAME: Final = "wippy"
BATCH: Final = 200  # messages of a publish_many
_WORKER: Final = "PEER_WORKER"  # environment variable of a process that handles

_HANDLERS: Final = {
    "noop": """
local bench = require("bench")
return function(body) bench.record(body.id, body.t) end
""",
    "sleep": """
local bench, time = require("bench"), require("time")
return function(body)
  local started = bench.now()
  time.sleep({nanoseconds})
  bench.record(body.id, body.t, started)
end
""",
    "cpu": """
local bench = require("bench")
return function(body)
  local started, x = bench.now(), 1
  for _ = 1, {loops} do x = (x * 1103515245 + 12345) & 0x7fffffff end
  bench.record(body.id, body.t, started)
end
""",
}


def build(c: Any) -> Engine:
    """Make the engine of one process; ``c`` is the peers' configuration."""
    drivers: dict[str, dict[str, Any]] = {
        "rabbitmq": {"kind": "queue.driver.amqp", "url": c.amqp_url.removesuffix("/")},
        "redis": {"kind": "queue.driver.redis", "url": c.redis_url},
        "sqlite": {
            "kind": "queue.driver.sqlite",
            "file": f"{_folder(c)}/queue.db",
            "durability": "normal" if "normal" in _words(c) else "full",
        },
        "memory": {"kind": "queue.driver.memory"},
    }
    handler = {
        "name": "handler",
        "kind": "function.lua",
        "source": _HANDLERS[c.workload].format(nanoseconds=round(c.sleep * 1e9), loops=c.lua_iters),
        "modules": ["bench", "time"],
    }
    in_python = "python" in _words(c)
    engine = Engine.from_entries(
        [
            {"name": "driver", "lifecycle": {"auto_start": True}, **drivers[c.broker]},
            {"name": "tasks", "kind": "queue.queue", "driver": "bench:driver", "queue_name": c.queue},
            {
                "name": "consumer",
                "kind": "queue.consumer",
                "queue": "bench:tasks",
                "func": "bench:handler",
                "concurrency": c.concurrency,
                "prefetch": c.prefetch or 10,
                "lifecycle": {"auto_start": True, "start_timeout": 60},
            },
            *([] if in_python else [handler]),
        ],
        namespace="bench",
    )
    now = common.now

    def record(number: int, published: int, started: int | None = None) -> None:
        common.recorder().put(number, published, now() if started is None else started)

    engine.module("bench", {"now": now, "record": record})
    if in_python:
        engine.function("bench:handler")(common.make_handle(c))
    return engine


def _words(c: Any) -> Sequence[str]:
    words: Sequence[str] = c.variant.split(",")
    return words


def _folder(c: Any) -> str:
    return f"{c.db_dir}/{c.queue}"


class Wippy(common.Peer):  # type: ignore[misc]  # the peers' folder is not there when types are checked
    name = NAME
    brokers = ("rabbitmq", "redis", "sqlite", "memory")
    semantics = "at-least-once (ack after handler); rabbitmq durable+persistent, confirms; redis lease; sqlite WAL file"

    def setup(self) -> None:
        if self.c.broker == "sqlite":
            Path(_folder(self.c)).mkdir()
        self.engine = build(self.c)
        self.engine.start(consumers=False)

    def publish_backlog(self, bodies: Sequence[Body]) -> None:
        for first in range(0, len(bodies), BATCH):
            batch = bodies[first : first + BATCH]
            published = common.now()
            for body in batch:
                body["t"] = published
            self.engine.publish_many("bench:tasks", batch)

    def send(self, body: Body) -> None:
        self.engine.publish("bench:tasks", body)

    def start_workers(self) -> None:
        if self.c.broker == "memory" or "inside" in _words(self.c):
            type(self).in_process = True
            self.engine.start()
            return
        for _ in range(self.c.processes):
            self.spawn(sys.executable, str(HERE), env={_WORKER: "1"})

    def cleanup(self) -> None:
        self.engine.stop()
        if self.c.broker == "rabbitmq":
            self.amqp_delete(*(f"{self.c.queue}{suffix}" for suffix in ("", ".due", ".dropped")))
        shutil.rmtree(_folder(self.c), ignore_errors=True)


def work() -> None:
    """Handle messages until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with build(common.cfg()):
        signal.pause()


def _ours(messages: int, broker: str, **more: Any) -> Case:
    case: Case = run_all.case(NAME, messages, broker=broker, **more)
    return case


def _beside(peer: str, broker: str, messages: int) -> tuple[list[Case], Callable[[Case], bool]]:
    """Compare handlers that do nothing, eight workers in one process; theirs at all the prefetches that there are.

    A longer backlog costs RabbitMQ more for each message, so ours is not much longer than theirs.
    """

    def wanted(case: Case) -> bool:
        fixed = ("noop", peer, broker, 8, 1)
        return (case["workload"], case["peer"], case["broker"], case["concurrency"], case["processes"]) == fixed

    ours = [
        _ours(messages, broker, prefetch=prefetch, lat=prefetch == 400, variant=variant)
        for prefetch in (400, 1600)
        for variant in ("", "python")
    ]
    return ours, wanted


# What is measured in one run: our cases, and which of the peers'. Concurrency is theirs, and once two workers where two
# cores compute; the prefetch is what docs/explanation/threads-vs-asyncio.md says to choose.
COMPARISONS: Final[dict[str, tuple[list[Case], Callable[[Case], bool]]]] = {
    "dramatiq-rabbitmq": _beside("dramatiq", "rabbitmq", 20_000),
    "celery-rabbitmq": _beside("celery", "rabbitmq", 20_000),
    "dramatiq-redis": _beside("dramatiq", "redis", 50_000),
    "celery-redis": _beside("celery", "redis", 50_000),
    "file": (
        [_ours(60_000, "sqlite", prefetch=400, lat=True, variant=v) for v in ("", "normal", "inside", "python")],
        lambda case: case["workload"] == "noop" and (case["peer"] == "persistqueue" or case["broker"] == "sqlite"),
    ),
    "sleep": (
        [
            _ours(20_000, broker, w="sleep", c=100, prefetch=200, variant=variant)
            for broker in ("rabbitmq", "redis")
            for variant in ("", "python")
        ],
        lambda case: case["workload"] == "sleep" and case["peer"] == "dramatiq",
    ),
    "cpu": (
        [_ours(6_000, "redis", w="cpu", c=workers, prefetch=50) for workers in (2, 8)],
        lambda case: case["workload"] == "cpu" and case["peer"] == "dramatiq",
    ),
    "memory": (
        [_ours(60_000, "memory", prefetch=400, lat=True)],
        lambda case: case["workload"] == "noop" and case["broker"] == "memory",
    ),
}


def cases(name: str) -> list[Case]:
    """Return the cases of a comparison."""
    ours, wanted = COMPARISONS[name]
    return ours + [case for case in run_all.FULL + run_all.EXTRA if wanted(case)]


def ratios(lines: Sequence[Line]) -> list[str]:
    """Return a table of our medians over theirs, for what was measured with the same workload on the same broker."""
    rates: dict[tuple[Any, ...], list[float]] = {}
    for line in lines:
        if "error" not in line and not line.get("discarded"):
            key = (line["workload"], line["broker"], line["peer"], line["messages"], *line["key"][3:])
            rates.setdefault(key, []).append(line["msgs_per_s"])
    medians = {key: statistics.median(found) for key, found in rates.items()}
    rows = ["| workload | broker | ours | msgs/s | theirs | msgs/s | ratio |", "|---|---|---|---|---|---|---|"]
    for ours, our_rate in medians.items():
        for theirs, their_rate in medians.items():
            if ours[2] == NAME != theirs[2] and ours[:2] == theirs[:2]:
                rows.append(
                    f"| {ours[0]} | {ours[1]} | {_settings(*ours[3:])} | {our_rate:,.0f} "
                    f"| {theirs[2]}, {_settings(*theirs[3:])} | {their_rate:,.0f} | {our_rate / their_rate:.2f} |"
                )
    return rows


def _settings(messages: int, variant: str, concurrency: int, processes: int, prefetch: int) -> str:
    words = [variant, f"{concurrency} x {processes}", f"prefetch {prefetch}" if prefetch else "", f"N {messages:,}"]
    return ", ".join(filter(None, words))


def compare(names: Sequence[str]) -> None:
    """Have `run_all.py`, which reads the rest of the command line, make the comparisons."""
    peers, one, table = run_all.HERE, run_all.one, run_all.table

    def one_of_any(case: Case, given: Any) -> Line:
        run_all.HERE = str(HERE.parent) if case["peer"] == NAME else peers  # where it looks for the script
        line: Line = one(case, given)
        return line

    def table_and_ratios(lines: Sequence[Line]) -> None:
        table(lines)
        print("\n".join(["", *ratios(lines)]))

    os.environ["PYTHONPATH"] = peers  # for ours, which does not lie beside common.py
    run_all.one, run_all.table = one_of_any, table_and_ratios
    run_all.FULL = [case for name in names for case in cases(name)]
    machine = describe()
    print(f"{machine['time']}  {machine['cpu']}, {machine['cores']} cores, load before {machine['load_before']}\n")
    run_all.main()


def main() -> None:
    if GIVEN.peers is not None:
        sys.argv[1:] = OTHERS
        compare(GIVEN.comparison or list(COMPARISONS))
    elif _WORKER in os.environ:
        work()
    else:
        common.main(Wippy)


if __name__ == "__main__":
    main()
