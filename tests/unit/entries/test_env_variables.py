"""``${env:...}`` finds declared variables by id, by the name of their entry and by their own name."""

from __future__ import annotations

from typing import Any

import pytest

from wippy_queue import ConfigurationError, Engine
from wippy_queue.entries import QueueEntry
from wippy_queue.ids import EntryId

MEMORY = {"name": "memory", "kind": "queue.driver.memory"}
STORAGE = {"name": "in_memory", "kind": "env.storage.memory"}


def variable(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "kind": "env.variable", **fields}


def queue_name(expression: str, *entries: dict[str, Any]) -> str:
    queue = {"name": "tasks", "kind": "queue.queue", "driver": "memory", "queue_name": expression}
    engine = Engine.from_entries([MEMORY, STORAGE, queue, *entries])
    entry = engine._application.entries[EntryId("app:tasks")]
    assert isinstance(entry, QueueEntry)
    return entry.queue_name


@pytest.mark.parametrize("name", ["app:suffix", "suffix", "QUEUE_SUFFIX"])
def test_a_variable_goes_by_its_id_its_entry_and_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = variable("suffix", variable="QUEUE_SUFFIX", default="none")
    monkeypatch.delenv("QUEUE_SUFFIX", raising=False)
    assert queue_name(f"q-${{env:{name}}}", declared) == "q-none"
    monkeypatch.setenv("QUEUE_SUFFIX", "eu")
    assert queue_name(f"q-${{env:{name}}}", declared) == "q-eu"


def test_a_variable_in_memory_has_its_default_whatever_the_process_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUFFIX", "process")
    assert queue_name("${env:SUFFIX}", variable("SUFFIX", storage="in_memory", default="own")) == "own"
    assert queue_name("${env:SUFFIX}") == "process"


def test_a_default_may_come_from_another_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGION", "eu")
    first = variable("a", storage="in_memory", default="${env:b}-1")
    second = variable("b", storage="in_memory", default="q-${env:REGION}")
    assert queue_name("${env:a}", first, second) == "q-eu-1"


def test_defaults_that_need_each_other_are_a_mistake() -> None:
    first = variable("a", storage="in_memory", default="${env:b}")
    second = variable("b", storage="in_memory", default="${env:a}")
    with pytest.raises(ConfigurationError, match="needs that variable itself"):
        queue_name("${env:a}", first, second)


@pytest.mark.parametrize("spelling", ["read_only", "readonly"])
def test_wippys_spelling_of_read_only_is_understood(spelling: str) -> None:
    assert queue_name("x", variable("a", **{spelling: True})) == "x"
