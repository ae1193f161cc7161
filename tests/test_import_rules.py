"""The rules of the house: who may import whom, and what `import wippy_queue` may do."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

PACKAGE = Path(__file__).parents[1] / "wippy_queue"

# From the bottom up; a unit imports lower layers and itself, no other unit of its own layer from 3 on.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "ids", "clock", "durations", "suggest", "options", "patterns", "redact"),
    (
        "message",
        "queues",
        "delivery",
        "driver",
        "handler",
        "events",
        "codecs",
        "lifecycle",
        "store",
        "access",
        "environment",
    ),
    ("entries", "flow", "drivers", "lua", "handlers", "stores", "security", "supervision", "telemetry"),
    ("consumer", "deadletters", "moving", "application"),
    ("wiring",),
    ("engine",),
    ("bench", "testing"),
    ("cli",),
    ("__main__",),
)
LAYER_OF = {unit: number for number, units in enumerate(LAYERS, start=1) for unit in units}
FIRST_SEALED_LAYER = 3

# A library that only these places may import; the places are module prefixes below the package.
CONFINED = {  # the benchmark has a bare client of each library beside our driver
    "pika": ("drivers.amqp", "bench.client_amqp"),
    "redis": ("drivers.redis", "bench.client_redis"),
    "hiredis": ("drivers.redis",),
    "boto3": ("drivers.sqs", "bench.client_sqs"),
    "botocore": ("drivers.sqs", "bench.client_sqs"),
    "sqlite3": ("drivers.sqlite", "bench.client_sqlite"),
    "lupa": ("lua", "bench.baseline"),  # the bare baseline is bare
    "yaml": ("entries",),
    "click": ("cli", "bench"),
    "rich": ("cli", "bench"),
    "prometheus_client": ("telemetry",),
    "opentelemetry": ("telemetry",),
    "pytest": ("testing",),
    "matplotlib": ("bench",),
}


@attrs.frozen(kw_only=True)
class Import:
    module: str  # the importing one, relative to the package: "flow.worker"
    target: str  # absolute: "wippy_queue.errors", "pika.adapters"
    line: int

    def __str__(self) -> str:
        return f"wippy_queue.{self.module} line {self.line} imports {self.target}"


def _module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str, module: str, *, is_package: bool = False) -> Iterator[Import]:
    """Yield every import in ``source``, also those inside functions and ``if TYPE_CHECKING``."""
    package = ["wippy_queue", *module.split(".")] if module else ["wippy_queue"]
    if not is_package:
        package.pop()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(module=module, target=alias.name, line=node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, node.module] if node.module else base)
            if stem == "wippy_queue":  # the names may be modules
                yield from (
                    Import(module=module, target=f"{stem}.{alias.name}", line=node.lineno) for alias in node.names
                )
            else:
                yield Import(module=module, target=stem, line=node.lineno)


def all_imports() -> list[Import]:
    return [
        found
        for path in sorted(PACKAGE.rglob("*.py"))
        for found in imports_of(
            path.read_text(encoding="utf-8"), _module_name(path), is_package=path.name == "__init__.py"
        )
    ]


def layer_fault(found: Import) -> str | None:
    """Return why an import breaks the layers, or None."""
    unit = found.module.partition(".")[0]
    if not found.target.startswith("wippy_queue.") or unit == "":  # the root only gathers the public names
        return None
    target = found.target.split(".")[1]
    mine, theirs = LAYER_OF.get(unit), LAYER_OF.get(target)
    if mine is None:
        return f"{found}: {unit} is in no layer; add it to LAYERS and to design/architecture.md"
    if theirs is None or target == unit:  # a public name of the root, or the unit itself
        if theirs is None and mine <= LAYER_OF["engine"]:
            return f"{found}: only layer 6 imports from the root; name the module"
        return None
    if theirs > mine:
        return f"{found}: layer {mine} must not know layer {theirs}"
    if theirs == mine >= FIRST_SEALED_LAYER:
        return f"{found}: packages of layer {mine} never import each other"
    return None


def confinement_fault(found: Import) -> str | None:
    """Return which library is used outside the place that it is confined to, or None."""
    places = CONFINED.get(found.target.partition(".")[0])
    if places is None or any(found.module == place or found.module.startswith(f"{place}.") for place in places):
        return None
    return f"{found}: only {' and '.join(places)} may"


def test_every_module_imports_lower_layers_only() -> None:
    assert [fault for fault in map(layer_fault, all_imports()) if fault] == []


def test_libraries_stay_in_the_one_place_that_needs_them() -> None:
    assert [fault for fault in map(confinement_fault, all_imports()) if fault] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("errors", "from wippy_queue.message import Message"),
        ("flow.worker", "from wippy_queue.lua import runtime"),
        ("flow.worker", "from wippy_queue import engine"),
        ("flow.worker", "from ..lua.runtime import Runtime"),
        ("drivers.memory", "def f():\n    import wippy_queue.engine"),
        ("entries.loader", "from wippy_queue import Engine"),
        ("brand_new", "import wippy_queue.errors"),
    ],
)
def test_the_layer_rule_sees_a_breach(module: str, source: str) -> None:
    assert [fault for fault in map(layer_fault, imports_of(source, module)) if fault]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("flow.worker", "import lupa"),
        ("flow.worker", "from yaml import safe_load"),
        ("engine", "import click"),
        ("engine", "from rich.console import Console"),
        ("drivers.redis", "import pika"),
        ("drivers.amqp_like", "import pika.adapters"),
    ],
)
def test_the_library_rule_sees_a_breach(module: str, source: str) -> None:
    assert [fault for fault in map(confinement_fault, imports_of(source, module)) if fault]


def test_relative_imports_inside_a_package_are_its_own() -> None:
    (found,) = imports_of("from .feeder import Feeder", "flow", is_package=True)
    assert found.target == "wippy_queue.flow.feeder"
    assert layer_fault(found) is None


def _child(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_starts_no_thread() -> None:
    assert _child("import threading, wippy_queue; print(threading.active_count())").strip() == "1"


def test_importing_the_package_loads_nothing_that_only_some_need() -> None:
    """Lua is what every engine needs; YAML, the brokers and the command line are not."""
    libraries = sorted(CONFINED.keys() - {"lupa"})
    loaded = _child(f"import sys, wippy_queue; print([name for name in {libraries!r} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_importing_the_package_leaves_logging_and_signals_alone() -> None:
    code = (
        "import logging, signal; before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]\n"
        "import wippy_queue\n"
        "assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before\n"
        "assert not logging.getLogger().handlers and not logging.getLogger('wippy_queue').handlers"
    )
    _child(code)
