"""``wippy-queue check``: every mistake of an application, before it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

import attrs
import click

from wippy_queue import entries
from wippy_queue.cli.options import Target, application_command, json_option
from wippy_queue.cli.output import Exit, print_error, print_json, print_warning
from wippy_queue.engine import Engine
from wippy_queue.errors import ConfigurationError, Kind, Problem, Unavailable, WippyQueueError
from wippy_queue.ids import EntryId
from wippy_queue.lua.handler import LuaFunction
from wippy_queue.wiring import Wiring, source_of

# What a chunk raises of itself, or runs for ever. Another kind comes from a module: from a store that is not there yet,
# or a policy that asks who acts; that may well be different when the application runs.
_OF_THE_CHUNK: Final = frozenset({Kind.INVALID, Kind.TIMEOUT})


@click.command
@application_command(log_level="warning")
@click.option("--connect", is_flag=True, help="Ask the brokers too; nothing is created there.")
@json_option
def check(target: Target, connect: bool, as_json: bool) -> None:
    """Print every mistake of APP with its place, and start nothing.

    Lua is loaded up to where it gives its handler; no handler is called.

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
        try:
            wiring = Wiring(application, "check")
        except WippyQueueError as error:  # the library of a driver is not installed here
            warnings.append(Problem(f"Lua is compiled, but not loaded: {error}"))
        else:
            (warnings if target.skip_unsupported else problems).extend(_unloadable(wiring))
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


def _unloadable(wiring: Wiring) -> Iterator[Problem]:
    """Give what keeps functions in Lua from having a handler."""
    application = wiring.application
    host = attrs.evolve(wiring.host, function=_no_function)  # one in Python could reach out
    unknown = {name.entry for name in application.unresolved if name.what == "module"}
    for entry in application.entries.values():
        if not isinstance(entry, entries.LuaFunctionEntry) or _with_imports(application, entry) & unknown:
            continue
        function = LuaFunction(source_of(entry), host)
        try:
            function.make_runtime(function.new_context(None)).close()
        except WippyQueueError as error:
            if error.kind in _OF_THE_CHUNK:
                message = str(error).removeprefix(f"{entry.id}: ")
                place = entry.place
                yield Problem(
                    message, file=place.file, line=place.line, column=place.column, entry=entry.id, path="source"
                )


def _with_imports(application: entries.Application, entry: entries.LuaLibraryEntry) -> set[EntryId]:
    """Return a function's id, and those of the libraries that it imports, or that they import."""
    found: set[EntryId] = set()
    pending = [entry.id]
    while pending:
        unit = application.entries[pending.pop()]
        if isinstance(unit, entries.LuaLibraryEntry) and unit.id not in found:
            found.add(unit.id)
            pending += unit.imports.values()
    return found


def _no_function(function_id: str) -> LuaFunction:
    raise Unavailable(f"{function_id} is not called: nothing runs here")
