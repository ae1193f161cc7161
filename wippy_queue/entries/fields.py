"""Nodes to checked values, by the annotations of attrs classes; no mistake hides another."""

from __future__ import annotations

import collections.abc
import functools
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum
from typing import Any, Final, TypeVar

import attrs

from wippy_queue.entries.environment import Environment, is_expression
from wippy_queue.entries.nodes import Node, Place, Where, describe
from wippy_queue.entries.scalars import CuredError, to_bool, to_duration, to_float, to_int, to_size
from wippy_queue.errors import Problem, WippyQueueError
from wippy_queue.options import DURATION, KINDS, SHAPE, SIZE
from wippy_queue.suggest import did_you_mean

T = TypeVar("T")

CHOICES: Final = "choices"  # metadata: spelling -> value
ALSO: Final = "also"  # metadata: a second name of a list
LATE: Final = "late"  # metadata of a reference, see refers_to()
NOT_WRITTEN: Final[Mapping[str, Any]] = {"derived": True}  # metadata of a field that YAML does not have


class Missing(Enum):
    BAD = "bad"  # a problem was noted
    DROPPED = "dropped"  # it names something that is left out


BAD: Final = Missing.BAD
DROPPED: Final = Missing.DROPPED

Parser = Callable[[Node, Where], Any]


@attrs.frozen(kw_only=True)
class _Field:
    attribute: Any
    name: str
    parse: Parser
    required: bool


def refers_to(*kinds: str, late: bool = False) -> dict[str, Any]:
    """Return the metadata of a field that leads to entries of these kinds; of any, where none is given.

    Args:
        kinds: one that ends in a dot means all below it.
        late: Python may still register what it names.
    """
    return {KINDS: kinds, LATE: late}


