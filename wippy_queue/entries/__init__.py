"""An application's YAML to checked values.

`loader.py` finds the files, `yamlfile.py` reads one into `nodes.py` (values with places), `links.py` knows which
entries there are and where references lead, `build.py` makes them the classes of `kinds.py` with the reader of
`fields.py`.
"""

from __future__ import annotations

from wippy_queue.entries.kinds import (
    Actor,
    AwsConfigEntry,
    Condition,
    ConsumerEntry,
    DriverEntry,
    Entry,
    EnvStorageEntry,
    EnvVariableEntry,
    Lifecycle,
    LuaFunctionEntry,
    LuaLibraryEntry,
    Policy,
    PolicyEntry,
    PythonFunctionEntry,
    QueueEntry,
    Restart,
    Security,
    Service,
    StoreEntry,
)
from wippy_queue.entries.links import Unresolved
from wippy_queue.entries.loader import Application, dependencies, from_entries, load
from wippy_queue.entries.nodes import Place
from wippy_queue.entries.settings import LuaSettings, SecuritySettings, Settings, ShutdownSettings

__all__ = [
    "Actor",
    "Application",
    "AwsConfigEntry",
    "Condition",
    "ConsumerEntry",
    "DriverEntry",
    "Entry",
    "EnvStorageEntry",
    "EnvVariableEntry",
    "Lifecycle",
    "LuaFunctionEntry",
    "LuaLibraryEntry",
    "LuaSettings",
    "Place",
    "Policy",
    "PolicyEntry",
    "PythonFunctionEntry",
    "QueueEntry",
    "Restart",
    "Security",
    "SecuritySettings",
    "Service",
    "Settings",
    "ShutdownSettings",
    "StoreEntry",
    "Unresolved",
    "dependencies",
    "from_entries",
    "load",
]
