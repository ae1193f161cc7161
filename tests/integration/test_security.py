"""Access control from YAML to Lua: who may publish, call, read and store, and who may not."""

from __future__ import annotations

import logging
import queue as queues
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import DEADLINE, eventually
from wippy_queue import Actor, ConfigurationError, Engine, Invalid, NotFound, PermissionDenied
from wippy_queue.events import AccessDenied, Event

# A consumer that runs whatever the message says, with modules that ask the guard.
APPLICATION = """
version: "1.0"
namespace: app
entries:
  - {name: memory, kind: queue.driver.memory}
  - {name: tasks, kind: queue.queue, driver: memory, retry: {max_attempts: 1}}
  - {name: out, kind: queue.queue, driver: memory}
  - {name: secret, kind: queue.queue, driver: memory}
  - {name: cache, kind: store.memory, lifecycle: {auto_start: true}}
  - {name: memory_env, kind: env.storage.memory}
  - {name: level, kind: env.variable, variable: LEVEL, storage: memory_env, default: info}
  - {name: inner, kind: function.lua, modules: [queue, security], source: file://inner.lua}
  - name: handler
    kind: function.lua
    modules: [queue, store, env, funcs, security, report]
    source: file://handler.lua
  - name: worker
    kind: queue.consumer
    queue: tasks
    func: handler
    lifecycle:
      auto_start: true
      %(security)s
"""

POLICIES = """
version: "1.0"
namespace: app.security
entries:
  - name: publish
    kind: security.policy
    policy:
      actions: [queue.publish, queue.publish.queue, queue.info]
      resources: ["", "app:*"]
      effect: allow
    groups: [publishers]
  - name: no_secrets
    kind: security.policy
    policy:
      actions: "*"
      resources: app:secret
      effect: deny
      conditions:
        - {field: actor.meta.role, operator: ne, value: admin}
    groups: [publishers]
  - name: calls
    kind: security.policy
    policy: {actions: funcs.call, resources: "*", effect: allow}
  - name: own_keys
    kind: security.policy
    policy:
      actions: [store.get, "store.key.*"]
      resources: app:cache
      effect: allow
      conditions:
        - {field: meta.key, operator: matches, value: "^(mine:.*)?$"}
  - name: open_store
    kind: security.policy
    policy: {actions: store.get, resources: app:cache, effect: allow}
  - name: reads_level
    kind: security.policy
    policy: {actions: env.get, resources: LEVEL, effect: allow}
"""

HANDLER = """
local queue, store, env = require("queue"), require("store"), require("env")
local funcs, security, report = require("funcs"), require("security"), require("report")
local function told(v, err) report.tell({ value = v, kind = err and err:kind(), message = err and err:message() }) end

local commands = {
  publish = function(id) told(queue.publish(id, "x")) end,
  info = function(id) told(queue.info(id)) end,
  get = function(key)
    local cache, err = store.get("app:cache")
    if err then return told(nil, err) end
    told(cache:get(key))
  end,
  set = function(key) told(store.get("app:cache"):set(key, 1)) end,
  env = function(key) told(env.get(key)) end,
  set_env = function(key) told(env.set(key, "x")) end,
  can = function(action) told(security.can(action, "")) end,
  call = function(id) told(funcs.call(id)) end,
  call_python = function() told(funcs.call("app:python")) end,
}

return function(task) commands[task.command](task.argument) end
"""

INNER = """
local queue, security = require("queue"), require("security")
return function()
  local actor = security.actor()
  local ok, err = queue.publish("app:secret", "x")
  return { actor = actor and actor:id() or "none", published = ok or false }
end
"""

ALL = "security: {actor: {id: worker, meta: {role: guest}}, policies: %s}"


class Application:
    """An engine whose worker does what it is told and tells what came of it."""

    def __init__(self, folder: Path, security: str = "", **settings: Any) -> None:
        (folder / "security").mkdir()
        application = textwrap.dedent(APPLICATION) % {"security": security}
        (folder / "_index.yaml").write_text(application)
        (folder / "security" / "_index.yaml").write_text(POLICIES)
        (folder / "handler.lua").write_text(HANDLER)
        (folder / "inner.lua").write_text(INNER)
        self.told: queues.Queue[dict[str, Any]] = queues.Queue()
        self.events: list[Event] = []
        self.engine = Engine.load(folder, settings=settings)
        self.engine.module("report", {"tell": self.told.put})
        self.engine.function("app:python")(lambda: self.engine.publish("app:secret", "from python"))
        self.engine.subscribe(self.events.append)

    def does(self, command: str, argument: str = "", **publish: Any) -> dict[str, Any]:
        self.engine.publish("app:tasks", {"command": command, "argument": argument}, **publish)
        return self.told.get(timeout=DEADLINE)

    def denials(self) -> list[AccessDenied]:
        return [event for event in self.events if isinstance(event, AccessDenied)]


