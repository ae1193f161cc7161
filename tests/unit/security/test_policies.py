"""What a policy matches, what its conditions say, and how several of them decide together."""

from __future__ import annotations

import fnmatch
import re
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wippy_queue.access import Actor, Scope
from wippy_queue.entries import kinds
from wippy_queue.errors import Invalid
from wippy_queue.ids import EntryId
from wippy_queue.patterns import MAX_TEXT
from wippy_queue.security import OPERATORS, Condition, DeclaredPolicy
from wippy_queue.security.policy import wildcard

ALICE = Actor("user:alice", {"role": "admin", "level": 3, "team": {"name": "ops"}, "tags": ["a", "b"], "on": True})


def policy(effect: str = "allow", name: str = "p", **fields: Any) -> DeclaredPolicy:
    fields.setdefault("actions", ["*"])
    fields.setdefault("resources", ["*"])
    return DeclaredPolicy(id=EntryId(f"app:{name}"), effect=effect, **fields)  # type: ignore[arg-type]


def holds(field: str, operator: str, value: Any = None, *, meta: dict[str, Any] | None = None, **more: Any) -> bool:
    condition = Condition(field=field, operator=operator, value=value, **more)
    verdict = policy(conditions=(condition,)).evaluate(ALICE, "doc.read", "doc:7", meta or {})
    return verdict == "allow"


@given(
    pattern=st.text(alphabet="ab*.", max_size=8),
    text=st.text(alphabet="ab.", max_size=8),
)
def test_a_star_stands_for_any_text(pattern: str, text: str) -> None:
    assert wildcard(pattern)(text) == bool(re.fullmatch(fnmatch.translate(pattern), text))


def test_a_policy_applies_to_its_actions_on_its_resources_only() -> None:
    rule = policy(actions=["*.read", "list"], resources=["doc:*", "image"])
    assert rule.evaluate(ALICE, "doc.read", "doc:7") == "allow"
    assert rule.evaluate(ALICE, "list", "image") == "allow"
    assert rule.evaluate(ALICE, "doc.read", "images") == "undefined"
    assert rule.evaluate(ALICE, "lists", "image") == "undefined"


@pytest.mark.parametrize(
    ("effects", "verdict"),
    [
        ([], "undefined"),
        (["allow"], "allow"),
        (["deny"], "deny"),
        (["allow", "deny"], "deny"),
        (["deny", "allow"], "deny"),
        (["other"], "undefined"),
        (["other", "allow"], "allow"),
    ],
)
def test_any_deny_denies_else_any_allow_allows(effects: list[str], verdict: str) -> None:
    rules = tuple(policy("allow", actions=["x"]) if effect == "other" else policy(effect) for effect in effects)
    assert Scope(rules).evaluate(ALICE, "doc.read", "doc:7") == verdict


@pytest.mark.parametrize(
    ("field", "operator", "value"),
    [
        ("actor.id", "eq", "user:alice"),
        ("actor.meta.role", "eq", "admin"),
        ("actor.meta.team.name", "eq", "ops"),
        ("action", "eq", "doc.read"),
        ("resource", "eq", "doc:7"),
        ("meta.size", "eq", 10),
        ("meta.size", "eq", 10.0),
        ("actor.meta.on", "eq", True),
        ("actor.meta.role", "ne", "guest"),
        ("actor.meta.level", "gt", 2),
        ("actor.meta.level", "gte", 3),
        ("meta.size", "lt", 10.5),
        ("meta.size", "lte", 10),
        ("actor.meta.role", "lt", "b"),
        ("actor.meta.role", "in", ["admin", "root"]),
        ("actor.meta.role", "nin", ["guest"]),
        ("meta.size", "exists", None),
        ("meta.size", "exists", True),
        ("meta.other", "nexists", None),
        ("meta.none", "nexists", None),
        ("resource", "contains", "c:"),
        ("actor.meta.tags", "contains", "b"),
        ("resource", "ncontains", "secret"),
        ("resource", "matches", r"^doc:\d+$"),
        ("actor.id", "nmatches", "^system:"),
    ],
)
def test_a_condition_holds(field: str, operator: str, value: Any) -> None:
    assert holds(field, operator, value, meta={"size": 10, "none": None})


