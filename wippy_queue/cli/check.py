"""``wippy-queue check``: every mistake of an application, before it runs."""

from __future__ import annotations

import sys

import click

from wippy_queue import entries
from wippy_queue.cli.options import Target, application_command, json_option
from wippy_queue.cli.output import Exit, print_error, print_json, print_warning
from wippy_queue.engine import Engine
from wippy_queue.errors import ConfigurationError, Problem


@click.command
@application_command(log_level="warning")
@click.option("--connect", is_flag=True, help="Ask the brokers too; nothing is created there.")
@json_option
def check(target: Target, connect: bool, as_json: bool) -> None:
    """Print every mistake of APP with its place, and start nothing.

    With --connect each broker is asked as well: whether it can be reached, lets us in and is fit for queues, and
    whether the queues that are there already are as APP declares them.

    The exit code is 1 when there are mistakes. Functions and modules that only a Python script registers, with
    engine.function and engine.module, cannot be known here; they are warnings.

    \b
    Examples:
      wippy-queue check app/
      wippy-queue check app/ --connect --json
      wippy-queue check app/ -o app.queue:tasks:driver=app:rabbit
    """
    problems: list[Problem] = []
    warnings: list[Problem] = []
    try:
        application = target.read()
    except ConfigurationError as error:
        problems.extend(error.problems)
    else:
        warnings.extend([*application.warnings, *_unresolved(application)])
        if connect:
            problems.extend(Engine(application).verify())
    if as_json:
        print_json({"problems": problems, "warnings": warnings})
    else:
        for warning in warnings:
            print_warning(str(warning))
        for problem in problems:
            print_error(str(problem))
        print(f"{len(problems) or 'no'} mistake{'' if len(problems) == 1 else 's'}")
    if problems:
        sys.exit(Exit.FAILED)


def _unresolved(application: entries.Application) -> list[Problem]:
    return [
        Problem(
            f"no {name.what} {name.name!r} is declared; a Python script has to register it{name.suggestion}",
            file=name.place.file,
            line=name.place.line,
            column=name.place.column,
            entry=name.entry,
            path=name.path,
        )
        for name in application.unresolved
    ]
