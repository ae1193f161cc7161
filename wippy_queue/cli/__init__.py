"""The command line, ``wippy-queue``."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import click

from wippy_queue.cli.bench import bench
from wippy_queue.cli.check import check
from wippy_queue.cli.deadletters import dead_letters
from wippy_queue.cli.demo import demo
from wippy_queue.cli.health import health
from wippy_queue.cli.move import move
from wippy_queue.cli.output import Exit, print_error
from wippy_queue.cli.queues import info, peek, publish, purge
from wippy_queue.cli.run import run
from wippy_queue.errors import WippyQueueError

_HELP = """Run and look into message-queue applications that are declared in YAML.

APP is a folder, of which every _index.yaml is read, or one YAML file.

\b
Exit codes:
  0    done
  1    failed: mistakes in the application, an error, messages abandoned at a stop or not moved, not live or not ready
  2    a wrong command line, or a thing that cannot be done from here
  130  interrupted by Ctrl-C, or cut by a second one (143: SIGTERM)
"""


@click.group(help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wippy_queue")
def cli() -> None:
    pass


for command in (run, check, publish, info, peek, purge, move, dead_letters, health, bench, demo):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and end the process; what a user did wrong is one message, never a traceback.

    Args:
        arguments: those of the command line; None: what the process was started with.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what was done is not undone by a name that cannot be shown
    try:
        cli.main(arguments, prog_name="wippy-queue")
    except WippyQueueError as error:
        print_error(str(error))
        sys.exit(Exit.FAILED)
    except OSError as error:  # stdout is a file on a full disk, for instance
        print_error(error.strerror or str(error))
        os._exit(Exit.FAILED)  # Python would try to write the rest once more
