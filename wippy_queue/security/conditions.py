"""What a policy asks about the actor, the action, the resource and their metadata."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from wippy_queue.patterns import Pattern


class Undecidable(Exception):
    """A condition has no answer; that counts against whoever asks."""


class _Missing:
    """The value of a field that is not there."""


MISSING: Final = _Missing()


@attrs.frozen(kw_only=True)
class Question:
    """What conditions look at."""

    actor_id: str | None
    actor_meta: Mapping[str, Any]
    action: str
    resource: str
    meta: Mapping[str, Any]

    def field(self, path: str) -> Any:
        """Return what ``actor.meta.team`` and the like stand for, MISSING where there is nothing."""
        if path == "action":
            return self.action
        if path == "resource":
            return self.resource
        if path == "actor.id":
            return MISSING if self.actor_id is None else self.actor_id
        value: Any = self.actor_meta if path.startswith("actor.meta.") else self.meta
        for step in path.partition("meta.")[2].split("."):
            if not isinstance(value, Mapping) or step not in value:
                return MISSING
            value = value[step]
        return MISSING if value is None else value


def _equal(left: Any, right: Any) -> bool:
    """Compare as JSON does: true is not 1, though 1 is 1.0."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def holds(left: Any, right: Any) -> bool:
        if isinstance(left, bool) or isinstance(right, bool):
            return False
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        texts = isinstance(left, str) and isinstance(right, str)
        return (numbers or texts) and compare(left, right)  # what cannot be compared is neither less nor more

    return holds


def _is_in(left: Any, right: Any) -> bool:
    return isinstance(right, (list, tuple)) and any(_equal(left, item) for item in right)


def _contains(left: Any, right: Any) -> bool:
    if isinstance(left, str):
        return isinstance(right, str) and right in left
    return _is_in(right, left)


def _matches(left: Any, right: Any) -> bool:
    if not isinstance(left, str):
        return False
    if not isinstance(right, (str, Pattern)):
        raise Undecidable
    try:
        return (Pattern(right) if isinstance(right, str) else right).search(left)
    except ValueError:  # a bad pattern in another field, or a text that is too long
        raise Undecidable from None


_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "eq": _equal,
    "lt": _ordered(operator.lt),
    "gt": _ordered(operator.gt),
    "lte": _ordered(operator.le),
    "gte": _ordered(operator.ge),
    "in": _is_in,
    "contains": _contains,
    "matches": _matches,
}
# True where the other one is false, so also where a field is missing.
_OPPOSITES: Final = {"ne": "eq", "nin": "in", "ncontains": "contains", "nmatches": "matches"}

OPERATORS: Final = frozenset({*_COMPARISONS, *_OPPOSITES, "exists", "nexists"})


def _wanted(condition: Any) -> Any:
    if condition.operator in {"matches", "nmatches"} and condition.value is not None:
        return Pattern(condition.value)
    return condition.value


@attrs.frozen(kw_only=True)
class Condition:
    """One question and what its answer must be; the loader has checked that the parts go together.

    Args:
        field: ``actor.id``, ``actor.meta.*``, ``action``, ``resource`` or ``meta.*``.
        operator: one of ``OPERATORS``.
        value: what the field is compared with.
        value_from: the field that it is compared with instead.
    """

    field: str
    operator: str
    value: Any = None
    value_from: str | None = None
    _wanted: Any = attrs.field(default=attrs.Factory(_wanted, takes_self=True), init=False, eq=False, repr=False)

    def holds(self, question: Question) -> bool:
        """Return whether it is so.

        Raises:
            Undecidable: the text is too long for a pattern, or another field holds a bad pattern.
        """
        found = question.field(self.field)
        if self.operator == "exists":
            return found is not MISSING
        if self.operator == "nexists":
            return found is MISSING
        wanted = self._wanted if self.value_from is None else question.field(self.value_from)
        base = _OPPOSITES.get(self.operator)
        known = found is not MISSING and wanted is not MISSING
        holds = known and _COMPARISONS[base or self.operator](found, wanted)
        return not holds if base else holds
