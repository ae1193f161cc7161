"""What machine a benchmark ran on, and how fast its Lua is."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any, Final

from wippy_queue.bench.baseline import bare_handlers

_ROUNDS: Final = 20
_LOOPS: Final = 100_000


def describe() -> dict[str, Any]:
    """Return what ratios and rates depend on."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else (0.0,)
    return {
        "cpu": _cpu_name(),
        "cores": _cores(),
        "memory_mb": _memory_mb(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "lupa": importlib.metadata.version("lupa"),
        "wippy_queue": importlib.metadata.version("wippy_queue"),
        "load_before": round(load[0], 2),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def loops_per_millisecond() -> int:
    """Return how many turns of the workloads' loop take 1 ms of Lua: the best of several tries, for others may run."""
    (handler,) = bare_handlers(
        1,
        "return function(body) local x = 1 "
        "for _ = 1, body do x = (x * 1103515245 + 12345) % 2147483648 end return x end",
        str,
        int,
    )
    loops = str(_LOOPS).encode()
    best = float("inf")
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        handler(loops)
        best = min(best, time.perf_counter() - begun)
    return max(1, round(_LOOPS * 0.001 / best))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_mb() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 10**6
    except (ValueError, OSError):
        return None
