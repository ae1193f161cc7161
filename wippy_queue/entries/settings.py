"""Settings of the engine: `wippy.yaml` beside the application, and over it what Python gives."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from wippy_queue.entries import wippy
from wippy_queue.entries.fields import Reader
from wippy_queue.entries.nodes import Node, Where, describe, put
from wippy_queue.errors import Problem
from wippy_queue.options import duration, whole
from wippy_queue.suggest import did_you_mean


@attrs.frozen(kw_only=True)
class SecuritySettings:
    """``security``"""

    strict_mode: bool = False


@attrs.frozen(kw_only=True)
class LuaSettings:
    """``lua``"""

    hook_mode: Literal["async", "count", "off"] = "async"  # how a handler's time limit is enforced
    recycle_after: int = whole(0)  # calls of a runtime until it is replaced; 0: never
    max_stuck_workers: int = whole(10)


@attrs.frozen(kw_only=True)
class ShutdownSettings:
    """``shutdown``"""

    timeout: float | None = duration(None)  # seconds for the whole stop; None: each service has its own


@attrs.frozen(kw_only=True)
class Settings:
    """What holds for the whole engine."""

    security: SecuritySettings = attrs.field(factory=SecuritySettings)
    lua: LuaSettings = attrs.field(factory=LuaSettings)
    shutdown: ShutdownSettings = attrs.field(factory=ShutdownSettings)


def read_settings(layers: list[tuple[Node, bool]], reader: Reader, warnings: list[Problem]) -> Settings:
    """Return the settings; a later layer wins over an earlier one.

    Args:
        layers: mappings, nested or with dotted keys; and whether what they have and we do not is only a warning.
        reader: takes the problems.
        warnings: takes the warnings.
    """
    merged = Node({}, layers[0][0].place) if layers else None
    for layer, lenient in layers:
        if not isinstance(layer.value, dict):
            reader.note(f"expected a mapping of settings, found {describe(layer)}", Where(), layer.place)
            continue
        for path, node in _flat(layer):
            section, _, name = path.partition(".")
            cls = _SECTIONS.get(section)
            known = cls is not None and (not name or name in reader.fields_of(cls))
            close = did_you_mean(section, _SECTIONS) if cls is None else did_you_mean(name, reader.fields_of(cls))
            if lenient and not known and not close:
                warning = Where(path=path).problem("this setting has no meaning here; skipped", node.key or node.place)
                warnings.append(warning)
            elif not known and section in wippy.SETTINGS:
                message = "exists in Wippy but not here; remove it, or load with skip_unsupported"
                reader.note(message, Where(path=path), node.key or node.place)
            elif merged is not None:
                put(merged, path, node)
    read: Any = reader.read(Settings, merged, Where()) if merged is not None else Settings()
    return read if isinstance(read, Settings) else Settings()


def _flat(layer: Node) -> list[tuple[str, Node]]:
    """Return dotted paths of two steps, where there are as many, and what stands there."""
    flat: list[tuple[str, Node]] = []
    for key, node in layer.value.items():
        if "." not in key and key in _SECTIONS and isinstance(node.value, dict):
            flat += [(f"{key}.{name}", child) for name, child in node.value.items()]
        elif node.value is not None or key not in _SECTIONS:
            flat.append((key, node))
    return flat


_SECTIONS: dict[str, type] = {
    "security": SecuritySettings,
    "lua": LuaSettings,
    "shutdown": ShutdownSettings,
}
