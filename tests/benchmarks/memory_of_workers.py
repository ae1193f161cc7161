"""What a consumer's Lua workers take: memory and time to start, for handlers with several sets of modules.

    python tests/benchmarks/memory_of_workers.py [--workers 1000] [--rounds 3] [--only "json logger"]

Linux only. Each set has a process of its own, on the memory driver. Its handler requires the modules when it is loaded
and uses each of them for each message; each worker handles one message a round. Columns: the seconds that a start
takes; then in MiB the process before the start, with idle workers, and after the rounds, each time with what of it is
Lua's.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from wippy_queue.bench.machine import describe
from wippy_queue.delivery import Delivery
from wippy_queue.engine import Engine
from wippy_queue.handler import Outcome
from wippy_queue.lua.handler import LuaSession
from wippy_queue.lua.runtime import Runtime

SETS: Final = (
    "",
    "json logger",
    "json logger queue",
    "json logger queue time",
    "json logger queue time store",
    "json logger queue time store uuid hash base64 env ctx funcs security",
)
_MIB: Final = 1 << 20
_TIMEOUT: Final = 60.0  # seconds

# What a handler does with a module, for a message {id: 1, items: [...]}.
_USES: Final = {
    "json": "local text = json.encode(body) body = json.decode(text)",
    "logger": "logger:info('done', {id = body.id})",
    "queue": "queue.publish('bench:results', {id = body.id, from = queue.message():id()})",
    "time": "local took = time.now():sub(begun):milliseconds()",
    "store": "store.get('bench:cache'):set('last', body.id)",
    "uuid": "local id = uuid.v4()",
    "hash": "local digest = hash.sha256('text')",
    "base64": "local encoded = base64.encode('text')",
    "env": "env.get('HOME')",
    "ctx": "ctx.all()",
    "funcs": "funcs.new()",
    "security": "security.actor()",
}


def handler(modules: Sequence[str]) -> str:
    """Return the text of a handler."""
    lines = [f"local {name} = require('{name}')" for name in modules]
    lines.append("return function(body)")
    if "time" in modules:
        lines.append("local begun = time.now()")
    lines += [_USES[name] for name in modules]
    return "\n".join([*lines, "end"])


def take_turns(workers: int) -> threading.Barrier:
    """Have each worker take exactly one message a round; the barrier, with one more party, tells when all are done."""
    here, done = threading.Barrier(workers), threading.Barrier(workers + 1)
    handle = LuaSession.handle

    def together(session: LuaSession, deliveries: Sequence[Delivery], *, alone: bool = False) -> Sequence[Outcome]:
        here.wait(_TIMEOUT)
        outcomes = handle(session, deliveries, alone=alone)
        assert all(outcome.ok for outcome in outcomes), outcomes
        done.wait(_TIMEOUT)
        return outcomes

    LuaSession.handle = together  # type: ignore[method-assign,assignment]  # in this process alone
    return done


def measure(modules: Sequence[str], workers: int, rounds: int) -> dict[str, float]:
    """Start workers in this process and return what they took."""
    engine = Engine.from_entries(
        [
            {"name": "driver", "kind": "queue.driver.memory"},
            {"name": "tasks", "kind": "queue.queue", "driver": "bench:driver"},
            {
                "name": "results",
                "kind": "queue.queue",
                "driver": "bench:driver",
                "options": {"max_length": 10, "overflow": "drop_oldest"},
            },
            {"name": "cache", "kind": "store.memory"},
            {"name": "handler", "kind": "function.lua", "source": handler(modules), "modules": modules},
            {
                "name": "consumer",
                "kind": "queue.consumer",
                "queue": "bench:tasks",
                "func": "bench:handler",
                "concurrency": workers,
                "prefetch": workers,
                "auto_ack": True,  # so that a worker takes one message at a time
                "lifecycle": {"auto_start": True, "start_timeout": 60, "stop_timeout": 60},
            },
        ],
        namespace="bench",
    )
    done = take_turns(workers)
    figures = {"before": resident()}
    began = time.perf_counter()
    engine.start()
    figures["start"] = time.perf_counter() - began
    figures |= {"idle": resident(), "idle_lua": lua_heaps()}
    for number in range(rounds):
        engine.publish_many("bench:tasks", [{"id": number, "items": [{"sku": "a-1", "count": 2}] * 4}] * workers)
        done.wait(_TIMEOUT)
    figures |= {"used": resident(), "used_lua": lua_heaps()}
    engine.stop()
    return figures


def resident() -> float:
    """Return the MiB that this process holds."""
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def lua_heaps() -> float:
    """Return the MiB that all Lua states hold together."""
    runtimes = [thing for thing in gc.get_objects() if isinstance(thing, Runtime)]
    used: int = sum(runtime._lua.get_memory_used() for runtime in runtimes)
    return used / _MIB


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory and time to start of Lua workers.")
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", help="a set of modules; may be repeated; default: several")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        print(json.dumps(measure(given.child.split(), given.workers, given.rounds)))
        return
    machine = describe()
    print(f"{machine['time']}  {machine['cpu']}, {machine['cores']} cores, load before {machine['load_before']}")
    print(f"{given.workers} workers, {given.rounds} rounds\n")
    print(f"{'start, s':>8} {'before':>7} {'idle':>7} {'(Lua)':>7} {'used':>7} {'(Lua)':>7}  modules", flush=True)
    for names in given.only or SETS:
        arguments = [f"--workers={given.workers}", f"--rounds={given.rounds}", f"--child={names}"]
        done = subprocess.run(
            [sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True, timeout=600
        )
        found: dict[str, Any] = json.loads(done.stdout)
        memory = " ".join(f"{found[name]:>7.1f}" for name in ("before", "idle", "idle_lua", "used", "used_lua"))
        print(f"{found['start']:>8.2f} {memory}  {names or 'none'}", flush=True)


if __name__ == "__main__":
    main()
