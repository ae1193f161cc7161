"""Passwords do not get into what people read."""

from __future__ import annotations

import time

import pytest

from wippy_queue.redact import redact, redact_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://guest:guest@localhost:5672/", "amqp://guest:***@localhost:5672/"),
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("amqps://u:p%40ss@h/vhost?heartbeat=20", "amqps://u:***@h/vhost?heartbeat=20"),
        ("amqp://u:p@ss@host", "amqp://u:***@host"),
        ("amqp://u:pa/ss@host/v", "amqp://u:***@host/v"),
        ("amqp://u:p:q?r#s@host", "amqp://u:***@host"),
        ("redis://:12/34@host", "redis://:***@host"),
        ("amqp+ssl://u:p@[::1]:5671", "amqp+ssl://u:***@[::1]:5671"),
        ("redis://h/0?password=abc&db=1", "redis://h/0?password=***&db=1"),
        ("REDIS://U:P@H", "REDIS://U:***@H"),
    ],
)
def test_a_password_is_masked_and_the_rest_stays(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert redact_url(shown) == shown


@pytest.mark.parametrize(
    "url",
    [
        "amqp://localhost:5672/%2f",
        "redis://user@host:6379/0",
        "https://example.com:8443/a/b@c?d=e:f",
        "file:///var/lib/queue.db",
        "not a url: a@b",
        "",
    ],
)
def test_what_has_no_password_is_left_alone(url: str) -> None:
    assert redact_url(url) == url


def test_every_url_in_a_text_is_found() -> None:
    text = "cannot reach 'amqp://a:1@x' or amqp://b:2@y, nor redis://h:6379/0; ask ops@example.com"
    assert redact(text) == "cannot reach 'amqp://a:***@x' or amqp://b:***@y, nor redis://h:6379/0; ask ops@example.com"


def test_urls_without_a_space_between_them_are_all_masked() -> None:
    assert redact("amqp://a:1@x,amqp://b:2@y") == "amqp://a:***@x,amqp://b:***@y"


def test_a_long_text_takes_no_time() -> None:
    assert redact("a://b:" * 20_000).startswith("a://b:")


def test_no_text_makes_it_slow() -> None:
    """What handlers log passes here, with the interpreter lock held."""
    began = time.process_time()
    redact("a." * 100_000 + " ://")
    assert time.process_time() - began < 2
