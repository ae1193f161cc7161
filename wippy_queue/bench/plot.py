"""The picture of ``--plot``: throughput over concurrency and over prefetch, and the distribution of the latency."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wippy_queue.bench.measure import QUANTILES
from wippy_queue.bench.report import Row
from wippy_queue.errors import Invalid


def require_matplotlib() -> None:
    """Raise Invalid, with the cure, where pictures cannot be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise Invalid("--plot needs matplotlib, which is not installed: pip install 'wippy_queue[bench]'") from None


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw one line of three pictures for each workload into a file, whose ending says the format (png, svg, pdf)."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    workloads = list(dict.fromkeys(row.workload for row in rows))
    figure = Figure(figsize=(15, 4 * len(workloads)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, workload in zip(figure.subplots(len(workloads), 3, squeeze=False), workloads, strict=True):
        chosen = [row for row in rows if row.workload == workload]
        _throughput(axes[0], chosen, "concurrency", "prefetch")
        _throughput(axes[1], chosen, "prefetch", "concurrency")
        _latency(axes[2], chosen)
        axes[0].set_title(f"{workload}: throughput over concurrency")
        axes[1].set_title(f"{workload}: throughput over prefetch")
        axes[2].set_title(f"{workload}: latency, publish to handler start")
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise Invalid(f"--plot {path}: {error}") from error


def _throughput(axes: Any, rows: Sequence[Row], over: str, fixed: str) -> None:
    """Plot the medians, with bars from minimum to maximum; the other setting stays at its first value."""
    at = getattr(rows[0], fixed)
    for engine in dict.fromkeys(row.engine for row in rows):
        points = sorted(
            (row for row in rows if row.engine == engine and getattr(row, fixed) == at),
            key=lambda row: getattr(row, over),
        )
        medians = [row.median("rate") for row in points]
        low = [median - row.range("rate")[0] for median, row in zip(medians, points, strict=True)]
        high = [row.range("rate")[1] - median for median, row in zip(medians, points, strict=True)]
        axes.errorbar(
            [getattr(row, over) for row in points], medians, yerr=[low, high], marker="o", capsize=3, label=engine
        )
    axes.set_xscale("log")
    values = sorted({getattr(row, over) for row in rows})
    axes.set_xticks(values, labels=map(str, values))
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"{over} ({fixed} {at})")
    axes.set_ylabel("messages per second")
    axes.legend()
    axes.grid(alpha=0.3)


def _latency(axes: Any, rows: Sequence[Row]) -> None:
    first = rows[0].setting
    for row in rows:
        if row.setting == first and row.rounds[0].quantiles:
            medians = [statistics.median(values) for values in zip(*(m.quantiles for m in row.rounds), strict=True)]
            axes.plot(medians, [100 * q for q in QUANTILES], label=row.engine)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds")
    axes.set_ylabel("percent of the messages, within")
    axes.legend()
    axes.grid(alpha=0.3)
