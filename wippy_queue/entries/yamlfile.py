"""One YAML file to nodes, from the parser's events: places kept, every mistake a problem, no bomb goes off."""

from __future__ import annotations

import re
from typing import Any, Final

import attrs
import yaml

from wippy_queue.entries.nodes import MAX_DEPTH, Node, Place, Where
from wippy_queue.errors import Problem
from wippy_queue.suggest import did_you_mean

MAX_ALIASED: Final = 10_000  # values that the aliases of one file may stand for
_TAG: Final = "tag:yaml.org,2002:"

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,40}|0x[0-9a-fA-F]{1,30})", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)", re.ASCII)
_NAN = (".nan", ".NaN", ".NAN")
_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}

# What the parser says, and what usually helps.
_CURES: Final = (
    ("mapping values are not allowed", "a text that holds ': ' needs quotes; or check the indentation"),
    ("did not find expected key", "check the indentation of this line and the one above"),
    ("did not find expected '-'", "check the indentation: a list item and a field stand side by side"),
    ("<block end>", "check the indentation of this line and the one above"),
    ("could not find expected ':'", "a key needs a ':' and a space after it"),
    ("unexpected end of stream", "a quote that was opened is not closed"),
    ("node content", "a bracket or brace that was opened is not closed"),
    ("',' or", "a bracket or brace that was opened is not closed"),
    ("cannot start any token", "a text that begins with this character needs quotes"),
    ("escape", "use single quotes, in which a backslash means itself"),
)


