"""The examples in README.md and in docs/ run, and say what the pages claim.

A fenced block may have a mark on the line above it, in an HTML comment:

- ``example: file=PATH``: the block is written to PATH.
- ``example: run``: the block is run by Python and must end with exit code 0.
- ``example: output``: what the block before has printed; ``...`` stands for anything.
- ``example: console``: each line after ``$`` is run; what follows is its output.
- ``example: console exit=1``: the same, and the last command ends with that exit code.

The blocks of one page share a folder, in order. Unmarked blocks of Python, YAML and JSON must parse.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import yaml

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(
    r"(?:^<!-- example: (?P<mark>[^\n]*?) -->\n+)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\]\((?P<target>[^)#\s]+)(?:#[^)]*)?\)")


@attrs.frozen(kw_only=True)
class Block:
    language: str
    text: str
    mark: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    source = page.read_text(encoding="utf-8")
    return [
        Block(
            language=found["language"],
            text=found["text"],
            mark=found["mark"] or "",
            line=source.count("\n", 0, found.start()) + 1,
        )
        for found in _BLOCK.finditer(source)
    ]


def _page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _run(command: list[str], folder: Path, *, stderr: int = subprocess.STDOUT) -> subprocess.CompletedProcess[str]:
    # Wide, so that nothing is folded; no colours; the package of this checkout.
    env = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    return subprocess.run(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=100, check=False
    )


def _argv(command: str) -> list[str]:
    program, *arguments = shlex.split(command)
    if program == "wippy-queue":
        return [sys.executable, "-m", "wippy_queue", *arguments]
    if program == "python":
        return [sys.executable, *arguments]
    raise AssertionError(f"examples run wippy-queue or python, not {program!r}")


def assert_matches(expected: str, found: str, where: str) -> None:
    """``...`` in what is expected stands for anything, line breaks included."""
    pattern = ".*".join(re.escape(part) for part in expected.strip().split("..."))
    assert re.fullmatch(pattern, found.strip(), re.DOTALL), f"{where}: expected\n{expected}\nfound\n{found}"


def _run_console(block: Block, folder: Path, where: str) -> None:
    commands = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
    assert commands, f"{where}: no line starts with $"
    wanted = int(block.mark.partition("exit=")[2] or 0)
    for number, part in enumerate(commands, start=1):
        command, _, expected = part.partition("\n")
        done = _run(_argv(command), folder)
        code = wanted if number == len(commands) else 0
        assert done.returncode == code, f"{where}: {command}: exit {done.returncode}\n{done.stdout}"
        if expected.strip():
            assert_matches(expected, done.stdout, f"{where}: {command}")


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.mark for b in blocks_of(page))], ids=_page_id)
def test_the_marked_examples_of_a_page_run(page: Path, tmp_path: Path) -> None:
    output = None
    for block in blocks_of(page):
        where = f"{page.name} line {block.line}"
        kind = block.mark.partition(" ")[0]
        if block.mark.startswith("file="):
            target = tmp_path / block.mark.removeprefix("file=")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
        elif kind == "run":
            done = _run([sys.executable, "-c", block.text], tmp_path, stderr=subprocess.PIPE)
            assert done.returncode == 0, f"{where}:\n{done.stdout}{done.stderr}"
            output = done.stdout
        elif kind == "output":
            assert output is not None, f"{where}: nothing has run before"
            assert_matches(block.text, output, where)
        elif kind == "console":
            _run_console(block, tmp_path, where)
        else:
            assert not kind, f"{where}: unknown mark {block.mark!r}"


@pytest.mark.parametrize("page", PAGES, ids=_page_id)
def test_the_unmarked_examples_of_a_page_parse(page: Path) -> None:
    for block in blocks_of(page):
        if block.language == "python":
            ast.parse(block.text, filename=f"{page.name} line {block.line}")
        elif block.language == "yaml":
            yaml.safe_load(block.text)
        elif block.language == "json":
            json.loads(block.text)


@pytest.mark.parametrize("page", PAGES, ids=_page_id)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    targets = [found["target"] for found in _LINK.finditer(page.read_text(encoding="utf-8"))]
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []
