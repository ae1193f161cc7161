"""``wippy-queue check``: every mistake of an application, before it runs."""

from __future__ import annotations

import re
import sys

import attrs
import click

from wippy_queue import entries
from wippy_queue.cli.options import Target, application_command, json_option
from wippy_queue.cli.output import Exit, print_error, print_json, print_warning
from wippy_queue.errors import ConfigurationError, Problem
from wippy_queue.lua.host import Chunks


@click.command
@application_command(log_level="warning")
@json_option
def check(target: Target, as_json: bool) -> None:
    """Print every mistake of APP with its place, and start nothing.

    The exit code is 1 when there are mistakes. Functions and modules that only a Python script registers, with
    engine.function and engine.module, cannot be known here; they are warnings.

    \b
    Examples:
      wippy-queue check app/
      wippy-queue check app/ --json
      wippy-queue check app/ -o app.queue:tasks:driver=app:rabbit
    """
    problems: list[Problem] = []
    warnings: list[Problem] = []
    try:
        application = target.read()
    except ConfigurationError as error:
        problems.extend(error.problems)
    else:
        problems.extend(_lua_mistakes(application))
        warnings.extend([*application.warnings, *_unresolved(application)])
    if as_json:
        print_json({"problems": [attrs.asdict(p) for p in problems], "warnings": [attrs.asdict(w) for w in warnings]})
    else:
        for warning in warnings:
            print_warning(str(warning))
        for problem in problems:
            print_error(str(problem))
        print(f"{len(problems) or 'no'} mistake{'' if len(problems) == 1 else 's'}")
    if problems:
        sys.exit(Exit.FAILED)


def _lua_mistakes(application: entries.Application) -> list[Problem]:
    chunks = Chunks()
    mistakes = []
    for entry in application.entries.values():
        if isinstance(entry, entries.LuaLibraryEntry):
            why = chunks.check(entry.source, entry.source_name)
            if why is not None:
                mistakes.append(_at_its_line(why, entry))
    return mistakes


def _at_its_line(why: str, entry: entries.LuaLibraryEntry) -> Problem:
    """Take the line out of ``handler.lua:3: unexpected symbol near 'then'``; Lua cuts long names, so ours is used."""
    found = re.fullmatch(r".*?:(?P<line>\d+): (?P<why>.*)", why, re.DOTALL)
    if found is None:
        return Problem(why, entry=entry.id, path="source")
    return Problem(found["why"], entry.source_name, int(found["line"]), entry=entry.id, path="source")


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
