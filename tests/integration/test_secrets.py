"""Values of the environment and passwords in URLs appear in nothing that people or programs read."""

from __future__ import annotations

import io
import json
import logging
import queue as queues
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support import DEADLINE
from wippy_queue import Actor, ConfigurationError, Engine, PermissionDenied, WippyQueueError
from wippy_queue.cli import cli
from wippy_queue.events import Event
from wippy_queue.telemetry.logs import JsonFormatter, RedactingFilter, TextFormatter

SECRET = "s3cr3t-Value"
PASSWORD = "pa55w0rd"
PATTERN = "(q'u\\o\"te-s3cr3t"

BROKEN = """
version: "1.0"
namespace: app
entries:
  - {name: memory, kind: queue.driver.memory}
  - {name: k, kind: "queue.${env:SECRET}"}
  - {name: rabbit, kind: queue.driver.amqp, url: "amqp://user:pa55w0rd@broker/", heartbeat: "${env:SECRET}", urll: 1}
  - {name: redis, kind: queue.driver.redis, url: ["redis://:pa55w0rd@broker/0"], lease: "${env:SECRET}"}
  - {name: aws, kind: config.aws, access_key_id: "${env:SECRET}", secret_access_key: ["${env:SECRET}"]}
  - {name: sqs, kind: queue.driver.sqs, config: "${env:SECRET}", endpoint: "https://user:pa55w0rd@host", wait_time: -1}
  - {name: disk, kind: queue.driver.sqlite, file: "${env:SECRET}", durability: "${env:SECRET}", lease: "${env:SECRET}"}
  - {name: a, kind: queue.queue, driver: "${env:SECRET}", queue_name: "${env:SECRET}", codec: "${env:SECRET}"}
  - {name: b, kind: queue.queue, driver: "app:${env:SECRET}", retry: {max_delay: 7x, jitter: "${env:SECRET}"}}
  - {name: c, kind: queue.queue, driver: memory, options: {max_length: "${env:SECRET}", overflow: "${env:SECRET}"}}
  - name: w
    kind: queue.consumer
    queue: c
    func: "no id ${env:SECRET}"
    concurrency: "${env:SECRET}"
    memory_limit: "${env:SECRET}"
    lifecycle:
      auto_start: "${env:SECRET}"
      depends_on: ["${env:SECRET}"]
      security:
        actor: {id: ["${env:SECRET}"], meta: "amqp://user:pa55w0rd@broker/"}
        policies: ["app:${env:SECRET}"]
        groups: ["app:${env:SECRET}", "no id ${env:SECRET}"]
  - {name: f, kind: function.lua, source: "file://${env:SECRET}.lua", modules: ["${env:SECRET}"]}
  - {name: g, kind: function.lua, source: "return ${env:SECRET} ${env:SECRET}", imports: ["${env:SECRET}"]}
  - {name: h, kind: function.python, source: "${env:SECRET}"}
  - {name: p, kind: security.policy, policy: {actions: a, resources: b, effect: "${env:SECRET}", conditions: [
      {field: "${env:SECRET}", operator: "${env:SECRET}"}, {field: action, operator: matches, value: "${env:PATTERN}"},
      {field: action, operator: gt, value: ["${env:SECRET}"]}]}}
  - {name: v, kind: env.variable, default: ["${env:SECRET}"], storage: "${env:SECRET}", read_only: "${env:SECRET}"}
  - {name: twice, kind: env.variable, default: "s3cr3t-Value"}
  - {name: uses, kind: store.memory, max_size: "${env:twice}", cleanup_interval: "${env:app:twice}x"}
"""

GOOD = """
version: "1.0"
namespace: app
entries:
  - {name: memory, kind: queue.driver.memory}
  - {name: tasks, kind: queue.queue, driver: memory, dead_letter: {queue: failed, max_attempts: 1}}
  - {name: failed, kind: queue.queue, driver: memory}
  - {name: token, kind: env.variable, variable: SECRET, read_only: true}
  - {name: url, kind: env.variable, variable: BROKER_URL, default: "amqp://user:pa55w0rd@broker/"}
  - {name: handler, kind: function.lua, modules: [env, queue, store], source: file://handler.lua}
  - name: policy
    kind: security.policy
    policy:
      actions: "*"
      resources: "*"
      effect: allow
      conditions: [{field: actor.meta.token, operator: eq, value: "${env:SECRET}"}]
  - name: no_writes
    kind: security.policy
    policy: {actions: [env.set, queue.publish.queue], resources: "*", effect: deny}
  - name: worker
    kind: queue.consumer
    queue: tasks
    func: handler
    lifecycle:
      auto_start: true
      security: {actor: {id: worker, meta: {token: "${env:SECRET}"}}, policies: [policy, no_writes]}
"""

