"""``wippy-queue health``: whether the process that runs an application is well; cheap, and no broker is asked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from wippy_queue.cli.options import json_option
from wippy_queue.cli.output import Exit, print_json
from wippy_queue.cli.status import default_file, health_file_option, read_state
from wippy_queue.errors import NotFound


@click.command
@click.argument("app", type=click.Path(exists=True, path_type=Path))
@click.option("--ready", is_flag=True, help="Ask whether everything that is to run does; else whether it is alive.")
@health_file_option
@json_option
def health(app: Path, ready: bool, health_file: Path | None, as_json: bool) -> None:
    """Tell how the process is that runs APP on this machine, without asking it or any broker.

    The exit code is 0 when it is alive (with --ready: when everything that is to run does), else 1. It is not alive
    when it is gone, hangs, or has given up a service, so that only a new start can help.

    \b
    Examples:
      wippy-queue health app/
      wippy-queue health app/ --ready --json
    """
    state: dict[str, Any]
    try:
        state = read_state(health_file or default_file(app))
    except NotFound as error:
        state = {"live": False, "ready": False, "problems": [f"not running: {error}"], "services": {}}
    if as_json:
        print_json(state)
    else:
        print(_line(state))
    if not (state["ready"] if ready else state["live"]):
        sys.exit(Exit.FAILED)


def _line(state: dict[str, Any]) -> str:
    verdict = f"{'live' if state['live'] else 'not live'}, {'ready' if state['ready'] else 'not ready'}"
    running = sum(service["state"] == "Running" for service in state["services"].values())
    details = "; ".join(state["problems"]) or f"{running} services run"
    return f"{verdict}: {' '.join(details.split())}"
