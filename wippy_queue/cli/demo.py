"""``wippy-queue demo``: the example application, to its end, with what happens on the screen."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from wippy_queue.cli.output import Exit
from wippy_queue.engine import Engine
from wippy_queue.errors import Timeout
from wippy_queue.events import Event, MessageFailed
from wippy_queue.telemetry.logs import fields_of

APP: Final = Path(__file__).parent / "demo_app"
_QUEUE: Final = "app.queue:tasks"
_TASKS: Final = (
    {"id": "task-1", "action": "process", "data": "an invoice"},
    {"id": "task-2", "action": "fail_once", "data": "a letter"},
    {"id": "task-3", "action": "process", "data": "a picture"},
    {"id": "task-4", "action": "process", "data": {"width": 640, "height": 480}},
    {"id": "task-5", "action": "process", "data": "a report"},
)


class _Screen(logging.Handler):
    """Prints what happens, as it happens; any thread."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._console = Console(highlight=False, soft_wrap=True)
        self.failures = 0

    def line(self, what: str, style: str, text: str) -> None:
        now = f"{datetime.now().astimezone():%H:%M:%S.%f}"[:-3]
        self._console.print(Text.assemble((now, "dim"), "  ", (f"{what:<9}", style), "  ", text))

    def say(self, text: str) -> None:
        self._console.print(text)

    def emit(self, record: logging.LogRecord) -> None:
        """Show what Lua logs, and errors of the engine; its warning about a failed handler comes as an event too."""
        if record.name.startswith("wippy_queue.app"):
            fields = fields_of(record)
            shown = " ".join(f"{key}={fields[key]}" for key in ("task_id", "data", "worker") if key in fields)
            self.line("log", "cyan", f"{record.getMessage()} {shown}")
        elif record.levelno >= logging.ERROR:
            self.line("error", "red", record.getMessage())

    def on_event(self, event: Event) -> None:
        if isinstance(event, MessageFailed):
            self.failures += 1
            again = "no more attempts" if event.delay is None else f"again in {event.delay:.2f} s"
            self.line("failed", "yellow", f"{event.error} ({again})")


@click.command
def demo() -> None:
    """Run the example application on the memory driver, to its end.

    Five tasks are published and handled by four Lua workers; one fails at first and is retried.
    """
    screen = _Screen()
    logging.basicConfig(level=logging.INFO, handlers=[screen], force=True)
    screen.say(f"The application: {APP}\n")
    began = time.monotonic()
    with Engine.load(APP) as engine:
        engine.subscribe(screen.on_event)
        for task in _TASKS:
            engine.publish(_QUEUE, task)
            screen.line("published", "green", json.dumps(task))
        try:
            engine.join(_QUEUE, timeout=30)
        except Timeout as error:
            screen.line("error", "red", str(error))
        left = engine.info(_QUEUE).message_count or 0
    handled = len(_TASKS) - left
    screen.say(
        f"\n{len(_TASKS)} tasks published, {handled} handled, {screen.failures} failed attempt"
        f"{'' if screen.failures == 1 else 's'} retried, {left} left, in {time.monotonic() - began:.1f} s."
    )
    if left:
        sys.exit(Exit.FAILED)
