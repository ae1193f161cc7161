"""What the runs say: medians, ranges and ratios, as JSON and as a table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
from rich.console import Console
from rich.table import Table

from wippy_queue.bench.contestant import OURS
from wippy_queue.bench.measure import Measures
from wippy_queue.bench.runner import Result, Results
from wippy_queue.bench.workloads import WORKLOADS

_JSON_KEYS: Final = ("rate", "publish_rate", "p50_ms", "p99_ms", "cpu_us", "peak_rss_mb")
_DIGITS: Final = {"rate": 1, "publish_rate": 1, "p50_ms": 4, "p99_ms": 4, "cpu_us": 2, "peak_rss_mb": 1}


@attrs.frozen(kw_only=True)
class Row:
    """All rounds of one contestant under one workload and one setting."""

    engine: str
    workload: str
    driver: str
    concurrency: int
    prefetch: int
    messages: int
    rounds: Sequence[Measures]

    def median(self, name: str) -> float:
        return statistics.median(self._values(name))

    def range(self, name: str) -> tuple[float, float]:
        values = self._values(name)
        return min(values), max(values)

    def _values(self, name: str) -> list[float]:
        return [getattr(measures, name) for measures in self.rounds]

    @property
    def setting(self) -> tuple[str, int, int]:
        """What the contestants that are compared have in common."""
        return self.workload, self.concurrency, self.prefetch


def rows_of(results: Sequence[Result]) -> list[Row]:
    """Gather the rounds; this engine comes first in each setting, the others as they were named."""
    found: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        run = result.run
        found.setdefault((run.workload, run.concurrency, run.prefetch, run.engine), []).append(result)
    return [
        Row(
            engine=engine,
            workload=workload,
            driver=group[0].run.driver,
            concurrency=concurrency,
            prefetch=prefetch,
            messages=group[0].run.messages,
            rounds=[result.measures for result in group],
        )
        for (workload, concurrency, prefetch, engine), group in found.items()
    ]


def ratio(row: Row, rows: Sequence[Row]) -> float | None:
    """Return this engine's median rate over the row's, in the same setting; None for this engine's own rows."""
    if row.engine == OURS:
        return None
    ours = next(other for other in rows if other.engine == OURS and other.setting == row.setting)
    return ours.median("rate") / row.median("rate")


def ratios_of(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return for each workload this engine's rate over each other's, in the first setting that was measured."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        against = found.setdefault(row.workload, {})
        value = ratio(row, rows)
        if value is not None:
            against.setdefault(row.engine, round(value, 3))
    return found


def as_json(results: Results) -> dict[str, Any]:
    """Return the whole benchmark as ``--json`` prints it; numbers are medians of the rounds."""
    rows = rows_of(results.results)
    return {
        "machine": results.machine,
        "rows": [
            {
                "engine": row.engine,
                "workload": row.workload,
                "driver": row.driver,
                "concurrency": row.concurrency,
                "prefetch": row.prefetch,
                "messages": row.messages,
                **{key: round(row.median(key), _DIGITS[key]) for key in _JSON_KEYS},
                "rounds": len(row.rounds),
            }
            for row in rows
        ],
        "ratios": ratios_of(rows),
    }


_COLUMNS: Final[dict[str, Callable[[Row], str]]] = {
    "engine": lambda row: row.engine,
    "msgs/s": lambda row: f"{row.median('rate'):,.0f}",
    "(min-max)": lambda row: "({:,.0f}-{:,.0f})".format(*row.range("rate")),
    "publish/s": lambda row: f"{row.median('publish_rate'):,.0f}",
    "p50 / p99 / p99.9 ms": lambda row: " / ".join(f"{row.median(n):.2f}" for n in ("p50_ms", "p99_ms", "p999_ms")),
    "CPU us": lambda row: f"{row.median('cpu_us'):,.1f}",
    "RSS MB": lambda row: f"{row.median('peak_rss_mb'):,.0f}",
    "start / stop ms": lambda row: f"{row.median('start_s') * 1e3:,.0f} / {row.median('stop_s') * 1e3:,.0f}",
}
_WIDTH: Final = 116  # characters; on a narrower screen whole lines are better than columns cut to nothing


def print_report(results: Results) -> None:
    """Print a table for each workload and setting, and the machine."""
    console = Console(highlight=False)
    console.width = max(console.width, _WIDTH)
    rows = rows_of(results.results)
    for setting in dict.fromkeys(row.setting for row in rows):
        chosen = [row for row in rows if row.setting == setting]
        workload, concurrency, prefetch = setting
        console.print(
            f"[bold]{workload}[/] on {chosen[0].driver}: {WORKLOADS[workload].about}; {concurrency} workers, prefetch"
            f" {prefetch}, {chosen[0].messages:,} messages"
        )
        table = Table(box=None, header_style="dim", pad_edge=False)
        for name in (*_COLUMNS, "ratio"):
            table.add_column(name, justify="left" if name == "engine" else "right", no_wrap=True)
        for row in chosen:
            value = ratio(row, rows)
            table.add_row(*(show(row) for show in _COLUMNS.values()), "" if value is None else f"{value:.2f}")
        console.print(table)
        console.print()
    machine = results.machine
    rounds = len(rows[0].rounds)
    console.print(
        f"Medians of {rounds} round{'' if rounds == 1 else 's'}. ratio: {OURS}'s rate over the row's. Latency: publish"
        f" to handler start, at a fixed rate.\n{machine['cpu']}, {machine['cores']} cores, load"
        f" {machine['load_before']} before; Python {machine['python']}, lupa {machine['lupa']}, {machine['system']}"
    )
