"""How the command line says what to change about an application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from wippy_queue.cli.options import Target, application_command

seen: list[Target] = []


@click.command
@application_command(log_level="warning")
@click.argument("queue")
def command(target: Target, queue: str) -> None:
    seen.append(target)
    click.echo(queue)


def invoke(tmp_path: Path, *arguments: str) -> Result:
    seen.clear()
    return CliRunner().invoke(command, [str(tmp_path), "app:tasks", *arguments])


def test_the_application_comes_before_the_commands_own_arguments(tmp_path: Path) -> None:
    assert invoke(tmp_path).output == "app:tasks\n"
    assert seen == [Target(path=tmp_path, overrides={}, settings={}, skip_unsupported=False)]


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("app.queue:tasks:driver=app:rabbit", {"app.queue:tasks": {"driver": "app:rabbit"}}),
        ("app:worker:concurrency=4", {"app:worker": {"concurrency": 4}}),
        ("app:worker:auto_ack=true", {"app:worker": {"auto_ack": True}}),
        ("app:rabbit:url=amqp://h/?a=b", {"app:rabbit": {"url": "amqp://h/?a=b"}}),
        ("app:tasks:options={max_length: 5}", {"app:tasks": {"options": {"max_length": 5}}}),
        ("app:tasks:options=", {"app:tasks": {"options": None}}),
    ],
)
def test_an_override_names_an_entry_a_field_and_a_value_in_yaml(
    tmp_path: Path, text: str, overrides: dict[str, Any]
) -> None:
    assert invoke(tmp_path, "-o", text).exit_code == 0
    assert seen[0].overrides == overrides


def test_overrides_of_one_entry_add_up(tmp_path: Path) -> None:
    invoke(tmp_path, "-o", "app:worker:concurrency=4", "-o", "app:worker:prefetch=9", "--skip-unsupported")
    assert seen[0].overrides == {"app:worker": {"concurrency": 4, "prefetch": 9}}
    assert seen[0].skip_unsupported


def test_a_setting_has_a_dotted_key_and_a_value_in_yaml(tmp_path: Path) -> None:
    invoke(tmp_path, "--settings", "shutdown.timeout=5s", "--settings", "security.strict_mode=true")
    assert seen[0].settings == {"shutdown.timeout": "5s", "security.strict_mode": True}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-o", "tasks"], "expected ID:FIELD=VALUE"),
        (["-o", "tasks=4"], "expected ID:FIELD=VALUE"),
        (["-o", "tasks:driver=4"], "expected ID:FIELD=VALUE"),
        (["-o", "app:tasks:driver=[1"], "is no YAML"),
        (["--settings", "=4"], "expected KEY=VALUE"),
        (["--settings", "key"], "expected KEY=VALUE"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error_with_the_form_that_is_expected(
    tmp_path: Path, arguments: list[str], expected: str
) -> None:
    result = invoke(tmp_path, *arguments)
    assert result.exit_code == 2
    assert expected in result.output
    assert seen == []


def test_an_application_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    result = invoke(tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "does not exist" in result.output
