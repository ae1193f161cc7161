"""What the commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any

import cattrs
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wippy_queue.codecs import decode_body
from wippy_queue.errors import Invalid
from wippy_queue.message import Message


class Exit(IntEnum):
    """What the process's exit code says; 128 + n beside these is a command that signal n cut."""

    OK = 0
    FAILED = 1  # mistakes in the application, an error, messages abandoned at a stop
    USAGE = 2  # a wrong command line, or a thing that cannot be done from here


def print_error(message: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text.assemble(("Error: ", "bold red"), message))


def print_warning(message: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text.assemble(("Warning: ", "yellow"), message))


def print_json(value: Any) -> None:
    """Print plain values, and attrs classes as the objects that they are."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    json.dump(cattrs.unstructure(value), sys.stdout, ensure_ascii=not unicode, indent=2)
    sys.stdout.write("\n")


def body_of(message: Message) -> Any:
    """Return the body as JSON has it, else how large it is."""
    try:
        body = decode_body(message)
        json.dumps(body)
    except (Invalid, TypeError):  # no valid body, or bytes in it
        return f"<{len(message.body)} bytes, {message.encoding}>"
    return body


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print numbers to the right and ``-`` for None."""
    rows = [list(row) for row in rows]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int | None) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))
    Console(highlight=False).print(table)
