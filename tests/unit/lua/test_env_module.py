"""The `env` module: declared variables, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.lua.support import FUNCTION, make_function, make_host
from wippy_queue.access import Actor, Scope, SecurityContext
from wippy_queue.environment import Environment, Variable
from wippy_queue.errors import Invalid, NotFound, PermissionDenied
from wippy_queue.ids import EntryId
from wippy_queue.security import DeclaredPolicy

MEMORY = EntryId("app:memory_env")
VARIABLES = [
    Variable(id=EntryId("app:home"), name="HOME_DIR", storage="process"),
    Variable(id=EntryId("app:port"), name="PORT", storage="process", default="8080"),
    Variable(id=EntryId("app:level"), name="LEVEL", storage=MEMORY, default="info"),
    Variable(id=EntryId("app:fixed"), name="FIXED", storage=MEMORY, default="one", read_only=True),
    Variable(id=EntryId("app:empty"), name="EMPTY", storage=MEMORY),
    Variable(id=EntryId("other:level"), name="LEVEL", storage=MEMORY, default="second"),
]


def call(body: str, *arguments: Any, security: SecurityContext | None = None, environment: Any = None) -> Any:
    environment = environment or Environment(VARIABLES, {"HOME_DIR": "/home/me", "SECRET": "s3cret"})
    text = f'local env = require("env")\nreturn function(...)\n{body}\nend'
    function = make_function(text, modules=("env",), host=make_host(environment=environment))
    return function.call(arguments, security=security)


def acting(*resources: str, effect: str = "allow", actions: tuple[str, ...] = ("env.*",)) -> SecurityContext:
    rules: list[Any] = [DeclaredPolicy(id=FUNCTION, actions=actions, resources=resources, effect=effect)]  # type: ignore[arg-type]
    if effect == "deny":
        rules.append(DeclaredPolicy(id=EntryId("app:all"), actions=["*"], resources=["*"], effect="allow"))
    return SecurityContext(actor=Actor("alice"), scope=Scope(tuple(rules)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("HOME_DIR", "/home/me"),
        ("app:home", "/home/me"),
        ("home", "/home/me"),
        ("PORT", "8080"),
        ("LEVEL", "info"),
        ("other:level", "second"),
    ],
)
def test_a_variable_goes_by_its_id_its_name_and_in_its_namespace_by_that_of_its_entry(key: str, value: str) -> None:
    assert call("return env.get(...)", key) == value


def test_a_variable_of_the_process_that_is_not_declared_cannot_be_reached() -> None:
    with pytest.raises(NotFound, match="no environment variable 'SECRET' is declared"):
        call("return env.get('SECRET')")
    assert "SECRET" not in call("return env.get_all()")


def test_a_variable_without_a_value_is_not_found() -> None:
    with pytest.raises(NotFound, match="app:empty .* has no value and no default"):
        call("return env.get('EMPTY')")


@pytest.mark.parametrize("body", ["return env.get('')", "return env.get(1)", "return env.set('', 'x')"])
def test_the_name_must_be_text(body: str) -> None:
    with pytest.raises(Invalid, match="must be text that is not empty"):
        call(body)


def test_a_value_in_memory_can_be_changed_for_everybody() -> None:
    environment = Environment(VARIABLES, {})
    assert call("return env.set('LEVEL', 'debug')", environment=environment) is True
    assert call("return env.get('app:level')", environment=environment) == "debug"
    with pytest.raises(Invalid, match="must be text, got number"):
        call("return env.set('LEVEL', 1)", environment=environment)


@pytest.mark.parametrize(("key", "why"), [("FIXED", "app:fixed is read-only"), ("PORT", "one of the process")])
def test_what_is_read_only_stays(key: str, why: str) -> None:
    with pytest.raises(PermissionDenied, match=why):
        call("return env.set(..., 'x')", key)


def test_get_all_gives_what_has_a_value() -> None:
    assert call("return env.get_all()") == {
        "HOME_DIR": "/home/me",
        "PORT": "8080",
        "LEVEL": "info",
        "FIXED": "one",
    }


@pytest.mark.parametrize("resource", ["app:port", "PORT"])
@pytest.mark.parametrize("key", ["app:port", "port", "PORT"])
def test_a_policy_names_a_variable_as_it_likes(resource: str, key: str) -> None:
    """Were it not so, what is denied by one name could be read by the other."""
    assert call("return env.get(...)", key, security=acting(resource)) == "8080"
    with pytest.raises(PermissionDenied, match="a policy denies it"):
        call("return env.get(...)", key, security=acting(resource, effect="deny"))


def test_reading_does_not_allow_writing() -> None:
    security = acting("LEVEL", actions=("env.get",))
    assert call("return env.get('LEVEL')", security=security) == "info"
    with pytest.raises(PermissionDenied, match="env.set on app:level"):
        call("return env.set('LEVEL', 'x')", security=security)


def test_get_all_gives_what_may_be_read() -> None:
    assert call("return env.get_all()", security=acting("PORT", "app:fixed")) == {"PORT": "8080", "FIXED": "one"}


def test_who_may_not_read_does_not_learn_which_variables_there_are() -> None:
    for key in ("PORT", "NO_SUCH"):
        with pytest.raises(PermissionDenied):
            call("return env.get(...)", key, security=acting("LEVEL"))