def parse(data: bytes, file: str, problems: list[Problem], *, may_be_empty: bool = False) -> Node | None:
    """Return the document in ``data``; None, and a problem, where there is none or it is broken.

    Args:
        data: the bytes of the file.
        file: its name, for places.
        problems: what is found is appended.
        may_be_empty: a file that holds nothing is None, and no problem.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        problems.append(
            Problem(
                f"expected UTF-8, found the byte 0x{data[error.start]:02x}; save the file as UTF-8", file, line, column
            )
        )
        return None
    if control := _CONTROL.search(text):
        line = text.count("\n", 0, control.start()) + 1
        column = control.start() - text.rfind("\n", 0, control.start())
        message = f"expected text, found the control character U+{ord(control[0]):04X}; remove it"
        problems.append(Problem(message, file, line, column))
        return None
    composer = _Composer(text, file, problems)
    try:
        return composer.document(may_be_empty=may_be_empty)
    except _BrokenFile as broken:
        problems.append(broken.problem)
    except yaml.YAMLError as error:
        problems.append(_syntax_problem(error, text, file))
    return None


class _BrokenFile(Exception):
    """The rest of the file makes no sense."""

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(message)
        self.problem = Problem(message, place.file, place.line, place.column)


class _Composer:
    def __init__(self, text: str, file: str, problems: list[Problem]) -> None:
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self._next = loader(text).get_event
        self._file = file
        self._problems = problems
        # What each anchor names, how many values it holds and how deep it goes; None: not complete yet.
        self._anchors: dict[str, tuple[Node, int, int] | None] = {}
        self._made = 0
        self._aliased = 0

    def document(self, *, may_be_empty: bool) -> Node | None:
        self._next()  # the start of the stream
        start = self._next()
        if isinstance(start, yaml.StreamEndEvent):
            if may_be_empty:
                return None
            raise _BrokenFile("the file is empty; expected `namespace:` and `entries:`", Place(self._file, 1, 1))
        root = self._node(self._next(), MAX_DEPTH)
        self._next()  # the end of the document
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            raise _BrokenFile(
                "expected one document, found a second `---`; put it into a file of its own", self._at(after)
            )
        return root

    def _at(self, event: Any) -> Place:
        return Place(self._file, event.start_mark.line + 1, event.start_mark.column + 1)

    def _node(self, event: Any, depth: int) -> Node:
        place = self._at(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), place, depth)
        if depth == 0:
            raise _BrokenFile(f"nested deeper than {MAX_DEPTH} levels", place)
        before = self._made
        self._made += 1
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = Node(self._scalar(event, place), place)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._check_tag(event, "seq", place)
            node = Node(self._items(depth), place)
        else:
            self._check_tag(event, "map", place)
            node = Node(self._fields(depth), place)
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, self._made - before, _height(node))
        return node

    def _alias(self, name: str, place: Place, depth: int) -> Node:
        if name not in self._anchors:
            known = did_you_mean(name, self._anchors)
            raise _BrokenFile(f"there is no anchor &{name} above{known}", place)
        anchored = self._anchors[name]
        if anchored is None:
            raise _BrokenFile(f"the alias *{name} stands inside what it stands for", place)
        node, count, height = anchored
        if height > depth:
            raise _BrokenFile(f"nested deeper than {MAX_DEPTH} levels, with what the alias *{name} stands for", place)
        self._made += count
        self._aliased += count
        if self._aliased > MAX_ALIASED:
            raise _BrokenFile(
                f"the aliases of this file stand for more than {MAX_ALIASED:,} values; write fewer", place
            )
        return attrs.evolve(node, place=place)

    def _items(self, depth: int) -> list[Node]:
        items = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._node(event, depth - 1))
        return items

    def _fields(self, depth: int) -> dict[str, Node]:
        fields: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            place = self._at(event)
            key = self._key(event, depth)
            value = self._node(self._next(), depth - 1)
            if key == "<<" and event.implicit[0]:
                self._merge(value, merged)
            elif key is not None and key in fields:
                first = fields[key].key
                line = "?" if first is None else first.line
                self._note(f"the key {key!r} stands here twice, first in line {line}; remove one of them", place)
            elif key is not None:
                value.key = place
                fields[key] = value
        return {**merged, **fields}

    def _key(self, event: Any, depth: int) -> str | None:
        """Return a key; None, and a problem, where it is no text."""
        node = self._node(event, depth - 1)
        if isinstance(event, yaml.ScalarEvent) and isinstance(node.value, str):
            return node.value
        if isinstance(event, yaml.ScalarEvent):
            self._note(f"expected text as a key, found {event.value or 'nothing'}; put it in quotes", node.place)
        else:
            self._note("expected plain text as a key, found a list, a mapping or an alias", node.place)
        return None

    def _merge(self, value: Node, merged: dict[str, Node]) -> None:
        for source in value.value if isinstance(value.value, list) else [value]:
            if isinstance(source.value, dict):
                for key, node in source.value.items():
                    merged.setdefault(key, node)
            else:
                self._note("`<<:` takes a mapping, or a list of mappings", source.place)

    def _scalar(self, event: Any, place: Place) -> Any:
        text: str = event.value
        if event.tag is not None and event.tag != "!":
            if event.tag == f"{_TAG}str":
                return text
            known = (f"{_TAG}{name}" for name in ("int", "float", "bool", "null"))
            if event.tag not in known:
                self._check_tag(event, "str", place)
        elif not event.implicit[0]:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if text[0] not in "+-.0123456789":
            return text
        if _INT.fullmatch(text):
            return int(text.replace("_", ""), 16 if "x" in text else 10)
        if _FLOAT.fullmatch(text):
            return float(text.replace("_", "").replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf"))
        return float("nan") if text in _NAN else text

    def _check_tag(self, event: Any, allowed: str, place: Place) -> None:
        if event.tag not in (None, "!", f"{_TAG}{allowed}"):
            tag = event.tag.replace(_TAG, "!!")
            self._note(f"the tag {tag} has no meaning here; leave it out", place)

    def _note(self, message: str, place: Place) -> None:
        self._problems.append(Where().problem(message, place))


def _height(node: Node) -> int:
    value = node.value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_height, children), default=0)


def _syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or "the text is no YAML"
    if mark is None:
        return Problem(f"YAML: {said}", file, 1, 1)
    if "nesting depth" in said:  # a limit of libyaml's own, from 0.2.6 on, which looks ahead
        return Problem(f"nested deeper than {MAX_DEPTH} levels", file, mark.line + 1, mark.column + 1)
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line[: mark.column + 1] or ("\t" in line and not line[: mark.column].strip()):
        cure = "YAML allows no tab here; indent with spaces"
    else:
        cure = next((cure for sign, cure in _CURES if sign in said), "check this line and the one above")
    opened = getattr(error, "context_mark", None)
    since = f" (it begins in line {opened.line + 1})" if opened is not None and opened.line != mark.line else ""
    return Problem(f"YAML: {said}{since}; {cure}", file, mark.line + 1, mark.column + 1)
