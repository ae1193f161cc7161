"""Log records as lines: what people read, what programs read, what nobody should read."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from wippy_queue.telemetry.logs import JsonFormatter, RedactingFilter, TextFormatter

CREATED = 1795492262.123456  # 2026-11-24T03:51:02.123Z


def make_record(
    message: str = "a message was handled", *args: object, level: int = logging.INFO, error: bool = False, **extra: Any
) -> logging.LogRecord:
    exc_info = None
    if error:
        try:
            raise ValueError("cannot reach amqp://guest:s3cret@host")
        except ValueError:
            exc_info = sys.exc_info()
    record = logging.LogRecord("wippy_queue.consumer", level, __file__, 1, message, args, exc_info)
    record.created, record.msecs = CREATED, 123.456
    record.__dict__.update(extra)
    return record


class TestText:
    def test_a_line_is_time_level_logger_message_fields(self) -> None:
        record = make_record(fields={"key": "value", "key2": "with space", "n": 3, "ok": True, "none": None})
        assert TextFormatter().format(record) == (
            "2026-11-24T03:51:02.123Z INFO  wippy_queue.consumer  a message was handled"
            '  key=value key2="with space" n=3 ok=true none=null'
        )

    def test_without_fields_the_line_ends_with_the_message(self) -> None:
        line = TextFormatter().format(make_record("took %d ms", 5, level=logging.WARNING))
        assert line == "2026-11-24T03:51:02.123Z WARNING wippy_queue.consumer  took 5 ms"

    @pytest.mark.parametrize(
        ("value", "shown"),
        [("", '""'), ('a"b', '"a\\"b"'), ("a=b", '"a=b"'), ("a\nb", '"a\\nb"'), ([1, "x"], '[1,"x"]'), ("é", "é")],
    )
    def test_a_value_can_be_told_from_the_next_field(self, value: object, shown: str) -> None:
        assert TextFormatter().format(make_record("m", fields={"k": value})).endswith(f"  k={shown}")

    def test_a_message_cannot_pose_as_another_line(self) -> None:
        line = TextFormatter().format(make_record("a\n2026-11-24T03:51:02.123Z INFO  forged"))
        assert "\n" not in line

    def test_a_traceback_follows(self) -> None:
        lines = TextFormatter().format(make_record(error=True)).splitlines()
        assert lines[1].startswith("Traceback")
        assert lines[-1].startswith("ValueError")


class TestJson:
    def test_a_line_is_one_object_in_this_order(self) -> None:
        line = JsonFormatter().format(make_record(fields={"message_id": "m-1", "attempts": 2}, error=True))
        assert "\n" not in line
        entry = json.loads(line)
        assert list(entry) == ["timestamp", "level", "logger", "message", "fields", "exception"]
        assert entry["timestamp"] == "2026-11-24T03:51:02.123Z"
        assert entry["level"] == "INFO"
        assert entry["logger"] == "wippy_queue.consumer"
        assert entry["message"] == "a message was handled"
        assert entry["fields"] == {"message_id": "m-1", "attempts": 2}
        assert "ValueError" in entry["exception"]

    def test_what_is_not_there_is_left_out(self) -> None:
        assert list(json.loads(JsonFormatter().format(make_record()))) == ["timestamp", "level", "logger", "message"]

    def test_a_field_of_any_kind_is_written_somehow(self) -> None:
        cycle: dict[str, Any] = {}
        cycle["again"] = cycle
        fields = {
            "nan": float("nan"),
            "bytes": b"\xff\x00a",
            "surrogate": "\udcff",
            "object": ValueError("x"),
            5: {1},
            "cycle": cycle,
        }
        found = json.loads(JsonFormatter().format(make_record(fields=fields)))["fields"]
        assert found["nan"] == "nan"
        assert found["bytes"] == "\\xff\x00a"
        assert found["surrogate"] == "\\udcff"
        assert found["object"] == "x"
        assert found["5"] == [1]
        assert "again" in found["cycle"]

    def test_arguments_that_do_not_fit_do_not_lose_the_record(self) -> None:
        assert json.loads(JsonFormatter().format(make_record("%d apples", "no")))["message"] == "%d apples ('no',)"


class TestRedacting:
    @pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
    def test_no_password_is_left_anywhere(self, formatter: logging.Formatter) -> None:
        url = "amqp://guest:s3cret@host"
        record = make_record(
            "connecting to %s",
            url,
            error=True,
            fields={"url": url, "nested": [{"urls": (url,)}], "error": ValueError(url), "n": 1},
            stack_info=f"Stack (most recent call last):\n  {url}",
        )
        assert RedactingFilter().filter(record) is True
        line = formatter.format(record)
        assert "s3cret" not in line
        assert line.count("amqp://guest:***@host") >= 6  # message, three fields, exception, stack

    def test_what_is_no_secret_stays_as_it_was(self) -> None:
        record = make_record("took %d ms", 5, fields={"n": 1, "b": b"x", "list": [1.5, None]})
        RedactingFilter().filter(record)
        assert record.getMessage() == "took 5 ms"
        assert record.__dict__["fields"] == {"n": 1, "b": b"x", "list": [1.5, None]}

    def test_it_works_on_a_handler(self, capsys: pytest.CaptureFixture[str]) -> None:
        handler = logging.StreamHandler(sys.stderr)
        handler.addFilter(RedactingFilter())
        handler.setFormatter(JsonFormatter())
        handler.handle(make_record("cannot connect", fields={"url": "redis://:pw@h"}))
        assert json.loads(capsys.readouterr().err)["fields"] == {"url": "redis://:***@h"}
