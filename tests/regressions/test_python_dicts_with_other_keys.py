"""A dict whose keys are no text ended in `attempt to index a nil value`, and in errors that were bare text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from wippy_queue import Engine, Invalid

LUA = """
local tool, funcs = require("tool"), require("funcs")
return function(how)
  local value, err
  if how == "module" then value, err = tool.totals() else value, err = funcs.call("app:totals") end
  return {tostring(value), type(err), err:kind(), err:message()}
end
"""


def totals() -> dict[Any, Any]:
    return {2024: 1}


@pytest.fixture
def engine() -> Iterator[Engine]:
    handler = {"name": "handler", "kind": "function.lua", "source": LUA, "modules": ["tool", "funcs"]}
    engine = Engine.from_entries([handler], namespace="app")
    engine.module("tool", {"totals": totals})
    engine.function("app:totals")(totals)
    with engine:
        yield engine


def test_an_argument_that_lua_has_no_form_for_is_invalid(engine: Engine) -> None:
    with pytest.raises(Invalid, match="argument 1: keys must be text, found 2024"):
        engine.call("app:handler", {2024: 1})
    assert engine.call("app:handler", "module")  # the runtime lives on


@pytest.mark.parametrize("how", ["module", "function"])
def test_a_result_that_lua_has_no_form_for_is_an_error_value(engine: Engine, how: str) -> None:
    value, kind_of_error, kind, message = engine.call("app:handler", how)
    assert (value, kind_of_error, kind) == ("nil", "userdata", "Internal")
    assert "totals: the result: " in message
