"""The modules that Lua code may require: `x.lua`, and `x.py` with `functions(context)` where it needs Python.

The Lua file gets `host`, the functions of the Python file as closures, and `lib`, the helpers of `bootstrap.lua`.
"""

from __future__ import annotations

from typing import Final

# Everything that an entry may list under `modules:`; a file that is not named here is a part of another module.
NAMES: Final = frozenset(
    {"base64", "ctx", "env", "errors", "funcs", "hash", "json", "logger", "queue", "security", "store", "time", "uuid"}
)

# Modules whose Python functions never wait, and such functions of others. Anything else may take its time; what follows
# from that: `Callbacks.wrap`.
QUICK: Final = frozenset(
    {
        "base64",
        "ctx",
        "env",
        "hash",
        "json",
        "security",
        "store",
        "uuid",
        "queue.encoding",
        "queue.headers",
        "queue.id",
        "queue.publish",  # sees to it itself, as the next one does
        "time.sleep",
    }
)
