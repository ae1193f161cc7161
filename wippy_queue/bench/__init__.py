"""The benchmark: this engine against the same system on asyncio, a bare baseline or client library, and what is named.

`runner.py` starts a process for each run (`child.py`), which measures (`measure.py`) one contestant (`contestant.py`)
under one workload (`workloads.py`); `report.py` makes medians and ratios of the rounds. The asyncio variant is
`asyncio_engine.py`, with files of its own for its queue, its buffer, its workers and its Lua; the client libraries are
`client.py`, with a file for each.
"""

from __future__ import annotations

from wippy_queue.bench.contestant import Contestant, Task

__all__ = ["Contestant", "Task"]
