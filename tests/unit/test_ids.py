"""Registry ids."""

from __future__ import annotations

import pytest

from wippy_queue.errors import Invalid
from wippy_queue.ids import EntryId


def test_an_id_is_its_text_and_knows_its_parts() -> None:
    parsed = EntryId.parse("app.queue:tasks")
    assert parsed == "app.queue:tasks"
    assert (parsed.namespace, parsed.name) == ("app.queue", "tasks")


def test_a_bare_name_belongs_to_the_namespace_at_hand() -> None:
    assert EntryId.parse("tasks", "app.queue") == "app.queue:tasks"
    assert EntryId.parse("other:tasks", "app.queue") == "other:tasks"


@pytest.mark.parametrize("text", ["", "tasks", ":tasks", "app:", "a b:c", "app:ta sks", "app::x", "app:x:y", "1app:x"])
def test_what_is_no_id_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Invalid, match="expected a registry id like app.queue:tasks"):
        EntryId.parse(text)
