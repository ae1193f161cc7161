"""Durations as text."""

from __future__ import annotations

import pytest

from wippy_queue.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("500ms", 0.5),
        ("10s", 10.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("2us", 2e-6),
        ("2µs", 2e-6),
        ("7ns", 7e-9),
        ("1m0.5s", 60.5),
    ],
)
def test_what_go_writes_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "10 s", " 10s", "-1s", "1d", "10s!", "1e3s", ".5s", "٣s", "1h 30m"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration like 500ms, 10s or 1h30m"):
        parse_duration(text)
