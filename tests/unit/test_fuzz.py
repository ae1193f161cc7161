"""Whatever is written, the parsers say what it means or what is wrong with it; they never fail in another way."""

from __future__ import annotations

import contextlib
import copy
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wippy_queue import ConfigurationError, Engine
from wippy_queue.durations import parse_duration
from wippy_queue.errors import Invalid
from wippy_queue.ids import EntryId
from wippy_queue.security import OPERATORS, Condition
from wippy_queue.security.conditions import Question, Undecidable

_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NEARLY = st.text(alphabet="0123456789.hmsnuµ+-e ", max_size=12)
_SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8) | st.binary(max_size=3)
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=6,
)

ENTRIES: list[dict[str, Any]] = [
    {"name": "memory", "kind": "queue.driver.memory", "lifecycle": {"auto_start": True, "start_timeout": "5s"}},
    {
        "name": "tasks", "kind": "queue.queue", "driver": "memory", "codec": "json",
        "options": {"max_length": 9, "overflow": "reject"},
        "dead_letter": {"queue": "failed", "max_attempts": 2}, "retry": {"initial_delay": "1ms", "jitter": 0.5},
    },
    {"name": "failed", "kind": "queue.queue", "driver": "memory"},
    {
        "name": "handler", "kind": "function.lua", "source": "return function() end", "modules": ["json"],
        "imports": {"lib": "library"}, "timeout": "1s",
    },
    {"name": "library", "kind": "library.lua", "source": "return {}"},
    {
        "name": "worker", "kind": "queue.consumer", "queue": "tasks", "func": "handler", "concurrency": 2,
        "memory_limit": "1MiB", "retry": {"max_delay": 3},
        "lifecycle": {"restart": {"max_attempts": 3}, "security": {"actor": {"id": "a"}, "policies": ["rule"]}},
    },
    {"name": "cache", "kind": "store.memory", "max_size": 10, "cleanup_interval": "1m"},
    {"name": "home", "kind": "env.variable", "variable": "HOME", "storage": "os"},
    {"name": "os", "kind": "env.storage.os"},
    {
        "name": "rule", "kind": "security.policy", "groups": ["admins"],
        "policy": {
            "actions": ["*"], "resources": ["app:*"], "effect": "allow",
            "conditions": [{"field": "actor.meta.role", "operator": "matches", "value": "^a"}],
        },
    },
]  # fmt: skip


@given(st.text(max_size=12) | _NEARLY)
def test_a_duration_is_read_or_refused(text: str) -> None:
    if re.fullmatch(r"([0-9]{1,18}(\.[0-9]{1,18})?(ns|us|µs|ms|s|m|h))+", text):
        assert 0 <= parse_duration(text) < math.inf
    else:
        with pytest.raises(ValueError, match="expected a duration"):
            parse_duration(text)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.sampled_from(sorted(_UNITS))), min_size=1, max_size=5))
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{count}{unit}" for count, unit in parts)
    assert parse_duration(text) == pytest.approx(sum(count * _UNITS[unit] for count, unit in parts))


@given(st.text(max_size=20) | st.text(alphabet="ab.:-_1 \n", max_size=12), st.none() | st.just("app"))
def test_an_id_is_read_or_refused(text: str, namespace: str | None) -> None:
    try:
        found = EntryId.parse(text, namespace)
    except Invalid:
        assert not re.fullmatch(r"[a-z]+(:[a-z]+)?", text) or (":" not in text and namespace is None)
    else:
        assert found == f"{found.namespace}:{found.name}"
        assert found.endswith(text)
        assert EntryId.parse(found) == found
        assert not set(found) & set(" \n\t")


@settings(max_examples=300)
@given(
    field=st.sampled_from(["actor.id", "actor.meta.a", "actor.meta.a.b", "action", "resource", "meta.x", "meta.x.y"]),
    operator=st.sampled_from(sorted(OPERATORS)),
    value=_VALUES,
    meta=st.dictionaries(st.sampled_from(["a", "x", "y"]), _VALUES, max_size=3),
)
def test_a_condition_is_met_or_not_whatever_is_compared(
    field: str, operator: str, value: Any, meta: dict[str, Any]
) -> None:
    if operator in {"matches", "nmatches"}:
        value = str(value)  # the loader sees to it
    elif operator in {"in", "nin"}:
        value = [value]
    try:
        condition = Condition(field=field, operator=operator, value=value)
    except ValueError:
        return  # a bad pattern
    question = Question(actor_id="a", actor_meta=meta, action="read", resource="doc:1", meta=meta)
    for asked in (condition, Condition(field=field, operator=operator, value_from="meta.x")):
        with contextlib.suppress(Undecidable):
            assert asked.holds(question) in {True, False}


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in children for place in _places(child, (*path, key)))]


_PLACES = [place for place in _places(ENTRIES) if place]


@settings(max_examples=400)
@given(place=st.sampled_from(_PLACES), value=_VALUES, key=st.none() | st.text(max_size=8))
def test_an_application_with_anything_anywhere_is_loaded_or_refused(
    place: tuple[Any, ...], value: Any, key: str | None
) -> None:
    declared: Any = copy.deepcopy(ENTRIES)
    target = declared
    for step in place[:-1]:
        target = target[step]
    if key is not None and isinstance(target, dict):
        target[key] = value
    else:
        target[place[-1]] = value
    with contextlib.suppress(ConfigurationError):
        Engine.from_entries(declared)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_with_anything_anywhere_is_loaded_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    text = TEXT
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.sampled_from([0, 0, 1, 5, 40]))
        noise = st.sampled_from(
            [*"[]{}:-&*!|>'\"%@`#,?\n\t\0\x85\ufeff", "<<: ", "&a ", "*a", "!!python/object:os.system ", "---\n"]
        )
        text = text[:start] + data.draw(noise | st.text(max_size=4)) + text[end:]
    file = tmp_path / "_index.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(ConfigurationError):
        Engine.load(tmp_path)


TEXT = """version: "1.0"
namespace: app.queue
entries:
  - name: memory
    kind: queue.driver.memory
    lifecycle: {auto_start: true}
  - name: tasks
    kind: queue.queue
    driver: memory
    options:
      max_length: 10
    retry: {initial_delay: 100ms, max_attempts: 3}
  - name: handler
    kind: function.lua
    source: |
      return function(body) return body end
    modules: [json, queue]
    meta: {owner: ${env:OWNER|nobody}}
  - name: worker
    kind: queue.consumer
    queue: app.queue:tasks
    func: handler
    timeout: 1h30m
"""
