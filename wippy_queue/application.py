"""An application's YAML, checked against the drivers and Lua modules that this version has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from wippy_queue import entries
from wippy_queue.drivers import DRIVER_KINDS
from wippy_queue.lua.host import Chunks
from wippy_queue.lua.modules import NAMES as LUA_MODULES


def read_application(
    *paths: str | os.PathLike[str],
    settings: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    skip_unsupported: bool = False,
) -> entries.Application:
    """Return what `Engine.load`, which explains the arguments, makes an engine of.

    Raises:
        ConfigurationError: there are mistakes; all of them are in it.
    """
    return entries.load(
        paths,
        driver_kinds=DRIVER_KINDS,
        settings=settings,
        overrides=overrides,
        skip_unsupported=skip_unsupported,
        known_modules=LUA_MODULES,
        check_lua=Chunks().check,
    )
