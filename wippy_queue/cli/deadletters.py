"""``wippy-queue dead-letters``: what was given up, why, and back to where it came from."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import click

from wippy_queue.cli.options import Target, application_command, json_option, read_duration
from wippy_queue.cli.output import Exit, body_of, print_error, print_json, print_table
from wippy_queue.cli.reach import queue_entries, queue_entry, reach
from wippy_queue.deadletters import DeadLetters, DeadMessage, Selection

F = TypeVar("F", bound=Callable[..., Any])

_SELECTION: Final = (
    click.option("--id", "ids", multiple=True, help="Only the message of that id. Repeatable."),
    click.option(
        "--reason", help="Only those given up for that: attempts, not_retryable, undecodable, expired, maxlen."
    ),
    click.option("--function", metavar="ID", help="Only those that the handler of that id gave up."),
    click.option("--from", "queue_of_origin", metavar="QUEUE", help="Only those that came from that queue."),
    click.option("--older-than", metavar="DURATION", callback=read_duration, help="Only those given up before that."),
    click.option("--newer-than", metavar="DURATION", callback=read_duration, help="Only those given up since then."),
)


def _selecting(command: F) -> F:
    """Add the options that say which dead letters are meant; the command gets one ``selection``."""

    @functools.wraps(command)
    def with_selection(*, ids: tuple[str, ...], queue_of_origin: str | None, **values: Any) -> Any:
        chosen = {name: values.pop(name) for name in ("reason", "function", "older_than", "newer_than")}
        return command(selection=Selection(ids=ids or None, queue=queue_of_origin, **chosen), **values)

    decorated: Any = with_selection
    for option in reversed(_SELECTION):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


@contextlib.contextmanager
def _open(target: Target, queue: str) -> Iterator[DeadLetters]:
    """Reach the queue, where its messages end, and where they came from."""
    application = target.read()
    entry = queue_entry(application, queue)
    related = [] if entry.dead_letter is None else [entry.dead_letter.queue]
    related += [
        other.id
        for other in queue_entries(application).values()
        if other.dead_letter is not None and other.dead_letter.queue == queue
    ]
    with reach(application, [entry.id, *related]) as engine:
        yield engine.dead_letters(queue)


@click.group("dead-letters")
def dead_letters() -> None:
    """List, show, replay or purge messages that were given up.

    QUEUE is a dead-letter queue, or a queue that has one, or a queue without one: then it is about its parked messages.
    """


@dead_letters.command("list")
@application_command(log_level="warning")
@click.argument("queue")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Show at most so many.")
@_selecting
@json_option
def list_(target: Target, queue: str, limit: int, selection: Selection, as_json: bool) -> None:
    """List the dead letters of QUEUE, the oldest first.

    \b
    Example:
      wippy-queue dead-letters list app/ app.queue:tasks --reason attempts --newer-than 1h
    """
    with _open(target, queue) as letters:
        found = [_shown(dead) for dead in letters.list(selection, limit)]
    if as_json:
        print_json(found)
    else:
        columns = ("id", "queue", "reason", "attempts", "time", "error")
        print_table(columns, ([row[column] for column in columns] for row in found))


@dead_letters.command()
@application_command(log_level="warning")
@click.argument("queue")
@click.argument("message_id")
@json_option
def show(target: Target, queue: str, message_id: str, as_json: bool) -> None:
    """Show one dead letter of QUEUE with its headers and its body.

    \b
    Example:
      wippy-queue dead-letters show app/ app.queue:tasks 0125da35-c8c2-48ec-b093-9f9578f8c734
    """
    with _open(target, queue) as letters:
        dead = letters.show(message_id)
    shown = {**_shown(dead), "headers": dict(dead.headers), "body": body_of(dead.message)}
    if as_json:
        print_json(shown)
        return
    for name in ("headers", "body"):
        shown[name] = json.dumps(shown[name], ensure_ascii=False)
    for name, value in shown.items():
        print(f"{name + ':':<9} {'-' if value is None else value}")


@dead_letters.command()
@application_command(log_level="warning")
@click.argument("queue")
@_selecting
@click.option("--to", metavar="QUEUE", help="Put them there instead of where they came from.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="So many a second at most.")
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and do nothing.")
@json_option
def replay(target: Target, queue: str, selection: Selection, as_json: bool, **options: Any) -> None:
    """Put dead letters of QUEUE back where they came from, with the same ids and as if never tried.

    \b
    Examples:
      wippy-queue dead-letters replay app/ app.queue:tasks --dry-run
      wippy-queue dead-letters replay app/ app.queue:tasks --reason attempts --rate 50
    """
    with _open(target, queue) as letters:
        report = letters.replay(selection, **options)
    if as_json:
        print_json({"replayed": list(report.replayed), "failed": dict(report.failed)})
    else:
        done = "would be replayed" if options["dry_run"] else "replayed"
        print(f"{len(report.replayed)} {done}")
        for message_id, why in report.failed.items():
            print_error(f"{message_id}: {why}")
    if report.failed:
        sys.exit(Exit.FAILED)


@dead_letters.command()
@application_command(log_level="warning")
@click.argument("queue")
@_selecting
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def purge(target: Target, queue: str, selection: Selection, yes: bool, as_json: bool) -> None:
    """Remove dead letters of QUEUE for good.

    \b
    Example:
      wippy-queue dead-letters purge app/ app.queue:tasks --older-than 720h --yes
    """
    with _open(target, queue) as letters:
        if not yes:
            click.confirm(f"Remove dead letters of {queue} for good?", abort=True, err=True)
        removed = letters.purge(selection)
    if as_json:
        print_json({"queue": queue, "removed": removed})
    else:
        print(f"{removed} dead letter{'' if removed == 1 else 's'} removed")


def _shown(dead: DeadMessage) -> dict[str, Any]:
    return {
        "id": dead.id,
        "queue": dead.queue,
        "reason": dead.reason,
        "error": dead.error,
        "function": dead.function,
        "attempts": dead.attempts,
        "time": None if dead.time is None else datetime.fromtimestamp(dead.time, UTC).isoformat(timespec="seconds"),
    }
