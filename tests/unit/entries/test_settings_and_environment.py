"""`wippy.yaml`, `settings=` and `${env:...}`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.entries.samples import APPLICATION, DRIVERS, MODULES, load, write
from wippy_queue import entries
from wippy_queue.errors import ConfigurationError
from wippy_queue.ids import EntryId


def _settings(folder: Path, text: str | None, **options: Any) -> entries.Settings:
    write(folder)
    if text is not None:
        (folder / "wippy.yaml").write_text(text, encoding="utf-8")
    return load(folder, **options).settings


def test_without_settings_everything_has_its_default(tmp_path: Path) -> None:
    settings = _settings(tmp_path, None)
    assert settings.security.strict_mode is False
    assert (settings.lua.hook_mode, settings.lua.recycle_after, settings.lua.max_stuck_workers) == ("async", 0, 10)
    assert settings.shutdown.timeout is None


@pytest.mark.parametrize(
    "text",
    [
        "lua:\n  hook_mode: count\n  recycle_after: 5\nshutdown: {timeout: 1m}\n",
        "lua.hook_mode: count\nlua.recycle_after: 5\nshutdown.timeout: 60\n",
    ],
)
def test_settings_are_nested_or_dotted(text: str, tmp_path: Path) -> None:
    settings = _settings(tmp_path, 'version: "1.0"\n' + text)
    assert settings.lua == entries.LuaSettings(hook_mode="count", recycle_after=5)
    assert settings.shutdown.timeout == 60.0


def test_settings_from_python_win(tmp_path: Path) -> None:
    given = {"lua": {"hook_mode": "off"}, "security.strict_mode": True}
    settings = _settings(tmp_path, "lua: {hook_mode: count, recycle_after: 5}\n", settings=given)
    assert settings.lua == entries.LuaSettings(hook_mode="off", recycle_after=5)
    assert settings.security.strict_mode is True


def test_wippy_yaml_may_stand_beside_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "app")
    (tmp_path / "wippy.yaml").write_text("lua: {recycle_after: 5}\n", encoding="utf-8")
    for path in (tmp_path / "app", tmp_path / "app" / "_index.yaml"):
        app = entries.load([path], driver_kinds=DRIVERS, known_modules=MODULES)
        assert app.settings.lua.recycle_after == (5 if path.is_dir() else 0)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("lua:\n  hook_mod: count\n", 2, "lua.hook_mod: unknown field 'hook_mod'; did you mean 'hook_mode'?"),
        ("a: 1\nlua.hook_mod: count\n", 2, "did you mean 'hook_mode'?"),
        ("\nluaa: {}\n", 2, "unknown field 'luaa'; did you mean 'lua'?"),
        ("lua: 5\n", 1, "lua: expected a mapping of fields, found the number 5"),
        ("lua: {hook_mode: maybe}\n", 1, "expected one of async, count, off, found 'maybe'"),
        ("lua: {recycle_after: -1}\n", 1, "must be 0 or more"),
        ("shutdown: {timeout: soon}\n", 1, "expected a duration"),
        ("- a\n", 1, "expected a mapping of settings, found a list"),
        ("version: 3\nlua: {}\n", 1, 'expected the version "1.0"'),
        ("a: [\n", 2, "YAML"),
    ],
)
def test_a_wrong_setting_is_told_with_its_place(text: str, line: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _settings(tmp_path, text)
    told = [problem for problem in caught.value.problems if message in str(problem)]
    assert told, str(caught.value)
    assert (told[0].file, told[0].line) == (str(tmp_path / "wippy.yaml"), line)


def test_other_sections_of_a_wippy_project_are_skipped_where_that_is_asked_for(tmp_path: Path) -> None:
    text = "organization: acme\nlogger: {encoding: json}\nlua: {pool: 4, recycle_after: 5}\n"
    write(tmp_path)
    (tmp_path / "wippy.yaml").write_text(text, encoding="utf-8")
    app = load(tmp_path, skip_unsupported=True)
    assert app.settings.lua.recycle_after == 5
    assert [warning.path for warning in app.warnings] == ["organization", "logger", "lua.pool"]
    with pytest.raises(ConfigurationError, match="settings"):
        load(tmp_path, skip_unsupported=True, settings={"loger": {}})


# The environment


def _worker(folder: Path, field: str, value: str) -> Any:
    app = load(folder, APPLICATION.replace("concurrency: 4", f"{field}: {value}"))
    return getattr(app.entries[EntryId("app.queue:worker")], field)


@pytest.mark.parametrize(
    ("field", "value", "text", "read"),
    [
        ("concurrency", "${env:WQ}", "12", 12),
        ("timeout", "${env:WQ}", "1.5", 1.5),
        ("timeout", "${env:WQ}", "1m", 60.0),
        ("timeout", "${env:WQ}s", "5", 5.0),
        ("auto_ack", "${env:WQ}", "true", True),
        ("memory_limit", "${env:WQ}", "1MiB", 2**20),
        ("memory_limit", "${env:WQ}", "1048576", 2**20),
        ("queue", "${env:WQ}", "failed", "app.queue:failed"),
        ("concurrency", "${env:WQ|3}", None, 3),
        ("timeout", '"${env:WQ|}${env:WQ|2}s"', None, 2.0),
    ],
)
def test_a_field_may_come_from_the_environment(
    field: str, value: str, text: str | None, read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        monkeypatch.setenv("WQ", text)
    source = APPLICATION.replace("    queue: tasks\n", "") if field == "queue" else APPLICATION
    app = load(tmp_path, source.replace("concurrency: 4", f"{field}: {value}"))
    assert getattr(app.entries[EntryId("app.queue:worker")], field) == read


@pytest.mark.parametrize(
    "line",
    [
        "concurrency: ${env:WQ}",
        "auto_ack: ${env:WQ}",
        "timeout: ${env:WQ}",
        "memory_limit: ${env:WQ}",
        "retry: {jitter: '${env:WQ}'}",
        "lifecycle: {depends_on: ['${env:WQ}']}",
        "lifecycle: {depends_on: ['app:${env:WQ}']}",
        "lifecycle: {restart: '${env:WQ}'}",
        "options: '${env:WQ}'",
        "driver_options: '${env:WQ}'",
    ],
)
def test_a_value_from_the_environment_is_never_shown(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WQ", "s3cret-value")
    text = APPLICATION.replace("concurrency: 4", line)
    if "lifecycle" in line:
        text = text.replace(
            "    lifecycle:\n      auto_start: true\n      depends_on:\n        - app.queue:tasks\n", ""
        )
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert "s3cret" not in str(caught.value)
    assert "env:WQ" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("url: amqp://localhost/", "url: ${env:WQ}"),
        ("url: amqp://localhost/", "url: amqp://${env:WQ}/\n    reconnect_delay: 60"),
        ("url: amqp://localhost/", "url: amqp://h/\n    channel_max: ${env:WQ}"),
        ("max_length: 100", "overflow: ${env:WQ}"),
        ("file://handler.lua", "file://${env:WQ}/x.lua"),
        ("images.tools:resize", "${env:WQ}"),
        ("kind: store.memory", "kind: ${env:WQ}"),
        ("- json\n", "- ${env:WQ|http}\n"),
    ],
)
def test_nor_is_it_by_drivers_sources_and_kinds(
    old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WQ", "s3cret-value")
    try:
        load(tmp_path, APPLICATION.replace(old, new))
    except ConfigurationError as error:
        text = str(error)
    else:
        text = ""
    assert "s3cret" not in text
    assert "env:WQ" in text or "WQ|http" in new


def test_secrets_that_stand_in_the_file_are_not_shown_either(tmp_path: Path) -> None:
    for line in (
        "url: http://user:hunter2@host/",
        "url: amqp://h/\n    password: 424242",
        "url: amqp://h/\n    password: [hunter2]",
        "url: amqp://h/\n    password: hunter2-hunter2",
        "url: amqp://me:hunter2@h/\n    reconnect_delay: 60",
    ):
        with pytest.raises(ConfigurationError) as caught:
            load(tmp_path, APPLICATION.replace("url: amqp://localhost/", line))
        assert "hunter2" not in str(caught.value)
        assert "424242" not in str(caught.value)


def test_a_missing_variable_is_told_by_its_name_and_with_the_one_that_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WQ_CONCURRENCY", "4")
    with pytest.raises(ConfigurationError, match="WQ_CONCURENCY is not set; did you mean 'WQ_CONCURRENCY'?"):
        _worker(tmp_path, "concurrency", "${env:WQ_CONCURENCY}")
    with pytest.raises(ConfigurationError, match=r"set it, or write \$\{env:ZZZZ9\|default\}"):
        _worker(tmp_path, "concurrency", "${env:ZZZZ9}")