@pytest.fixture
def application(tmp_path: Path) -> Any:
    running: list[Engine] = []

    def make(security: str = "", **settings: Any) -> Application:
        made = Application(tmp_path, security, **settings)
        running.append(made.engine)
        made.engine.start()
        return made

    yield make
    for engine in running:
        engine.stop()


Make = Callable[..., Application]


def test_without_security_everything_is_allowed_in_normal_mode(application: Make) -> None:
    app = application()
    for command, argument in [("publish", "app:secret"), ("info", "app:out"), ("set", "k"), ("env", "LEVEL")]:
        assert "kind" not in app.does(command, argument), command
    assert app.does("can", "queue.publish")["value"] is False
    assert app.denials() == []


def test_allowed_denied_and_undefined(application: Make, caplog: pytest.LogCaptureFixture) -> None:
    app = application(ALL % "[app.security:publish, app.security:no_secrets]")
    with caplog.at_level(logging.WARNING):
        assert app.does("publish", "app:out")["value"] is True
        denied = app.does("publish", "app:secret")
        undefined = app.does("env", "LEVEL")
        assert [record.message for record in caplog.records].count("access denied") == 2
    assert (denied["kind"], undefined["kind"]) == ("Invalid", "PermissionDenied")
    assert denied["message"] == "queue.publish.queue on app:secret: not allowed for worker: a policy denies it"
    assert "no policy of the scope allows it" in undefined["message"]
    assert app.does("info", "app:secret")["kind"] == "PermissionDenied"
    assert app.does("info", "app:out")["value"]["message_count"] == 1
    assert app.engine.info("app:secret").message_count == 0
    eventually(lambda: len(app.denials()) == 3, "three denials are told")
    first = app.denials()[0]
    assert (first.actor, first.action, first.resource) == ("worker", "queue.publish.queue", "app:secret")
    assert first.function == "app:handler"


def test_an_unknown_queue_is_not_told_from_a_denied_one(application: Make) -> None:
    app = application(ALL % "[app.security:calls]")
    assert app.does("publish", "app:out")["message"] == app.does("publish", "app:nowhere")["message"]


def test_conditions_on_metadata_decide(application: Make) -> None:
    app = application("security: {actor: {id: worker, meta: {role: admin}}, groups: [app.security:publishers]}")
    assert app.does("publish", "app:secret")["value"] is True


def test_groups_bring_their_policies(application: Make) -> None:
    app = application("security: {actor: {id: worker}, groups: [app.security:publishers]}")
    assert app.does("publish", "app:out")["value"] is True
    assert app.does("publish", "app:secret")["kind"] == "Invalid"


def test_policies_see_the_key_of_a_store(application: Make) -> None:
    app = application(ALL % "[app.security:own_keys, app.security:open_store]")
    assert app.does("set", "mine:1")["value"] is True
    assert app.does("get", "mine:1")["value"] == 1
    assert app.does("set", "yours:1")["message"].startswith("store.key.set on app:cache: not allowed")
    assert app.does("get", "yours:1")["kind"] == "PermissionDenied"


def test_variables_are_read_and_written_by_those_who_may(application: Make) -> None:
    app = application(ALL % "[app.security:reads_level]")
    assert app.does("env", "LEVEL")["value"] == "info"
    assert app.does("env", "app:level")["value"] == "info"
    assert app.does("set_env", "LEVEL")["kind"] == "PermissionDenied"


@pytest.mark.parametrize("command", ["publish", "info", "get", "env", "call"])
def test_strict_mode_refuses_who_is_nobody(application: Make, command: str) -> None:
    app = application(**{"security.strict_mode": True})
    actor = Actor("script", policies=["app.security:publish"])
    refused = app.does(command, "app:out", actor=actor)
    assert refused["kind"] == ("Invalid" if command == "publish" else "PermissionDenied")
    assert "strict mode" in refused["message"]


def test_strict_mode_changes_nothing_for_a_complete_context(application: Make) -> None:
    app = application(ALL % "[app.security:publish]", **{"security.strict_mode": True})
    actor = Actor("script", groups=["app.security:publishers"])
    assert app.does("publish", "app:out", actor=actor)["value"] is True
    assert app.does("env", "LEVEL", actor=actor)["kind"] == "PermissionDenied"


