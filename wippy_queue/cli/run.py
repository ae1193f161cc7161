"""``wippy-queue run``: an application as a service, until a signal ends it."""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import sys
import threading
from typing import Final

import click

from wippy_queue.cli.options import Target, application_command
from wippy_queue.cli.output import Exit
from wippy_queue.engine import Engine
from wippy_queue.errors import ShutdownTimeout

_log = logging.getLogger(__name__)

_STOP: Final = (signal.SIGINT, signal.SIGTERM)


@click.command
@application_command(log_level="info")
@click.option(
    "--stop-timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Bound the whole stop; without it each service has its own stop_timeout.",
)
def run(target: Target, stop_timeout: float | None) -> None:
    """Run APP until SIGINT (Ctrl-C) or SIGTERM.

    The first signal stops gracefully: no new messages, those in hand may finish. The second cuts at once.

    A service that cannot start, such as a driver whose broker is away, is tried again and again.

    \b
    Examples:
      wippy-queue run app/
      wippy-queue run app/ --log-format json
      wippy-queue run app/ -o app.queue:tasks:driver=app:rabbit --stop-timeout 30
    """
    signals = _catch_signals()
    engine = Engine(target.read())
    engine.start(wait=False)
    _log.info("running; Ctrl-C or SIGTERM stops", extra={"fields": {"app": str(target.path), "pid": os.getpid()}})
    received = signals.get()
    _log.info("stopping; a second signal cuts", extra={"fields": {"signal": received.name}})
    try:
        report = engine.stop(stop_timeout)
    except ShutdownTimeout as error:
        _log.error(
            "stopped, but handlers had to be cut; their messages will come again",
            extra={"fields": {"abandoned": list(error.report.abandoned)}},
        )
        sys.exit(Exit.FAILED)
    fields = {"finished": len(report.finished), "handed_back": len(report.handed_back)}
    _log.info("stopped", extra={"fields": fields})


def _catch_signals() -> queue.SimpleQueue[signal.Signals]:
    """Return a queue that gets the first signal; the second ends the process where it stands.

    Python runs signal handlers on the main thread alone, and one that arrives just before that thread blocks waits
    until it wakes. The wakeup descriptor is written to at once, whatever the main thread does.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signals: queue.SimpleQueue[signal.Signals] = queue.SimpleQueue()

    def watch() -> None:
        first = True
        while True:
            for number in reader.recv(64):
                if number not in _STOP:
                    continue
                if not first:
                    os.write(2, b"cut by a second signal\n")
                    os._exit(128 + number)
                first = False
                signals.put(signal.Signals(number))

    threading.Thread(target=watch, name="signals", daemon=True).start()
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    for number in _STOP:
        signal.signal(number, lambda _number, _frame: None)  # without a handler nothing is written
    return signals