class Reader:
    """Reads nodes as attrs classes and collects the problems.

    Args:
        environment: what ``${env:...}`` names.
        special: parsers for types of its own, made from the metadata of the field.
        not_yet: fields, by class, whose behaviour does not exist yet.
    """

    def __init__(
        self,
        environment: Environment,
        special: Mapping[Any, Callable[[Mapping[str, Any]], Parser]],
        not_yet: Mapping[type, Collection[str]],
    ) -> None:
        self.environment = environment
        self.problems: list[Problem] = []
        self._special = special
        self._not_yet = not_yet
        self._classes: dict[type, dict[str, _Field]] = {}

    def note(self, message: str, where: Where, place: Place) -> Missing:
        """Add a problem; returns BAD, so that a parser can end with it."""
        self.problems.append(where.problem(message, place))
        return BAD

    def read(self, cls: type[T], node: Node, where: Where) -> T | Missing:
        """Return ``node`` as an instance of an attrs class; BAD where it has mistakes, DROPPED where it is left out."""
        values = self.values(cls, node, where)
        return values if isinstance(values, Missing) else self.build(cls, values, node, where)

    def values(
        self,
        cls: type,
        node: Node,
        where: Where,
        *,
        ignore: Iterable[str] = (),
        unknown: Callable[[str], str] | None = None,
        paths: Mapping[str, str] | None = None,
    ) -> dict[str, Any] | Missing:
        """Return the fields that are given in ``node``, each of them checked by itself.

        Args:
            cls: the attrs class that says which fields there are.
            node: a mapping.
            where: the subject of problems.
            ignore: keys that somebody else reads.
            unknown: makes the message for a key that the class does not have.
            paths: the full paths of fields that do not stand below ``where``.
        """
        if not isinstance(node.value, dict):
            return self.note(f"expected a mapping of fields, found {describe(node)}", where, node.place)
        fields = self.fields_of(cls)
        given: dict[str, Any] = {}
        failed: Missing | None = None
        for key, child in node.value.items():
            at = where.child(key) if paths is None else attrs.evolve(where, path=paths[key])
            field = fields.get(key)
            if field is None:
                if key not in ignore:
                    message = unknown(key) if unknown else self.unknown(key, cls, ignore)
                    failed = self.note(message, at, child.key or child.place)
            elif key in self._not_yet.get(cls, ()):
                failed = self.note("not supported yet; remove it", at, child.key or child.place)
            elif child.value is not None:
                value = self._checked(field, child, at)
                if value is BAD or (value is DROPPED and field.required):
                    failed = BAD if BAD in (value, failed) else DROPPED
                elif value is not DROPPED:
                    name = field.attribute.alias
                    given[name] = given[name] + value if name in given else value
        for name, field in fields.items():
            child = node.value.get(name)
            if field.required and (child is None or child.value is None):
                place = node.place if child is None else child.key or child.place
                failed = self.note(f"the field {name!r} is required", where.child(name), place)
        return given if failed is None else failed

    def build(self, cls: type[T], values: Mapping[str, Any], node: Node, where: Where) -> T | Missing:
        """Return ``cls(**values)``; BAD, and a problem, where the class refuses."""
        try:
            return cls(**values)
        except (ValueError, TypeError, WippyQueueError) as error:
            return self.note(self.environment.scrub(str(error)), where, node.place)

    def unknown(self, key: str, cls: type, ignore: Iterable[str] = ()) -> str:
        """Return the message for a field that a class does not have."""
        known = [*self.fields_of(cls), *ignore]
        listed = f"; known are {', '.join(known)}" if known else "; none is allowed here"
        return f"unknown field {key!r}{did_you_mean(key, known) or listed}"

    def text(self, node: Node, where: Where, *, secret: bool = False) -> str | Missing:
        """Return a text, with its environment variables in place."""
        if not isinstance(node.value, str):
            quote = "; put it in quotes" if isinstance(node.value, (int, float)) else ""
            return self.note(f"expected text, found {describe(node, secret=secret)}{quote}", where, node.place)
        value, _ = self._scalar(node, where)
        return typing.cast("str | Missing", value)

    def plain(self, node: Node, where: Where) -> Any:
        """Return a node as plain Python values, for fields that may hold anything."""
        if isinstance(node.value, dict):
            return {key: self.plain(child, where.child(key)) for key, child in node.value.items()}
        if isinstance(node.value, list):
            return [self.plain(child, where.child(index)) for index, child in enumerate(node.value)]
        return self._scalar(node, where)[0]

    def fields_of(self, cls: type) -> dict[str, _Field]:
        """Return what may be written for a class, by name."""
        if cls not in self._classes:
            self._classes[cls] = {}  # a class may hold itself
            hints = typing.get_type_hints(cls)
            for attribute in attrs.fields(cls):
                if not attribute.init or attribute.metadata == NOT_WRITTEN:
                    continue
                hint = attribute.metadata.get(SHAPE, hints[attribute.name])
                field = _Field(
                    attribute=attribute,
                    name=attribute.alias,
                    parse=self._parser(hint, attribute),
                    required=attribute.default is attrs.NOTHING,
                )
                self._classes[cls][field.name] = field
                if also := attribute.metadata.get(ALSO):
                    self._classes[cls][also] = attrs.evolve(field, name=also)
        return self._classes[cls]

    def _checked(self, field: _Field, node: Node, where: Where) -> Any:
        value = field.parse(node, where)
        if isinstance(value, Missing) or field.attribute.validator is None:
            return value
        try:
            field.attribute.validator(None, field.attribute, value)
        except (ValueError, TypeError) as error:
            shown = describe(node, secret=not field.attribute.repr)
            return self.note(self._refusal(error, field.name, value, shown), where, node.place)
        return value

    def _refusal(self, error: Exception, name: str, value: Any, shown: str) -> str:
        """Say what a validator said in our words, without the value, which may come from the environment."""
        said = str(error.args[0]) if error.args else ""
        said_of = f"'{name}' "
        for tail in (f": {value!r}", f" (got {value!r}", f" ({value!r} "):
            said = said.partition(tail)[0]
        return f"{self.environment.scrub(said).removeprefix(said_of)}, found {shown}"

    def _scalar(self, node: Node, where: Where) -> tuple[Any, bool]:
        """Return a scalar with its environment variables in place, and whether its text may be something else."""
        if isinstance(node.value, str) and is_expression(node.value):
            try:
                return self.environment.expand(node.value, where.namespace), True
            except ValueError as error:
                return self.note(str(error), where, node.place), False
        return node.value, node.loose

    def _parser(self, hint: Any, attribute: Any) -> Parser:
        metadata, secret = attribute.metadata, not attribute.repr
        if choices := metadata.get(CHOICES):
            return self._choice(choices)
        if hint in self._special:
            return self._special[hint](metadata)
        if hint is Any or hint is object:
            return self.plain
        if hint is str:
            return functools.partial(self.text, secret=secret)
        if hint is bool:
            return self._scalar_of("true or false", secret, to_bool)
        if hint is int:
            return (
                self._scalar_of("a size like 64MiB, or a number of bytes", secret, to_size)
                if metadata.get(SIZE)
                else self._scalar_of("a whole number", secret, to_int)
            )
        if hint is float:
            return (
                self._scalar_of("a duration like 500ms, 10s or 1h30m, or a number of seconds", secret, to_duration)
                if metadata.get(DURATION)
                else self._scalar_of("a number", secret, to_float)
            )
        if isinstance(hint, type) and issubclass(hint, Enum):
            return self._choice({str(item.value): item for item in hint})
        if isinstance(hint, type) and attrs.has(hint):
            return lambda node, where: self.read(hint, node, where)
        return self._generic(hint, attribute)

    def _generic(self, hint: Any, attribute: Any) -> Parser:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Literal:
            return self._choice({str(item): item for item in arguments})
        if origin in (types.UnionType, typing.Union):
            (inner,) = (item for item in arguments if item is not types.NoneType)
            return self._parser(inner, attribute)
        if origin is tuple:
            return self._list(self._parser(arguments[0], attribute))
        if origin in (collections.abc.Mapping, dict):
            return self._mapping(self._parser(arguments[1], attribute))
        raise TypeError(f"{attribute.name}: the loader cannot read a {hint}")

    def _scalar_of(self, expected: str, secret: bool, convert: Callable[[Any, bool], Any]) -> Parser:
        def parse(node: Node, where: Where) -> Any:
            value, loose = self._scalar(node, where)
            if value is BAD:
                return BAD
            try:
                return convert(value, loose)
            except (ValueError, TypeError) as error:
                cure = f"; {error}" if error.args and isinstance(error, CuredError) else ""
                return self.note(f"expected {expected}, found {describe(node, secret=secret)}{cure}", where, node.place)

        return parse

    def _choice(self, choices: Mapping[str, Any]) -> Parser:
        def parse(node: Node, where: Where) -> Any:
            value, _ = self._scalar(node, where)
            if value is BAD:
                return BAD
            if isinstance(value, str) and value in choices:
                return choices[value]
            known = did_you_mean(node.value, choices) if isinstance(node.value, str) else ""
            allowed = ", ".join(choices)
            return self.note(f"expected one of {allowed}, found {describe(node)}{known}", where, node.place)

        return parse

    def _list(self, item: Parser) -> Parser:
        def parse(node: Node, where: Where) -> Any:
            if not isinstance(node.value, list):
                cure = f"; write [{node.value}]" if isinstance(node.value, str) else ""
                return self.note(f"expected a list, found {describe(node)}{cure}", where, node.place)
            items = [item(child, where.child(index)) for index, child in enumerate(node.value)]
            return BAD if BAD in items else tuple(value for value in items if value is not DROPPED)

        return parse

    def _mapping(self, item: Parser) -> Parser:
        def parse(node: Node, where: Where) -> Any:
            if not isinstance(node.value, dict):
                return self.note(f"expected a mapping, found {describe(node)}", where, node.place)
            items = {key: item(child, where.child(key)) for key, child in node.value.items()}
            return BAD if BAD in items.values() else {k: v for k, v in items.items() if v is not DROPPED}

        return parse