@pytest.mark.parametrize("empty", ["policies: []", "groups: []"])
def test_an_empty_scope_allows_nothing(application: Make, empty: str) -> None:
    app = application(f"security: {{actor: {{id: worker}}, {empty}}}")
    assert app.does("publish", "app:out")["kind"] == "Invalid"


def test_an_actor_without_a_scope_is_an_incomplete_context(application: Make) -> None:
    app = application("security: {actor: {id: worker}}")
    assert app.does("publish", "app:out")["value"] is True


def test_what_a_handler_calls_acts_as_the_handler(application: Make) -> None:
    app = application(ALL % "[app.security:calls, app.security:publish, app.security:no_secrets]")
    assert app.does("call", "app:inner")["value"] == {"actor": "worker", "published": False}
    refused = app.does("call_python")
    assert refused["kind"] == "PermissionDenied"
    assert "queue.publish.queue on app:secret: not allowed for worker" in refused["message"]


def test_python_publishes_and_calls_as_an_actor(application: Make) -> None:
    engine = application().engine
    script = Actor("script", {"role": "guest"}, groups=["app.security:publishers"])
    assert engine.publish("app:out", "x", actor=script)
    assert len(engine.publish_many("app:out", ["x", "y"], actor=script)) == 2
    for publish in (engine.publish, engine.publish_many):
        with pytest.raises(PermissionDenied, match="queue.publish.queue on app:secret: not allowed for script"):
            publish("app:secret", ["x"], actor=script)
    with pytest.raises(PermissionDenied, match="funcs.call on app:inner"):
        engine.call("app:inner", actor=script)
    caller = Actor("script", policies=["app.security:calls"])
    assert engine.call("app:inner", actor=caller) == {"actor": "script", "published": False}
    assert engine.call("app:inner") == {"actor": "none", "published": True}
    assert engine.info("app:secret").message_count == 1


def test_a_python_function_publishes_as_whoever_calls_it(application: Make) -> None:
    engine = application().engine
    with pytest.raises(PermissionDenied, match="queue.publish: not allowed for script"):
        engine.call("app:python", actor=Actor("script", policies=["app.security:calls"]))
    assert engine.call("app:python")


def test_strict_mode_asks_python_for_an_actor(application: Make) -> None:
    engine = application(**{"security.strict_mode": True}).engine
    with pytest.raises(PermissionDenied, match="queue.publish: not allowed for nobody: strict mode asks for an actor"):
        engine.publish("app:out", "x")
    with pytest.raises(PermissionDenied, match="funcs.call on app:inner"):
        engine.call("app:inner")
    with pytest.raises(PermissionDenied):
        engine.publish("app:out", "x", actor=Actor("script"))


def test_an_actor_of_unknown_policies_is_refused(application: Make) -> None:
    engine = application().engine
    with pytest.raises(NotFound, match="did you mean 'app.security:publish'"):
        engine.publish("app:out", "x", actor=Actor("script", policies=["app.security:publsh"]))
    with pytest.raises(Invalid, match="expected a list of ids"):
        Actor("script", groups="app.security:publishers")


def test_a_python_handler_acts_as_its_consumer() -> None:
    entries: list[Mapping[str, Any]] = [
        {"name": "memory", "kind": "queue.driver.memory"},
        {"name": "tasks", "kind": "queue.queue", "driver": "memory", "retry": {"max_attempts": 1}},
        {
            "name": "worker",
            "kind": "queue.consumer",
            "queue": "tasks",
            "func": "handler",
            "lifecycle": {"auto_start": True, "security": {"actor": {"id": "worker"}, "policies": []}},
        },
    ]
    engine = Engine.from_entries(entries)
    seen: queues.Queue[str] = queues.Queue()

    @engine.function("app:handler")
    def handler(body: Any) -> None:
        try:
            engine.publish("app:tasks", "again")
        except PermissionDenied as error:
            seen.put(str(error))

    with engine:
        engine.publish("app:tasks", "x")
        assert seen.get(timeout=DEADLINE).startswith("queue.publish: not allowed for worker")


# Mistakes


