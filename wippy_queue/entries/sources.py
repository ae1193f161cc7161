"""The files that ``source: file://...`` names."""

from __future__ import annotations

import os
from pathlib import Path

from wippy_queue.entries.kinds import LuaSource
from wippy_queue.suggest import did_you_mean


def read_source(name: str, folder: Path, root: Path) -> tuple[str, LuaSource | None]:
    """Return the text of a file of the application; else what is wrong with it."""
    try:
        path = folder / name
        real = path.resolve()
        if not real.is_relative_to(root.resolve()):
            return "the file lies outside the application's folder; move it inside", None
        if not real.exists():
            beside = path.parent.iterdir() if path.parent.is_dir() else ()
            close = did_you_mean(path.name, [file.name for file in beside if file.is_file()])
            return f"there is no such file{close or f' in {os.fspath(path.parent)}'}", None
        if not real.is_file():
            return "expected a file, found a folder or a device", None
        text = real.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return f"expected UTF-8, found the byte 0x{error.object[error.start]:02x}; save the file as UTF-8", None
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL in the name; RuntimeError: a loop of links
        return f"the file cannot be read: {getattr(error, 'strerror', None) or error}", None
    # Lua cuts the names of chunks at 60 characters, so traces show the path inside the application.
    return (
        ("", LuaSource(text, os.fspath(real.relative_to(root.resolve()))))
        if text.strip()
        else ("the file is empty", None)
    )
