"""``check`` finds what only shows when Lua is loaded: a chunk that gives no handler, or the wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from wippy_queue.cli import cli

ENTRIES = """\
version: "1.0"
namespace: app
entries:
  - {name: cache, kind: store.memory}
  - {name: resize, kind: function.python, source: "os:abort"}
  - name: handler
    kind: function.lua
    source: file://handler.lua
    modules: [store, queue, funcs, FURTHER]
    METHOD
"""


def check(folder: Path, lua: str, *options: str, method: str = "", further: str = "json") -> Result:
    entries = ENTRIES.replace("METHOD", f"method: {method}" if method else "").replace("FURTHER", further)
    (folder / "_index.yaml").write_text(entries, encoding="utf-8")
    (folder / "handler.lua").write_text(lua, encoding="utf-8")
    result = CliRunner().invoke(cli, ["check", str(folder), "--json", *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def found(result: Result, what: str) -> list[tuple[Any, Any, Any]]:
    return [(problem["entry"], problem["line"], problem["message"]) for problem in json.loads(result.stdout)[what]]


@pytest.mark.parametrize(
    ("lua", "method", "message"),
    [
        ("return {main = print}", "mian", "handler.lua:1: the table that the chunk returns has no function 'mian'"),
        ("local x = 1\n", "", "handler.lua:1: expected the chunk to return a function"),
        ("return {main = print}", "", "handler.lua:1: the chunk returns a table, so the entry must name"),
        ("\nlocal t = require('time')\nreturn print", "", "handler.lua:2: module 'time' is not declared"),
        ("local t\n\nreturn t.x", "", "handler.lua:3: attempt to index a nil value"),
    ],
)
def test_a_chunk_without_its_handler_is_a_mistake(tmp_path: Path, lua: str, method: str, message: str) -> None:
    result = check(tmp_path, lua, method=method)
    assert result.exit_code == 1
    ((entry, line, text),) = found(result, "problems")
    assert (entry, line) == ("app:handler", 6)
    assert text.startswith(message)


def test_with_skip_unsupported_it_is_a_warning(tmp_path: Path) -> None:
    result = check(tmp_path, "return 5", "--skip-unsupported")
    assert result.exit_code == 0, result.output
    assert "returns a number" in found(result, "warnings")[0][2]


def test_what_needs_a_running_application_is_no_mistake(tmp_path: Path) -> None:
    """Nor does anything happen: a function in Python is not called, nothing is published."""
    lua = """
    local store = assert(require("store").get("app:cache"))
    require("funcs").call("app:resize")
    assert(require("queue").publish("app:tasks", {n = 1}))
    return print
    """
    result = check(tmp_path, lua)
    assert (result.exit_code, found(result, "problems")) == (0, []), result.output


def test_a_function_that_needs_a_module_of_python_is_left_out(tmp_path: Path) -> None:
    lua = 'local mail = require("mail")\nmail.send("hello")\nreturn print'
    result = check(tmp_path, lua, further="mail")
    assert (result.exit_code, found(result, "problems")) == (0, []), result.output
    assert "mail" in found(result, "warnings")[0][2]
