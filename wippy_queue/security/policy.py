"""A declared policy: which actions on which resources, under which conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import attrs

from wippy_queue.access import NOTHING, Actor, Verdict
from wippy_queue.ids import EntryId
from wippy_queue.security.conditions import Condition, Question, Undecidable


def wildcard(pattern: str) -> Callable[[str], bool]:
    """Return what tells whether a text is as the pattern says, in which ``*`` stands for any text, none included."""
    first, *rest = pattern.split("*")
    if not rest:
        return lambda text: text == pattern
    *middle, last = rest

    def matches(text: str) -> bool:
        at, end = len(first), len(text) - len(last)
        if end < at or not text.startswith(first) or not text.endswith(last):
            return False
        for part in middle:  # the first place where a part fits leaves the most for the others
            found = text.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True

    return matches


def _wildcards(patterns: Sequence[str]) -> tuple[Callable[[str], bool], ...]:
    return tuple(map(wildcard, patterns))


@attrs.frozen(kw_only=True)
class DeclaredPolicy:
    """A ``security.policy`` entry; it never changes, and any thread may ask it."""

    id: EntryId
    actions: tuple[Callable[[str], bool], ...] = attrs.field(converter=_wildcards, repr=False)
    resources: tuple[Callable[[str], bool], ...] = attrs.field(converter=_wildcards, repr=False)
    effect: Literal["allow", "deny"]
    conditions: tuple[Condition, ...] = attrs.field(default=(), repr=False)

    def evaluate(self, actor: Actor | None, action: str, resource: str, meta: Mapping[str, Any] = NOTHING) -> Verdict:
        """Return the effect where action, resource and all conditions apply, else ``undefined``.

        A condition that cannot be decided counts against whoever asks: it does not allow, and it denies.
        """
        if not any(matches(action) for matches in self.actions):
            return "undefined"
        if not any(matches(resource) for matches in self.resources):
            return "undefined"
        if not self.conditions:
            return self.effect
        question = Question(
            actor_id=None if actor is None else actor.id,
            actor_meta=NOTHING if actor is None else actor.meta,
            action=action,
            resource=resource,
            meta=meta,
        )
        return self.effect if all(self._holds(condition, question) for condition in self.conditions) else "undefined"

    def _holds(self, condition: Condition, question: Question) -> bool:
        try:
            return condition.holds(question)
        except Undecidable:
            return self.effect == "deny"
