"""The module `logger`, and `print`."""

from __future__ import annotations

import logging

import pytest

from tests.unit.lua.support import call, make_delivery, make_function, make_worker

NAME = "wippy_queue.app.app:handler"


@pytest.mark.parametrize(
    ("level", "number"),
    [("debug", logging.DEBUG), ("info", logging.INFO), ("warn", logging.WARNING), ("error", logging.ERROR)],
)
@pytest.mark.parametrize("separator", [":", "."])
def test_the_levels_with_colon_and_dot(
    level: str, number: int, separator: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger=NAME):
        call(f"logger{separator}{level}('done %s', {{task = 't-1', n = 2, list = {{1, 2}}}})", modules=("logger",))
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == (NAME, number, "done %s")
    assert record.fields == {"task": "t-1", "n": 2, "list": [1, 2], "function": "app:handler"}  # type: ignore[attr-defined]


def test_inside_a_consumer_the_record_says_where(caplog: pytest.LogCaptureFixture) -> None:
    session = make_function(
        "local logger = require('logger') return function() logger.info('x') end", modules=("logger",)
    ).open(make_worker())
    with caplog.at_level(logging.INFO, logger=NAME):
        session.handle([make_delivery(id="m-9")])[0]
    assert caplog.records[0].fields == {  # type: ignore[attr-defined]
        "function": "app:handler", "consumer": "app:consumer", "queue": "app:tasks", "worker": 0, "message_id": "m-9",
    }  # fmt: skip


def test_with_and_named(caplog: pytest.LogCaptureFixture) -> None:
    body = """
    local child = logger:with({a = 1, b = 1}):named('import'):with({b = 2})
    child:info('x', {c = 3})
    logger.with({d = 4}).info('y')
    logger:info('z')
    local none, err = logger:named('')
    return err:kind()
    """
    with caplog.at_level(logging.INFO, logger=NAME):
        assert call(body, modules=("logger",)) == "Invalid"
    first, second, third = caplog.records
    assert first.name == f"{NAME}.import"
    assert first.fields == {"a": 1, "b": 2, "c": 3, "function": "app:handler"}  # type: ignore[attr-defined]
    assert third.fields == {"function": "app:handler"}  # type: ignore[attr-defined]
    assert second.getMessage() == "y"


def test_whatever_is_logged_arrives_as_text(caplog: pytest.LogCaptureFixture) -> None:
    body = """
    local loop = {} loop.loop = loop
    logger:info('a\\255b', {bad = '\\255', f = print, loop = loop, err = errors.new('boo'), ok = 1})
    logger:info(nil, errors.new('as fields'))
    logger:info(errors.new('as message'), {1, 2})
    logger:info('plain', 'text')
    """
    with caplog.at_level(logging.INFO, logger=NAME):
        call(body, modules=("logger",))
    first, second, third, fourth = caplog.records
    assert first.getMessage() == "a\ufffdb"
    fields = first.fields  # type: ignore[attr-defined]
    assert (fields["bad"], fields["err"], fields["ok"]) == ("\ufffd", "boo", 1)
    assert fields["f"].startswith("function")
    assert fields["loop"].startswith("table")
    assert (second.getMessage(), second.fields["value"]) == ("nil", "as fields")  # type: ignore[attr-defined]
    assert third.getMessage() == "as message"
    assert fourth.fields["value"] == "text"  # type: ignore[attr-defined]


def test_levels_are_followed_from_message_to_message(caplog: pytest.LogCaptureFixture) -> None:
    text = "local logger = require('logger') return function() for i = 1, 3 do logger:debug('x') end end"
    session = make_function(text, modules=("logger",)).open(make_worker())
    for level, expected in ((logging.INFO, 0), (logging.DEBUG, 3), (logging.INFO, 3)):
        with caplog.at_level(level, logger=NAME):
            session.handle([make_delivery()])[0]
        assert len(caplog.records) == expected


def test_print_logs_at_info(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger=NAME):
        call("print('a', 1, nil, errors.new('e'))")
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.INFO, "a\t1\tnil\te")