def problems_of(*entries: Mapping[str, Any], **options: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        Engine.from_entries(entries, **options)
    return [str(problem) for problem in caught.value.problems]


def policy(**fields: Any) -> dict[str, Any]:
    rule = {"actions": "*", "resources": "*", "effect": "allow", **fields}
    return {"name": "p", "kind": "security.policy", "policy": rule}


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ({"field": "actor.id", "operator": "eqq", "value": 1}, "expected one of eq, ne"),
        ({"field": "actor.name", "operator": "eq", "value": 1}, "must be actor.id, actor.meta.NAME, action"),
        ({"field": "meta.", "operator": "eq", "value": 1}, "must be actor.id"),
        ({"field": "meta.a", "operator": "eq", "value_from": "actor"}, "policy.conditions[0].value_from: must be"),
        ({"field": "meta.a", "operator": "eq"}, "eq needs one of value and value_from"),
        ({"field": "meta.a", "operator": "eq", "value": 1, "value_from": "action"}, "eq needs one of value and value_"),
        ({"field": "meta.a", "operator": "exists", "value": "x"}, "exists compares nothing; remove the value"),
        ({"field": "meta.a", "operator": "nexists", "value_from": "action"}, "nexists compares nothing"),
        ({"field": "meta.a", "operator": "in", "value": "x"}, "in needs a list"),
        ({"field": "meta.a", "operator": "gt", "value": ["x"]}, "gt needs a number or a text"),
        ({"field": "meta.a", "operator": "matches", "value": 1}, "matches needs a pattern"),
        ({"field": "meta.a", "operator": "nmatches", "value": "(a"}, "bad pattern at character 2: a ( without a )"),
        ({"operator": "eq", "value": 1}, "the field 'field' is required"),
        ({"field": "action", "operator": "eq", "value": 1, "valeu": 2}, "did you mean 'value'?"),
    ],
)
def test_a_mistake_in_a_condition_has_its_place_and_its_cure(condition: dict[str, Any], why: str) -> None:
    (problem,) = problems_of(policy(conditions=[condition]))
    assert problem.startswith("app:p entries[0].policy.conditions[0]") and why in problem


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"actions": []}, "policy.actions: expected a text, or a list of texts, found an empty list"),
        ({"resources": 7}, "policy.resources: expected a text, or a list of texts, found the number 7"),
        ({"actions": ["a", 7]}, "policy.actions[1]: expected text"),
        ({"effect": "alow"}, "did you mean 'allow'?"),
        ({"effect": None}, "the field 'effect' is required"),
    ],
)
def test_a_mistake_in_a_policy_has_its_place_and_its_cure(fields: dict[str, Any], why: str) -> None:
    (problem,) = problems_of(policy(**fields))
    assert why in problem


def test_security_belongs_to_consumers_and_names_what_exists() -> None:
    driver = {"name": "memory", "kind": "queue.driver.memory", "lifecycle": {"security": {"actor": {"id": "a"}}}}
    store = {"name": "cache", "kind": "store.memory", "lifecycle": {"security": {"policies": ["p"]}}}
    queue = {"name": "tasks", "kind": "queue.queue", "driver": "memory"}
    function = {"name": "f", "kind": "function.lua", "source": "return print"}
    security = {"actor": {"meta": {}}, "policies": ["q"], "groups": ["admin", "no id!"]}
    worker = {"name": "w", "kind": "queue.consumer", "queue": "tasks", "func": "f", "lifecycle": {"security": security}}
    found = problems_of(driver, store, queue, function, worker, {**policy(), "groups": ["admins", ""]})
    assert len(found) == 7
    for why in (
        "app:memory entries[0].lifecycle.security: only a consumer runs functions that need it; remove it",
        "app:cache entries[1].lifecycle.security: only a consumer",
        "lifecycle.security.actor.id: the field 'id' is required",
        "lifecycle.security.policies[0]: there is no entry app:q",
        "lifecycle.security.groups[0]: no policy belongs to a group app:admin; did you mean 'app:admins'?",
        "lifecycle.security.groups[1]: expected the id of a group",
        "groups[1]: expected the id of a group, like app.security:admins, found ''",
    ):
        assert any(why in problem for problem in found), why


def test_what_is_left_out_weakens_no_scope() -> None:
    """A scope whose policies exist in Wippy alone is empty and refuses, instead of being no scope at all."""
    entries: list[dict[str, Any]] = [
        {"name": "memory", "kind": "queue.driver.memory"},
        {"name": "tasks", "kind": "queue.queue", "driver": "memory"},
        {"name": "e", "kind": "security.policy.expr", "policy": {"expression": "true"}, "groups": ["g"]},
        {
            "name": "worker",
            "kind": "queue.consumer",
            "queue": "tasks",
            "func": "f",
            "lifecycle": {"auto_start": True, "security": {"actor": {"id": "w"}, "policies": ["e"], "groups": ["g"]}},
        },
    ]
    engine = Engine.from_entries(entries, skip_unsupported=True)
    denied: queues.Queue[str] = queues.Queue()

    @engine.function("app:f")
    def handler(body: Any) -> None:
        try:
            engine.publish("app:tasks", "again")
        except PermissionDenied as error:
            denied.put(str(error))

    with engine:
        engine.publish("app:tasks", "x")
        assert "no policy of the scope allows it" in denied.get(timeout=DEADLINE)
