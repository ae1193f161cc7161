"""What the commands share: how an application is named, changed and loaded, and how the log looks."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import click

from wippy_queue import entries
from wippy_queue.application import read_application
from wippy_queue.durations import parse_duration
from wippy_queue.entries.nodes import Node
from wippy_queue.entries.yamlfile import parse
from wippy_queue.errors import Problem
from wippy_queue.redact import redact
from wippy_queue.telemetry.logs import JsonFormatter, RedactingFilter, TextFormatter

F = TypeVar("F", bound=Callable[..., Any])


@attrs.frozen(kw_only=True)
class Target:
    """Which application the user means, and what they change about it."""

    path: Path
    overrides: dict[str, dict[str, Any]]
    settings: dict[str, Any]
    skip_unsupported: bool

    def read(self) -> entries.Application:
        """Return the application, checked; `Engine` takes it.

        Raises:
            ConfigurationError: there are mistakes; all of them are in it.
        """
        return read_application(
            self.path, settings=self.settings, overrides=self.overrides, skip_unsupported=self.skip_unsupported
        )


def _overrides(_context: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    overrides: dict[str, dict[str, Any]] = {}
    for value in values:
        target, equals, text = value.partition("=")
        entry, _, field = target.rpartition(":")
        if not equals or ":" not in entry or not field:
            raise click.BadParameter(
                f"expected ID:FIELD=VALUE like app.queue:tasks:driver=app:rabbit, found {redact(value)!r}"
            )
        overrides.setdefault(entry, {})[field] = _yaml(text)
    return overrides


def _settings(_context: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"expected KEY=VALUE like shutdown.timeout=5s, found {redact(value)!r}")
        settings[key] = _yaml(text)
    return settings


def _yaml(text: str) -> Any:
    """Read a value as the files of an application are read."""
    if not text:
        return None
    problems: list[Problem] = []
    node = parse(text.encode(), "<command line>", problems)
    if problems:
        raise click.BadParameter(f"the value {redact(text)!r} is no YAML: {redact(problems[0].message)}")
    return None if node is None else _plain(node)


def _plain(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: _plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(child) for child in node.value]
    return node.value


# In the order in which the help lists them.
_APPLICATION: Final = (
    click.argument("app", type=click.Path(exists=True, path_type=Path)),
    click.option(
        "-o",
        "--override",
        "overrides",
        metavar="ID:FIELD=VALUE",
        multiple=True,
        callback=_overrides,
        help="Change a field of an entry, as in app.queue:tasks:driver=app:rabbit. The value is YAML. Repeatable.",
    ),
    click.option(
        "--settings",
        metavar="KEY=VALUE",
        multiple=True,
        callback=_settings,
        help="Change a setting of wippy.yaml, as in shutdown.timeout=5s. Repeatable.",
    ),
    click.option(
        "--skip-unsupported",
        is_flag=True,
        help="Leave out what Wippy has and wippy_queue has not, with a warning each, instead of refusing it.",
    ),
)
_LIBRARIES: Final = ("pika", "botocore", "urllib3")
_LOG_FORMAT: Final = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="The form of the log, which goes to stderr.",
)


def application_command(*, log_level: str) -> Callable[[F], F]:
    """Give a command APP and its options, as one ``target``, and a log that shows ``log_level`` and above."""
    log_level_option = click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default=log_level,
        show_default=True,
        help="Leave out of the log what matters less.",
    )

    def decorate(command: F) -> F:
        @functools.wraps(command)  # takes the command's own arguments along
        def with_target(
            *,
            app: Path,
            overrides: dict[str, dict[str, Any]],
            settings: dict[str, Any],
            skip_unsupported: bool,
            log_level: str,
            log_format: str,
            **values: Any,
        ) -> Any:
            _set_up_logging(log_level, log_format)
            target = Target(path=app, overrides=overrides, settings=settings, skip_unsupported=skip_unsupported)
            return command(target=target, **values)

        decorated: Any = with_target
        for option in reversed((*_APPLICATION, log_level_option, _LOG_FORMAT)):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def _set_up_logging(level: str, log_format: str) -> None:
    handler = logging.StreamHandler()  # to stderr
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    handler.addFilter(RedactingFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":  # the drivers say in words what these say in their own
        for library in _LIBRARIES:
            logging.getLogger(library).setLevel(logging.CRITICAL)


def read_duration(_context: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Read a duration, in YAML's spelling or in seconds, as the callback of an option."""
    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        try:
            return float(value)
        except ValueError:
            raise click.BadParameter(str(error)) from None


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
