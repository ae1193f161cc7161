"""``wippy-queue move``: the messages of a queue to another queue, of the same driver or of another."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from wippy_queue.cli.options import Target, application_command, json_option
from wippy_queue.cli.output import Exit, print_error, print_json
from wippy_queue.cli.reach import reach
from wippy_queue.cli.signals import caught_signals
from wippy_queue.errors import WippyQueueError
from wippy_queue.moving import MoveReport


@click.command
@application_command(log_level="warning")
@click.argument("source")
@click.argument("dest")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Take at most so many.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="So many a second at most.")
@click.option("--lossy", is_flag=True, help="Leave priority and time to live out where DEST cannot honour them.")
@json_option
def move(target: Target, source: str, dest: str, as_json: bool, **options: Any) -> None:
    """Move the messages that wait in the queue SOURCE to the queue DEST, of the same driver or of another.

    They keep ids, headers and attempts. Each is published first and removed second, so that nothing is lost whatever
    happens; after an interruption the same command goes on. What cannot be moved stays and is reported (exit code 1),
    and so do delayed messages until they are due.

    \b
    Examples:
      wippy-queue move app/ app.queue:tasks app.queue:tasks_on_rabbit
      wippy-queue move app/ app.queue:tasks app.queue:archive --limit 1000 --rate 50
    """
    cancel = threading.Event()
    received: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        received.append(number)
        cancel.set()

    with caught_signals(on_signal), reach(target.read(), [source, dest]) as engine, _progress(as_json) as progress:
        task = progress.add_task("", total=engine.info(source).message_count)
        try:
            report = engine.move(
                source, dest, cancel=cancel, progress=lambda moved: progress.update(task, completed=moved), **options
            )
        except WippyQueueError as error:
            progress.stop()
            if "moved" in error.details:
                _tell(MoveReport(moved=error.details["moved"], failed=error.details["failed"]), as_json)
            raise
    _tell(report, as_json)
    if received:
        print_error("interrupted; nothing is lost, and the same command goes on from here")
        sys.exit(128 + received[0])
    if report.failed:
        sys.exit(Exit.FAILED)


def _progress(as_json: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("moved"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=as_json or not console.is_terminal,
    )


def _tell(report: MoveReport, as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    left = "" if not report.left else f"; {report.left} left: failed, delayed, in the hands of consumers, or new"
    failed = "" if not report.failed else f", {len(report.failed)} failed"
    print(f"{report.moved} message{'' if report.moved == 1 else 's'} moved{failed}{left}")
    for message_id, why in report.failed.items():
        print_error(f"{message_id}: {why}")
