"""``wippy-queue run``: an application as a service, until a signal ends it."""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
from pathlib import Path

import click

from wippy_queue.cli.options import Target, application_command
from wippy_queue.cli.output import Exit
from wippy_queue.cli.signals import caught_signals
from wippy_queue.cli.status import StatusFile, default_file, health_file_option
from wippy_queue.durations import LONGEST, is_seconds
from wippy_queue.engine import Engine
from wippy_queue.errors import ShutdownTimeout

_log = logging.getLogger(__name__)


def _check_seconds(_context: click.Context, _param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not is_seconds(value):  # not a number, and what no timer takes
        raise click.BadParameter(f"expected seconds from 0 to {LONGEST:.0f}, found {value:g}")
    return value


@click.command
@application_command(log_level="info")
@click.option(
    "--stop-timeout",
    type=click.FloatRange(min=0),
    callback=_check_seconds,
    metavar="SECONDS",
    help="Bound the whole stop; without it each service has its own stop_timeout.",
)
@health_file_option
def run(target: Target, stop_timeout: float | None, health_file: Path | None) -> None:
    """Run APP until SIGINT (Ctrl-C) or SIGTERM.

    The first signal stops gracefully: no new messages, those in hand may finish. The second cuts at once.

    A service that cannot start, such as a driver whose broker is away, is tried again and again. `wippy-queue health`
    tells how the application is; it reads what this command writes every two seconds.

    \b
    Examples:
      wippy-queue run app/
      wippy-queue run app/ --log-format json
      wippy-queue run app/ -o app.queue:tasks:driver=app:rabbit --stop-timeout 30
    """
    signals: queue.SimpleQueue[signal.Signals] = queue.SimpleQueue()
    with caught_signals(signals.put):
        engine = Engine(target.read())
        with StatusFile(health_file or default_file(target.path), engine, required=health_file is not None):
            engine.start(wait=False)
            fields = {"app": str(target.path), "pid": os.getpid()}
            _log.info("running; Ctrl-C or SIGTERM stops", extra={"fields": fields})
            received = signals.get()
            _log.info("stopping; a second signal cuts", extra={"fields": {"signal": received.name}})
            _stop(engine, stop_timeout)


def _stop(engine: Engine, timeout: float | None) -> None:
    try:
        report = engine.stop(timeout)
    except ShutdownTimeout as error:
        _log.error(
            "stopped, but not all that was in hand could be finished; those messages will come again",
            extra={"fields": {"abandoned": list(error.report.abandoned)}},
        )
        sys.exit(Exit.FAILED)
    fields = {"finished": len(report.finished), "handed_back": len(report.handed_back)}
    _log.info("stopped", extra={"fields": fields})
