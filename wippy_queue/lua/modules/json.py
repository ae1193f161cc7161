"""The part of the Lua module `json` that needs Python: patterns in schemas."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from wippy_queue.errors import Invalid, Timeout
from wippy_queue.lua.convert import text
from wippy_queue.lua.host import CallContext
from wippy_queue.patterns import Pattern

_MAX_CACHED: Final = 32  # patterns of a runtime; each may remember some megabytes


def functions(context: CallContext) -> dict[str, Callable[[bytes, bytes], bool]]:
    compiled = functools.lru_cache(maxsize=_MAX_CACHED)(Pattern)

    def matches(pattern: bytes, subject: bytes) -> bool:
        """Return whether a pattern matches anywhere in a text."""
        try:
            return compiled(text(pattern)).search(text(subject), context.deadline)
        except TimeoutError as error:
            raise Timeout(str(error)) from error
        except ValueError as error:
            raise Invalid(str(error)) from error

    return {"matches": matches}
