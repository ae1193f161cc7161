"""Who passes and who does not, and what is told of a denial."""

from __future__ import annotations

import logging

import pytest

from wippy_queue.access import Actor, Policy, Scope, SecurityContext, act_with, acting
from wippy_queue.errors import NotFound, PermissionDenied
from wippy_queue.events import AccessDenied, Event
from wippy_queue.ids import EntryId
from wippy_queue.security import DeclaredPolicy, Guard

READ = DeclaredPolicy(id=EntryId("app:read"), actions=["read"], resources=["doc", "list"], effect="allow")
NO_LIST = DeclaredPolicy(id=EntryId("app:no_list"), actions=["*"], resources=["list"], effect="deny")
FUNCTION = EntryId("app:handler")


def guard(*, strict: bool = False, events: list[Event] | None = None) -> Guard:
    emitted: list[Event] = [] if events is None else events
    return Guard([READ, NO_LIST], {"app:readers": [READ]}, strict=strict, emit=emitted.append)


def context(*policies: Policy) -> SecurityContext:
    return SecurityContext(actor=Actor("alice"), scope=Scope(policies))


@pytest.mark.parametrize("strict", [False, True])
def test_with_an_actor_and_a_scope_only_allow_passes_in_both_modes(strict: bool) -> None:
    judge = guard(strict=strict)
    assert judge.allows(context(READ), "read", "doc")
    assert not judge.allows(context(READ), "write", "doc")
    assert not judge.allows(context(READ, NO_LIST), "read", "list")
    assert not judge.allows(context(), "read", "doc")


@pytest.mark.parametrize(
    "incomplete",
    [None, SecurityContext(), SecurityContext(actor=Actor("alice")), SecurityContext(scope=Scope((READ,)))],
)
def test_an_incomplete_context_passes_unless_the_mode_is_strict(incomplete: SecurityContext | None) -> None:
    guard().require(incomplete, "write", "doc")
    with pytest.raises(PermissionDenied, match="strict mode asks for an actor"):
        guard(strict=True).require(incomplete, "write", "doc")


def test_several_names_of_one_thing_are_denied_by_any_and_allowed_by_any() -> None:
    judge = guard()
    assert judge.allows(context(READ), "read", "other name", "doc")
    assert not judge.allows(context(READ, NO_LIST), "read", "doc", "list")
    assert not judge.allows(context(READ), "read", "other name", "third name")


def test_a_denial_is_logged_once_and_told_as_an_event(caplog: pytest.LogCaptureFixture) -> None:
    events: list[Event] = []
    with caplog.at_level(logging.WARNING), pytest.raises(PermissionDenied) as caught:
        guard(events=events).require(context(READ), "write", "doc", function=FUNCTION)
    assert str(caught.value) == "write on doc: not allowed for alice: no policy of the scope allows it"
    assert caught.value.retryable is False
    assert events == [AccessDenied(actor="alice", action="write", resource="doc", function=FUNCTION)]
    (record,) = caplog.records
    assert record.__dict__["fields"]["reason"] == "no policy of the scope allows it"


def test_asking_alone_is_neither_logged_nor_told(caplog: pytest.LogCaptureFixture) -> None:
    events: list[Event] = []
    assert not guard(events=events).allows(context(READ), "write", "doc")
    assert events == [] and caplog.records == []


def test_there_is_a_scope_where_policies_or_groups_are_given() -> None:
    judge, alice = guard(), Actor("alice")
    assert judge.context(alice).scope is None
    assert judge.context(alice, policies=[]).scope == Scope()
    assert judge.context(alice, groups=["app:readers"]).scope == Scope((READ,))
    both = judge.context(alice, policies=["app:read", "app:no_list"], groups=["app:readers"])
    assert both.scope == Scope((READ, NO_LIST))


def test_unknown_policies_and_groups_are_not_found() -> None:
    with pytest.raises(NotFound, match="no policy 'app:raed' is declared; did you mean 'app:read'"):
        guard().context(Actor("alice"), policies=["app:raed"])
    with pytest.raises(NotFound, match="group 'app:reader'; did you mean 'app:readers'"):
        guard().context(Actor("alice"), groups=["app:reader"])


def test_python_code_acts_with_what_was_set_last() -> None:
    outer, inner = context(READ), context()
    assert acting() is None
    before = act_with(outer)
    assert act_with(inner) is outer
    assert acting() is inner
    act_with(before)
    assert acting() is None
