"""The `security` module: values that cannot be forged, and what policies say of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.lua.support import make_function, make_host
from wippy_queue.access import Actor, Scope, SecurityContext
from wippy_queue.errors import Invalid, NotFound, PermissionDenied
from wippy_queue.ids import EntryId
from wippy_queue.security import Condition, DeclaredPolicy, Guard

READ = DeclaredPolicy(id=EntryId("app:read"), actions=["read"], resources=["*"], effect="allow")
OWNER = DeclaredPolicy(
    id=EntryId("app:owner"),
    actions=["write"],
    resources=["*"],
    effect="allow",
    conditions=(Condition(field="meta.owner", operator="eq", value_from="actor.id"),),
)
DENY = DeclaredPolicy(id=EntryId("app:deny"), actions=["*"], resources=["secret"], effect="deny")
POWERS = DeclaredPolicy(id=EntryId("app:powers"), actions=["security.*"], resources=["*"], effect="allow")
GUARD = Guard([READ, OWNER, DENY, POWERS], {"app:readers": [READ, DENY]})

ALICE = Actor("alice", {"role": "admin", "teams": ["ops"]})


def run(body: str, *arguments: Any, security: SecurityContext | None = None, guard: Guard = GUARD) -> Any:
    text = f'local security = require("security")\nreturn function(...)\n{body}\nend'
    return make_function(text, modules=("security",), host=make_host(access=guard)).call(arguments, security=security)


def context(*policies: DeclaredPolicy) -> SecurityContext:
    return SecurityContext(actor=ALICE, scope=Scope(policies))


def test_the_actor_and_the_scope_are_those_of_the_call() -> None:
    body = """
    local actor, ids = security.actor(), {}
    for i, policy in ipairs(security.scope():policies()) do ids[i] = policy:id() end
    return {actor:id(), actor:meta(), ids, type(actor), tostring(actor)}"""
    expected = ["alice", {"role": "admin", "teams": ["ops"]}, ["app:read", "app:owner"], "userdata", "Actor"]
    assert run(body, security=context(READ, OWNER)) == expected


def test_without_a_context_there_is_neither_and_nothing_can_be_done() -> None:
    body = "return {security.actor() == nil, security.scope() == nil, security.can('read', 'x')}"
    assert run(body) == [True, True, False]
    assert run("return {security.can('read', 'x')}", security=SecurityContext(actor=ALICE)) == [False]


@pytest.mark.parametrize(
    ("call", "allowed"),
    [
        ("'read', 'doc'", True),
        ("'read', 'secret'", False),
        ("'write', 'doc'", False),
        ("'write', 'doc', {owner = 'alice'}", True),
        ("'write', 'doc', {owner = 'bob'}", False),
        ("'read'", True),
        ("'', 'doc'", False),
        ("nil, 'doc'", False),
        ("'read', 7", False),
        ("'read', 'doc', {[1] = 2}", False),
    ],
)
def test_can_tells_what_the_context_allows(call: str, allowed: bool) -> None:
    assert run(f"return {{security.can({call})}}", security=context(READ, OWNER, DENY)) == [allowed]


def test_scopes_and_policies_can_be_asked_about_anybody() -> None:
    body = """
    local bob = security.new_actor('bob', {role = 'guest'})
    local scope = security.new_scope({security.policy('app:read'), security.policy('app:owner')})
    local group = security.named_scope('app:readers')
    return {
      scope:evaluate(bob, 'read', 'doc'), scope:evaluate(bob, 'write', 'doc'),
      scope:evaluate(bob, 'write', 'doc', {owner = 'bob'}), group:evaluate(bob, 'read', 'secret'),
      security.policy('app:deny'):evaluate(bob, 'x', 'secret'), security.new_scope():evaluate(bob, 'read', 'doc'),
      scope:evaluate(nil, 'read', 'doc'), bob:meta().role, security.new_actor('x'):meta(),
    }"""
    assert run(body) == ["allow", "undefined", "allow", "deny", "deny", "undefined", "allow", "guest", {}]


def test_a_scope_never_changes_but_makes_others() -> None:
    body = """
    local read, deny = security.policy('app:read'), security.policy('app:deny')
    local none = security.new_scope()
    local one = none:with(read):with(read)
    local two = one:with(deny)
    local back = two:without('app:read')
    return {#none:policies(), #one:policies(), #two:policies(), two:contains('app:read'), back:contains('app:read'),
      back:contains('app:deny'), back:contains('app:den'), #back:without(deny):policies(), one:contains('')}"""
    assert run(body) == [0, 1, 2, True, False, True, False, 0, False]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("security.new_actor('')", "must be text that is not empty"),
        ("security.new_actor('a', 'meta')", "must be a table, got string"),
        ("security.new_actor('a', {1, 2})", "keys of the meta must be text"),
        ("security.new_actor('a', {f = print})", "cannot encode a function"),
        ("security.new_scope('x')", "expected a list of policies, got string"),
        ("security.new_scope({'app:read'})", "number 1 is none"),
        ("security.policy('')", "must be text that is not empty"),
        ("security.named_scope(nil)", "must be text that is not empty"),
        ("security.new_scope():with('app:read')", "expected a policy, got string"),
        ("security.new_scope():without(7)", "expected the id of a policy"),
        ("security.new_scope():evaluate({}, 'a', 'r')", "expected an actor, got table"),
        ("security.new_scope():evaluate(nil, '', 'r')", "the action must be text"),
        ("security.new_scope():evaluate(nil, 'a')", "the resource must be text"),
        ("security.new_scope().evaluate()", "called with a colon"),
        ("security.new_actor('a').id()", "called with a colon"),
        ("security.token_store('app:tokens')", "there are no token stores here"),
    ],
)
def test_a_mistake_is_told_as_an_error(body: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        run(f"local v, err = {body}; return v, err")


def test_unknown_policies_and_groups_are_not_found() -> None:
    with pytest.raises(NotFound, match="did you mean 'app:read'"):
        run("return security.policy('app:raed')")
    with pytest.raises(NotFound, match="group 'app:nobody'"):
        run("return security.named_scope('app:nobody')")


@pytest.mark.parametrize(
    ("body", "action"),
    [
        ("security.new_actor('root')", "security.actor.create on root"),
        ("security.new_scope()", "security.scope.create on custom"),
        ("security.policy('app:powers')", "security.policy.get on app:powers"),
        ("security.named_scope('app:nobody')", "security.policy_group.get on app:nobody"),
        ("security.scope():without('app:read')", "security.scope.create on without"),
        ("security.scope():with(security.scope():policies()[1])", "security.scope.create on with"),
    ],
)
def test_what_gives_powers_must_be_allowed(body: str, action: str) -> None:
    with pytest.raises(PermissionDenied, match=f"{action}: not allowed for alice"):
        run(f"local v, err = {body}; return v, err", security=context(READ))


def test_who_may_can_make_them() -> None:
    body = "return {security.new_actor('root'):id(), #security.new_scope():policies()}"
    assert run(body, security=context(POWERS)) == ["root", 0]


def test_values_can_neither_be_changed_nor_looked_into_nor_forged() -> None:
    body = """
    local actor = security.new_actor('bob')
    local forged = setmetatable({}, {__index = {id = function() return 'root' end}})
    local _, err = security.new_scope():evaluate(forged, 'a', 'r')
    return {(pcall(function() actor.id = 1 end)), (pcall(rawset, actor, 'id', 1)), (pcall(next, actor)),
      getmetatable(actor), err:kind()}"""
    assert run(body) == [False, False, False, False, "Invalid"]
