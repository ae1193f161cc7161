"""The scripts of `lua/`, ready to be sent."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Final

import attrs

_FOLDER: Final = Path(__file__).with_name("lua")

NAMES: Final = (
    "publish",
    "claim",
    "settle",
    "leave",
    "beat",
    "tend",
    "drop",
    "dropped",
    "purge",
    "peek",
    "info",
)

# What the scripts answer first.
LOST: Final = -1  # the owner is no owner any more
STALE: Final = -2  # an older claim that comes late
DONE: Final = 0
FULL: Final = -3


@attrs.frozen
class Script:
    name: str
    source: str
    sha: str


@functools.cache
def load(*, cluster: bool) -> dict[str, Script]:
    """Return the scripts by name."""
    prelude = (_FOLDER / "prelude.lua").read_text(encoding="utf-8")
    scripts = {}
    for name in NAMES:
        # Without the flag a script that may write does not start when the memory is full. Consuming must go on then:
        # a claim that fails halfway would lose messages, and an ack makes room. Only publishing is refused.
        flags = "" if name == "publish" else " flags=allow-oom"
        body = (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")
        source = f"#!lua{flags}\nlocal BROADCAST = {'true' if cluster else 'false'}\n{prelude}\n{body}"
        scripts[name] = Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())
    return scripts
