"""``wippy-queue publish``, ``info``, ``peek`` and ``purge``: what can be done to queues from outside."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import click

from wippy_queue import entries
from wippy_queue.cli.options import Target, application_command, json_option
from wippy_queue.cli.output import Exit, print_error, print_json, print_table, print_warning
from wippy_queue.codecs import decode_body
from wippy_queue.durations import parse_duration
from wippy_queue.engine import Engine
from wippy_queue.errors import Invalid, NotFound
from wippy_queue.message import Message
from wippy_queue.suggest import did_you_mean


@contextlib.contextmanager
def _open(application: entries.Application, chosen: Sequence[str]) -> Iterator[Engine]:
    """Start the drivers of the chosen queues, which must live outside this process, and nothing else."""
    drivers = {queue: _driver(application, queue) for queue in chosen}
    private = [queue for queue, driver in drivers.items() if not driver.kind.capabilities.shared]
    if private:
        print_error(
            f"{', '.join(private)}: a memory queue lives inside the one process that runs the application and cannot be"
            " reached from another; use the methods of its engine there, or a driver that several processes share"
        )
        sys.exit(Exit.USAGE)
    engine = Engine(application)
    try:
        for driver_id in {driver.id for driver in drivers.values()}:
            engine.start_service(driver_id)
        yield engine
    finally:
        engine.stop()


def _queues(application: entries.Application) -> dict[str, entries.QueueEntry]:
    return {entry.id: entry for entry in application.entries.values() if isinstance(entry, entries.QueueEntry)}


def _driver(application: entries.Application, queue: str) -> entries.DriverEntry:
    queues = _queues(application)
    if queue not in queues:
        raise NotFound(f"no queue {queue!r} is declared{did_you_mean(queue, queues)}")
    driver = application.entries[queues[queue].driver]
    assert isinstance(driver, entries.DriverEntry)  # noqa: S101  # the loader has checked the reference
    return driver


def _duration(_context: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        try:
            return float(value)
        except ValueError:
            raise click.BadParameter(str(error)) from None


def _headers(_context: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    headers = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"expected KEY=VALUE, found {value!r}")
        headers[key] = text
    return headers


@click.command
@application_command(log_level="warning")
@click.argument("queue")
@click.argument("body")
@click.option("--text", is_flag=True, help="BODY is text as it is, not JSON.")
@click.option("-H", "--header", "headers", metavar="KEY=VALUE", multiple=True, callback=_headers, help="Repeatable.")
@click.option("--id", "message_id", help="The id of the message; without it a new one is made.")
@click.option("--delay", metavar="DURATION", callback=_duration, help="Deliver it after that time: 500ms, 10s, 1h30m.")
@click.option("--ttl", metavar="DURATION", callback=_duration, help="Drop it when it is older than that.")
@click.option("--priority", type=click.IntRange(0, 9), help="Higher comes first.")
def publish(target: Target, queue: str, body: str, text: bool, **options: Any) -> None:
    """Publish BODY, which is JSON, to QUEUE and print the message's id.

    BODY is read from stdin when it is a dash.

    \b
    Examples:
      wippy-queue publish app/ app.queue:tasks '{"id": "task-123"}'
      wippy-queue publish app/ app.queue:tasks 'hello' --text -H correlation_id=c-1
      jq -c . order.json | wippy-queue publish app/ shop:orders -
    """
    source = sys.stdin.read() if body == "-" else body
    try:
        value = source if text else json.loads(source)
    except ValueError as error:
        raise click.BadParameter(f"BODY is no JSON ({error}); --text publishes it as text") from None
    with _open(target.read(), [queue]) as engine:
        print(engine.publish(queue, value, **options))


@click.command
@application_command(log_level="warning")
@click.argument("queues", metavar="[QUEUE]...", nargs=-1)
@json_option
def info(target: Target, queues: tuple[str, ...], as_json: bool) -> None:
    """Show how many messages the queues of APP hold: all queues, or those named. ``-`` is what a driver cannot know.

    \b
    Examples:
      wippy-queue info app/
      wippy-queue info app/ app.queue:tasks --json
    """
    application = target.read()
    chosen = queues or _reachable(application)
    with _open(application, chosen) as engine:
        found = {queue: attrs.asdict(engine.info(queue)) for queue in chosen}
    if as_json:
        print_json(found)
    else:
        columns = list(next(iter(found.values()), {}))
        print_table(["queue", *columns], ([queue, *counts.values()] for queue, counts in found.items()))


def _reachable(application: entries.Application) -> list[str]:
    """Return the queues that can be asked; all of them where none can, for `_open` to refuse."""
    shared = [queue for queue in _queues(application) if _driver(application, queue).kind.capabilities.shared]
    private = [queue for queue in _queues(application) if queue not in shared]
    if shared and private:
        print_warning(f"left out, for they live inside one process: {', '.join(private)}")
    return shared or private


@click.command
@application_command(log_level="warning")
@click.argument("queue")
@click.option(
    "-n", "--limit", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Show at most so many."
)
@json_option
def peek(target: Target, queue: str, limit: int, as_json: bool) -> None:
    """Show the messages that wait in QUEUE, next first, and leave them there.

    \b
    Example:
      wippy-queue peek app/ app.queue:tasks -n 3 --json
    """
    with _open(target.read(), [queue]) as engine:
        messages = [_shown(message) for message in engine.peek(queue, limit)]
    if as_json:
        print_json(messages)
    elif not messages:
        print("no message waits")
    else:
        for message in messages:
            print(message["id"])
            print("  headers:", json.dumps(message["headers"], ensure_ascii=False))
            print("  body:   ", json.dumps(message["body"], ensure_ascii=False))


def _shown(message: Message) -> dict[str, Any]:
    try:
        body = decode_body(message)
        json.dumps(body)
    except (Invalid, TypeError):  # no valid body, or bytes in it
        body = f"<{len(message.body)} bytes, {message.encoding}>"
    return {"id": message.id, "headers": message.all_headers(), "body": body}


@click.command
@application_command(log_level="warning")
@click.argument("queue")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def purge(target: Target, queue: str, yes: bool, as_json: bool) -> None:
    """Drop every message that waits in QUEUE. Those in the hands of consumers stay.

    \b
    Example:
      wippy-queue purge app/ app.queue:tasks --yes
    """
    with _open(target.read(), [queue]) as engine:
        if not yes:
            click.confirm(f"Drop every message that waits in {queue}?", abort=True, err=True)
        dropped = engine.purge(queue)
    if as_json:
        print_json({"queue": queue, "dropped": dropped})
    else:
        print(f"{dropped} message{'' if dropped == 1 else 's'} dropped")
