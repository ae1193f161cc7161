"""Values together with the place where they were written."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import attrs

from wippy_queue.errors import Problem
from wippy_queue.redact import redact

MAX_DEPTH: Final = 64  # levels of nesting, in YAML and in Python


@attrs.frozen
class Place:
    """Where something was written; all None for an entry that was declared in Python."""

    file: str | None = None
    line: int | None = None  # 1-based, as editors count
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)


NOWHERE: Final = Place()


@attrs.define(eq=False)
class Node:
    """A value as it was written: nothing is expanded or converted yet."""

    value: Any  # None, bool, int, float, str, list[Node] or dict[str, Node]; from Python also what is none of these
    place: Place
    key: Place | None = None  # of the key that it stands under
    loose: bool = False  # text that may also be read as a number or a boolean: from an override

    def __getitem__(self, name: str) -> Any:
        """Return what a scalar of this mapping holds, None where there is none or this is no mapping."""
        child = self.value.get(name) if isinstance(self.value, dict) else None
        return None if child is None else child.value


@attrs.frozen
class Where:
    """The subject of a message: an entry, and the path of a field in it."""

    entry: str | None = None
    path: str = ""
    namespace: str | None = None  # of references without one

    def child(self, key: str | int) -> Where:
        """Return the same for a field, or an item of a list, below this one."""
        step = f"[{key}]" if isinstance(key, int) else f".{key}" if self.path else key
        return Where(self.entry, self.path + step, self.namespace)

    def problem(self, message: str, place: Place) -> Problem:
        """Return a problem with this subject, without the passwords of what the message quotes."""
        return Problem(redact(message), place.file, place.line, place.column, self.entry, self.path or None)


def describe(node: Node, *, secret: bool = False) -> str:
    """Return how a message names what was found, as it was written, without passwords."""
    value = node.value
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, (int, float)):
        return "a number" if secret else f"the number {_short(str(value))}"
    if isinstance(value, str):
        return "a text" if secret else repr(_short(redact(value)))
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    return f"a Python {type(value).__name__}"


def from_python(value: Any, place: Place = NOWHERE, *, loose: bool = False, depth: int = MAX_DEPTH) -> Node:
    """Return a Python value as nodes; ``loose`` texts in it may also be read as numbers.

    Raises:
        ValueError: it is nested too deeply, or has keys that are no text.
    """
    if isinstance(value, (Mapping, list, tuple)) and depth == 0:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"expected text as a key, found {key!r}")  # noqa: TRY004 - a mistake in a value
        children = {str(k): from_python(item, place, loose=loose, depth=depth - 1) for k, item in value.items()}
        return Node(children, place)
    if isinstance(value, (list, tuple)):
        return Node([from_python(item, place, loose=loose, depth=depth - 1) for item in value], place)
    if isinstance(value, Enum):
        value = value.value
    return Node(value, place, loose=loose)


def put(root: Node, dotted: str, value: Node) -> None:
    """Set a field, ``lifecycle.auto_start`` for a nested one; mappings on the way are made where there are none."""
    *steps, last = dotted.split(".")
    for step in steps:
        child = root.value.get(step)
        inner = child.value if child is not None and isinstance(child.value, dict) else {}
        # A copy, for aliases in YAML share what they stand for.
        root.value[step] = root = Node(dict(inner), value.place if child is None else child.place)
    root.value[last] = value


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
