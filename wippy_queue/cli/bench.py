"""``wippy-queue bench``: this engine against its asyncio variant, a bare baseline or client library, or yours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from wippy_queue.cli.options import json_option
from wippy_queue.cli.output import print_json

if TYPE_CHECKING:
    from wippy_queue.bench.measure import Run

_WORKLOADS: Final = ("noop", "json", "cpu", "sleep", "mixed")  # a test holds them against wippy_queue.bench
_DRIVERS: Final = ("memory", "sqlite", "amqp", "redis", "sqs")


@click.command
@click.option(
    "-w",
    "--workload",
    "workloads",
    type=click.Choice(_WORKLOADS),
    multiple=True,
    default=_WORKLOADS,
    help="What handlers do; all of them where none is named. Repeatable.",
)
@click.option(
    "-a",
    "--against",
    metavar="NAME",
    multiple=True,
    help="Measure that too: asyncio, asyncio-threads or baseline (memory driver), client (other drivers), or"
    " package.module:factory. Where none is named: asyncio and baseline, or client. Repeatable.",
)
@click.option("--driver", type=click.Choice(_DRIVERS), default="memory", show_default=True, help="Where messages are.")
@click.option("--url", metavar="URL", help="Of the driver's backend (sqlite: the file); without it the driver's own.")
@click.option(
    "-n", "--messages", type=click.IntRange(min=1), metavar="N", help="Of a run; without it the workload's own number."
)
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(1, 1000),
    multiple=True,
    metavar="N",
    help="Workers; without it the workload's own number. Repeatable.",
)
@click.option(
    "-p",
    "--prefetch",
    type=click.IntRange(1, 10_000),
    multiple=True,
    metavar="N",
    default=(400,),
    help="Size of the prefetch buffer; 400 where none is given. Repeatable.",
)
@click.option("-r", "--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Of each contestant.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=500.0,
    show_default=True,
    help="Messages per second while the latency is taken; less where the handlers could not keep up.",
)
@click.option(
    "--latencies",
    type=click.IntRange(min=10),
    default=1000,
    show_default=True,
    metavar="N",
    help="Messages whose latency is taken in each run.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Draw throughput over concurrency and prefetch, and the latency, into a png, svg or pdf.",
)
@json_option
def bench(as_json: bool, plot: Path | None, **options: Any) -> None:
    """Measure this engine against others: throughput, latency, CPU and memory.

    Every run is a process of its own; the contestants take turns over several rounds, and the medians are shown. Ratios
    carry further than absolute numbers: they hold on a busy machine too.

    \b
    Examples:
      wippy-queue bench
      wippy-queue bench -w cpu -a asyncio -a asyncio-threads -c 1 -c 2 -c 4 --plot cpu.png
      wippy-queue bench -w noop -n 100000 -a mypackage.engine:make --json
      wippy-queue bench -w noop --driver redis --url redis://localhost:6379/1
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from wippy_queue.bench import plot as plotting
    from wippy_queue.bench.contestant import find
    from wippy_queue.bench.report import as_json as report_as_json
    from wippy_queue.bench.report import print_report, rows_of
    from wippy_queue.bench.runner import Plan, execute

    if plot is not None:
        plotting.require_matplotlib()
    if not options["against"]:
        options["against"] = ("asyncio", "baseline") if options["driver"] == "memory" else ("client",)
    for name in options["against"]:
        find(name, options["driver"])
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("calibrating", total=None)

        def on_run(run: Run, number: int, count: int) -> None:
            progress.update(task, description=f"{run.workload}: {run.engine}", completed=number, total=count)

        results = execute(Plan(**options), on_run)
    if plot is not None:
        plotting.draw(rows_of(results.results), plot)
    if as_json:
        print_json(report_as_json(results))
    else:
        print_report(results)