HANDLER = """
local env, queue, store = require("env"), require("queue"), require("store")
return function(task)
  assert(env.get("SECRET") == env.get_all().SECRET and env.get("url"))
  local _, denied = env.set("SECRET", "x")
  local _, refused = queue.publish("app:tasks", "x")
  local _, missing = store.get("app:nothing")
  return nil, errors.new("failed: " .. denied .. "; " .. refused .. "; " .. missing)
end
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("PATTERN", PATTERN)


@pytest.fixture
def written() -> Any:
    """All that the loggers write, with both formatters, at the lowest level."""
    streams = []
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    for formatter in (TextFormatter(), JsonFormatter()):
        handler = logging.StreamHandler(io.StringIO())
        handler.setFormatter(formatter)
        handler.addFilter(RedactingFilter())
        root.addHandler(handler)
        streams.append(handler)
    yield lambda: "\n".join(handler.stream.getvalue() for handler in streams)
    for handler in streams:
        root.removeHandler(handler)
    root.setLevel(level)


def assert_clean(text: str) -> None:
    for secret in (SECRET, PASSWORD, PATTERN, repr(PATTERN)[1:-1], json.dumps(PATTERN)[1:-1]):
        assert secret not in text, text[max(0, text.find(secret) - 200) : text.find(secret) + 100]


def test_no_mistake_shows_a_secret(tmp_path: Path, written: Any) -> None:
    (tmp_path / "_index.yaml").write_text(BROKEN)
    (tmp_path / "wippy.yaml").write_text(
        'security: {strict_mode: "${env:SECRET}"}\nlua: {hook_mode: "${env:SECRET}", recycle_after: "${env:SECRET}"}\n'
        'shutdown: {timeout: "${env:SECRET}"}\nlogging: {url: "amqp://user:pa55w0rd@broker/"}\n'
    )
    overrides = {"app:c": {"driver": "amqp://user:pa55w0rd@broker/", "retry.max_delay": "${env:SECRET}"}, "app:no": {}}
    for skip in (False, True):
        with pytest.raises(ConfigurationError) as caught:
            Engine.load(tmp_path, overrides=overrides, skip_unsupported=skip)
        problems = caught.value.problems
        assert len(problems) >= 30
        assert_clean(f"{caught.value}\n{caught.value!r}\n{problems!r}")
    for arguments in (["check"], ["check", "--json"], ["check", "--skip-unsupported"], ["run"], ["info"]):
        result = CliRunner().invoke(cli, [arguments[0], str(tmp_path), *arguments[1:]])
        assert result.exit_code != 0
        assert_clean(result.output + result.stderr)
    assert_clean(written())


def test_nothing_that_runs_shows_a_secret(tmp_path: Path, written: Any) -> None:
    (tmp_path / "_index.yaml").write_text(GOOD)
    (tmp_path / "handler.lua").write_text(HANDLER)
    events: queues.Queue[Event] = queues.Queue()
    engine = Engine.load(tmp_path)
    engine.subscribe(events.put)
    with engine:
        engine.publish("app:tasks", {"n": 1})
        engine.join("app:tasks", timeout=DEADLINE)
        (dead,) = engine.peek("app:failed")
        assert "app:token is read-only" not in str(dead.headers)  # the policy came first
        assert "not allowed for worker" in str(dead.headers)
        with pytest.raises(WippyQueueError) as caught:
            engine.call("app:handler", {})
        actor = Actor("script", {"token": SECRET}, policies=["app:no_writes"])
        with pytest.raises(PermissionDenied) as refused:
            engine.publish("app:tasks", "x", actor=actor)
        told = [
            caught.value, caught.value.details, caught.getrepr(style="native"), refused.value, actor, dead,
            engine.services(), engine.health(), engine.info("app:tasks"), engine,
        ]  # fmt: skip
    while not events.empty():
        told.append(events.get())
    assert len(told) > 12
    assert_clean("\n".join(f"{one}\n{one!r}" for one in told if one is not None))
    assert "access denied" in written() and "handler failed" in written()
    assert_clean(written())


def test_the_command_line_shows_no_secret(tmp_path: Path, written: Any) -> None:
    (tmp_path / "_index.yaml").write_text(GOOD)
    (tmp_path / "handler.lua").write_text(HANDLER)
    for arguments in (["check"], ["check", "--json"], ["info"], ["health"]):
        result = CliRunner().invoke(cli, [arguments[0], str(tmp_path), *arguments[1:]])
        assert_clean(result.output + result.stderr)
    assert_clean(written())


@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", f"rabbit:url=amqp://user:{PASSWORD}@broker/"],
        ["-o", f'app:rabbit:url="amqp://user:{PASSWORD}@broker/'],
        ["--settings", f"amqp://user:{PASSWORD}@broker/"],
    ],
)
def test_a_command_line_that_is_wrong_is_shown_without_its_password(tmp_path: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(cli, ["check", str(tmp_path), *arguments])
    assert result.exit_code == 2
    assert PASSWORD not in result.output
    assert "***" in result.output