@pytest.mark.parametrize(
    ("field", "operator", "value"),
    [
        ("actor.id", "eq", "user:bob"),
        ("actor.meta.on", "eq", 1),
        ("meta.one", "eq", True),
        ("actor.meta.level", "lt", "9"),
        ("actor.meta.role", "gt", 1),
        ("actor.meta.on", "gt", 0),
        ("actor.meta.role", "in", ["guest"]),
        ("actor.meta.role", "nin", ["admin"]),
        ("actor.meta.role.deeper", "exists", None),
        ("meta.one", "nexists", None),
        ("meta.one", "contains", 1),
        ("actor.meta.tags", "contains", "c"),
        ("resource", "matches", "^oc"),
        ("meta.one", "matches", "1"),
        ("resource", "nmatches", "doc"),
    ],
)
def test_a_condition_does_not_hold(field: str, operator: str, value: Any) -> None:
    assert not holds(field, operator, value, meta={"one": 1})


@pytest.mark.parametrize("operator", sorted(OPERATORS - {"exists", "nexists"}))
def test_what_is_not_there_is_equal_to_nothing(operator: str) -> None:
    """So the negative operators hold, and a policy that denies all but some denies whoever says nothing."""
    value = ["x"] if operator in {"in", "nin"} else "x"
    assert holds("meta.absent", operator, value) == (operator in {"ne", "nin", "ncontains", "nmatches"})
    assert holds("resource", operator, value_from="meta.absent") == (operator in {"ne", "nin", "ncontains", "nmatches"})


def test_a_field_can_be_compared_with_another() -> None:
    assert holds("meta.owner", "eq", value_from="actor.id", meta={"owner": "user:alice"})
    assert not holds("meta.owner", "eq", value_from="actor.id", meta={"owner": "user:bob"})
    assert holds("actor.meta.role", "in", value_from="meta.roles", meta={"roles": ["admin"]})
    assert holds("resource", "matches", value_from="meta.pattern", meta={"pattern": "^doc"})


def test_all_conditions_of_a_policy_must_hold() -> None:
    first = Condition(field="actor.meta.role", operator="eq", value="admin")
    second = Condition(field="meta.open", operator="eq", value=True)
    rule = policy(conditions=(first, second))
    assert rule.evaluate(ALICE, "a", "r", {"open": True}) == "allow"
    assert rule.evaluate(ALICE, "a", "r", {"open": False}) == "undefined"


@pytest.mark.parametrize(
    "condition",
    [
        Condition(field="resource", operator="matches", value_from="meta.pattern"),
        Condition(field="resource", operator="nmatches", value_from="meta.pattern"),
        Condition(field="meta.long", operator="matches", value="x"),
        Condition(field="meta.long", operator="nmatches", value="x"),
    ],
)
def test_what_cannot_be_decided_counts_against_whoever_asks(condition: Condition) -> None:
    meta = {"pattern": "(", "long": "a" * (MAX_TEXT + 1)}
    assert policy("allow", conditions=(condition,)).evaluate(ALICE, "a", "r", meta) == "undefined"
    assert policy("deny", conditions=(condition,)).evaluate(ALICE, "a", "r", meta) == "deny"


def test_without_an_actor_its_fields_are_not_there() -> None:
    rule = policy(conditions=(Condition(field="actor.id", operator="nexists"),))
    assert rule.evaluate(None, "a", "r") == "allow"
    assert rule.evaluate(ALICE, "a", "r") == "undefined"


def test_the_loader_knows_the_operators() -> None:
    (operator,) = (hint for name, hint in typing.get_type_hints(kinds.Condition).items() if name == "operator")
    assert set(typing.get_args(operator)) == OPERATORS


def test_an_actor_hides_its_meta_and_needs_an_id() -> None:
    assert "admin" not in repr(ALICE)
    with pytest.raises(Invalid, match="not empty"):
        Actor("")
    with pytest.raises(Invalid, match="expected a list of ids, found the text 'app:p'"):
        Actor("a", policies="app:p")
