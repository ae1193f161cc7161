"""``wippy-queue publish``, ``info``, ``peek`` and ``purge``: what can be done to queues from outside."""

from __future__ import annotations

import json
import sys
from typing import Any

import cattrs
import click

from wippy_queue import entries
from wippy_queue.cli.options import Target, application_command, json_option, read_duration
from wippy_queue.cli.output import body_of, print_json, print_table, print_warning
from wippy_queue.cli.reach import is_shared, queue_entries, reach
from wippy_queue.message import Message


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
@click.option(
    "--delay", metavar="DURATION", callback=read_duration, help="Deliver it after that time: 500ms, 10s, 1h30m."
)
@click.option("--ttl", metavar="DURATION", callback=read_duration, help="Drop it when it is older than that.")
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
    if body == "-" and sys.stdin is None:
        raise click.BadParameter("there is no stdin to read BODY from")
    source = sys.stdin.read() if body == "-" else body
    try:
        value = source if text else json.loads(source)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"BODY is no JSON ({error}); --text publishes it as text") from None
    with reach(target.read(), [queue]) as engine:
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
    with reach(application, chosen) as engine:
        found = {queue: cattrs.unstructure(engine.info(queue)) for queue in chosen}
    if as_json:
        print_json(found)
    else:
        columns = list(next(iter(found.values()), {}))
        print_table(["queue", *columns], ([queue, *counts.values()] for queue, counts in found.items()))


def _reachable(application: entries.Application) -> list[str]:
    """Return the queues that can be asked; all of them where none can, for `reach` to refuse."""
    shared = [queue for queue in queue_entries(application) if is_shared(application, queue)]
    private = [queue for queue in queue_entries(application) if queue not in shared]
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
    with reach(target.read(), [queue]) as engine:
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
    return {"id": message.id, "headers": message.all_headers(), "body": body_of(message)}


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
    with reach(target.read(), [queue]) as engine:
        if not yes:
            click.confirm(f"Drop every message that waits in {queue}?", abort=True, err=True)
        dropped = engine.purge(queue)
    if as_json:
        print_json({"queue": queue, "dropped": dropped})
    else:
        print(f"{dropped} message{'' if dropped == 1 else 's'} dropped")
