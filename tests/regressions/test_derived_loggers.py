"""A logger that `with` or `named` gave lost its fields and its name when it was called with a dot."""

from __future__ import annotations

import pytest

from tests.unit.lua.support import call


@pytest.mark.parametrize("dot", ['log.warn("slow", {took = 3})', 'log:warn("slow", {took = 3})'])
def test_a_derived_logger_keeps_what_it_carries_with_a_dot(dot: str, caplog: pytest.LogCaptureFixture) -> None:
    call(f'local log = logger.named("mail").with({{shop = 7}})\n{dot}', modules=("logger",))
    (record,) = caplog.records
    assert record.name == "wippy_queue.app.app:handler.mail"
    fields = vars(record)["fields"]
    assert (fields["shop"], fields["took"]) == (7, 3)


def test_deriving_with_a_dot_starts_from_the_logger_itself(caplog: pytest.LogCaptureFixture) -> None:
    call('local log = logger:with({a = 1})\nlog.with({b = 2}).error("x")', modules=("logger",))
    (record,) = caplog.records
    fields = vars(record)["fields"]
    assert (fields["a"], fields["b"]) == (1, 2)


@pytest.mark.parametrize("logger", ["logger", "logger:with({a = 1})"])
def test_no_method_of_a_logger_can_be_replaced(logger: str) -> None:
    body = f"""
    local log = {logger}
    local info = log.info
    return {{pcall(function() log.info = print end), pcall(rawset, log, 'info', print), info == log.info}}
    """
    assert call(body, modules=("logger",)) == [False, False, True]
