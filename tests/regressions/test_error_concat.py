"""`err .. nil` blamed the line `?:-1`, which nobody can find."""

from __future__ import annotations

import pytest

from tests.unit.lua.support import call
from wippy_queue.errors import WippyQueueError


@pytest.mark.parametrize(
    ("expression", "kind"),
    [("err .. nil", "nil"), ("nil .. err", "nil"), ("err .. {}", "table"), ("true .. err", "boolean")],
)
def test_what_cannot_be_joined_to_an_error_is_told_with_its_line(expression: str, kind: str) -> None:
    with pytest.raises(WippyQueueError, match=rf"^handler\.lua:3: attempt to concatenate a {kind} value"):
        call(f"local err = errors.new('m')\nlocal text = {expression}\nreturn text")


def test_what_can_be_joined_is() -> None:
    body = """
    local err, odd = errors.new('m'), setmetatable({}, {__concat = function() return 'odd' end})
    return {err .. 1, 1 .. err, err .. 'x', 'x' .. err, err .. err, err .. odd, odd .. err}
    """
    assert call(body) == ["m1", "1m", "mx", "xm", "mm", "odd", "odd"]
