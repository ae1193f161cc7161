"""Attacks and normal messages mixed, over eight threads, for a minute: `make soak`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_CHILD = Path(__file__).parent / "stress.py"
_SECONDS = 60


@pytest.mark.soak
@pytest.mark.parametrize("mode", ["async", "count"])
def test_attacks_among_normal_messages_for_a_minute(mode: str) -> None:
    process = subprocess.run(
        [sys.executable, _CHILD, mode, str(_SECONDS)],
        capture_output=True,
        text=True,
        timeout=_SECONDS + 60,
        check=False,
        env=os.environ | {"PYTHONPATH": str(_CHILD.parents[2])},
    )
    assert process.returncode == 0, process.stderr
    books = json.loads(process.stdout.splitlines()[-1])
    print(books)
    assert books["wrong"] == []
    assert books["lost"] == []
    assert books["died"] == []
    assert books["late"] < books["normal"] / 20, "kills hit those that they were not meant for"
    assert books["stuck"] < books["attacks"] / 100
    assert books["attacks"] > 0
    assert books["memory"] < 700 << 20
