"""The reference pages name what there is, all of it, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import click
import pytest

from wippy_queue.cli import cli
from wippy_queue.drivers import DRIVER_KINDS
from wippy_queue.drivers.memory import KIND
from wippy_queue.entries import Settings, fields, kinds
from wippy_queue.lua.modules import NAMES

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"

KINDS: dict[str, type[Any]] = {
    name: cls for name, cls in kinds.ENTRY_CLASSES.items() if name not in kinds.NOT_YET_KINDS
}


def section(page: str, heading: str) -> str:
    """Return the text below a heading, up to the next one."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(heading)}$\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no section {heading}"
    return found[1]


def first_table(text: str) -> set[str]:
    """Return the names in the first column of the first table."""
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    if table is None:
        assert "It has no fields." in text
        return set()
    rows = table[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`([\w.]+)`", row.split("|")[1])}


def written_fields(cls: type[Any]) -> set[str]:
    names: set[str] = set()
    for field in attrs.fields(cls):
        if field.name == "options":
            names |= {"options", "driver_options"}
        elif not fields.NOT_WRITTEN.items() <= field.metadata.items():
            names |= {field.name, *filter(None, [field.metadata.get(fields.ALSO)])}
    return names - kinds.NOT_YET_FIELDS.get(cls, frozenset())


@pytest.mark.parametrize("kind", KINDS)
def test_the_entries_page_lists_the_fields_of_every_kind(kind: str) -> None:
    assert first_table(section("entries.md", f"`{kind}`")) == written_fields(KINDS[kind])


@pytest.mark.parametrize("driver", DRIVER_KINDS.values(), ids=DRIVER_KINDS)
def test_the_entries_page_lists_the_fields_of_every_driver(driver: Any) -> None:
    assert first_table(section("entries.md", f"`{driver.kind}`")) == written_fields(driver.config) | {"lifecycle"}


@pytest.mark.parametrize("driver", DRIVER_KINDS.values(), ids=DRIVER_KINDS)
def test_the_entries_page_names_the_options_of_every_driver(driver: Any) -> None:
    page = (REFERENCE / "entries.md").read_text(encoding="utf-8")
    options = written_fields(driver.queue_options) | written_fields(driver.consumer_options)
    assert {option for option in options if f"| `{option}` |" not in page} == set()


def test_the_entries_page_lists_what_a_lifecycle_may_say() -> None:
    assert first_table(section("entries.md", "`lifecycle`")) >= written_fields(kinds.Lifecycle)


def test_the_entries_page_lists_the_settings() -> None:
    sections: dict[str, Any] = {field.name: field.type for field in attrs.fields(attrs.resolve_types(Settings))}
    settings = {f"{name}.{field.name}" for name, cls in sections.items() for field in attrs.fields(cls)}
    assert first_table(section("entries.md", "Settings")) == settings


def test_the_lua_page_names_every_module() -> None:
    page = (REFERENCE / "lua.md").read_text(encoding="utf-8")
    assert {name for name in NAMES if f"`{name}`" not in page} == set()


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def test_the_command_line_page_names_every_command_and_option() -> None:
    page = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    missing = []
    for name, command in commands(cli):
        if f"| `{name}" not in page:
            missing.append(name)
        for option in command.params:
            if isinstance(option, click.Option):
                missing += [f"{name} {flag}" for flag in option.opts if f"`{flag}" not in page]
    assert missing == []


CAPABILITIES = {
    "messages outlive the process": "durable",
    "several processes see the same queues": "shared",
    "`delay`": "delay",
    "`ttl`": "ttl",
    "`priority`": "priority",
    "`attempts` are exact, crashes included": "exact_attempts",
    "what is handed back goes to the head of the queue": "release_at_head",
    "a repeated `message_id` is no second message": "idempotent_publish",
    "messages come in the order of their publish": "ordered",
    "`info` is exact": "exact_counts",
    "works with leases": "leases",
}


def test_the_table_of_capabilities_is_what_the_drivers_say() -> None:
    table = re.search(r"(?:^\|.*\n)+", section("drivers/index.md", "Capabilities"), re.MULTILINE)
    assert table is not None
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table[0].splitlines()]
    drivers = rows[0][1:]
    assert drivers == [kind.short_name for kind in DRIVER_KINDS.values()]
    found = {row[0]: row[1:] for row in rows[2:]}
    expected = {
        text: ["yes" if getattr(kind.capabilities, name) else "no" for kind in DRIVER_KINDS.values()]
        for text, name in CAPABILITIES.items()
    }
    assert found == expected
    assert set(CAPABILITIES.values()) == {field.name for field in attrs.fields(type(KIND.capabilities))}
