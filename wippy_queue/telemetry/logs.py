"""How log records are written, for programs that set up logging: the command line does, the library never.

Log calls of this package pass a constant sentence and ``extra={"fields": {...}}``.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from wippy_queue.redact import redact

_DEEPEST: Final = 8  # levels of a field's value; what lies below is written as text


def fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """Return the fields that the log call passed."""
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, Mapping) else {}


class TextFormatter(logging.Formatter):
    """One line for people; a traceback follows on lines of its own.

    ``2026-11-24T03:51:02.123Z INFO  wippy_queue.consumer  message  key=value key2="with space"``
    """

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_timestamp(record)} {record.levelname:<5} {record.name}  {_one_line(_message(record))}"
        fields = " ".join(f"{key}={_shown(_plain(value))}" for key, value in fields_of(record).items())
        if fields:
            line = f"{line}  {fields}"
        trace = _trace(self, record)
        return f"{line}\n{trace}" if trace else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: timestamp, level, logger, message, then fields and exception where there are any."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "timestamp": _timestamp(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _plain(_message(record)),
        }
        fields = fields_of(record)
        if fields:
            entry["fields"] = _plain(fields)
        trace = _trace(self, record)
        if trace:
            entry["exception"] = _plain(trace)
        return json.dumps(entry, ensure_ascii=False, separators=(",", ":"))


class RedactingFilter(logging.Filter):
    """Masks the passwords of URLs in messages, fields and tracebacks. It belongs on a handler, so that it sees all."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(_message(record)), None
        fields = fields_of(record)
        if fields:
            record.__dict__["fields"] = _redacted(fields, _DEEPEST)
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)  # what formatters take in place of exc_info
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True


def _timestamp(record: logging.LogRecord) -> str:
    return f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # the arguments do not fit: a filter must not raise into the log call
        return f"{record.msg} {record.args}"


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    text = record.exc_text
    if not text and record.exc_info:
        text = formatter.formatException(record.exc_info)
    if record.stack_info:
        text = f"{text}\n{record.stack_info}" if text else record.stack_info
    return text or ""


def _redacted(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, (bool, int, float, bytes)):
        return value
    if depth and isinstance(value, Mapping):
        return {key: _redacted(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, (list, tuple, set, frozenset)):
        return [_redacted(item, depth - 1) for item in value]
    return redact(str(value))


def _plain(value: Any, depth: int = _DEEPEST) -> Any:
    """Return the value as JSON can hold it; a log line must not fail for what is in it."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if depth and isinstance(value, Mapping):
        return {_plain(str(key)): _plain(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, depth - 1) for item in value]
    return str(value).encode("utf-8", "backslashreplace").decode()


def _shown(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    bare = value and value.isprintable() and not any(character in " \"'=" for character in value)
    return value if bare else json.dumps(value, ensure_ascii=False)


def _one_line(text: str) -> str:
    """Return the text without what would let it pose as another line of the log."""
    return text if text.isprintable() else json.dumps(_plain(text), ensure_ascii=False)[1:-1]
