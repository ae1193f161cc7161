"""Files, folders and Python values to an application."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from wippy_queue.driver import DriverKind
from wippy_queue.entries import links
from wippy_queue.entries.build import Builder
from wippy_queue.entries.kinds import Entry, LuaLibraryEntry
from wippy_queue.entries.links import Declared, Unresolved
from wippy_queue.entries.nodes import NOWHERE, Node, Place, Where, describe, from_python, put
from wippy_queue.entries.settings import Settings, read_settings
from wippy_queue.errors import ConfigurationError, Invalid, Problem
from wippy_queue.ids import EntryId
from wippy_queue.suggest import did_you_mean

INDEX: Final = "_index.yaml"
SETTINGS: Final = "wippy.yaml"
_FIELDS: Final = ("version", "namespace", "entries", "meta")  # of a file
_OVERRIDES: Final = Place("<overrides>")
_SETTINGS: Final = Place("<settings>")

_log = logging.getLogger("wippy_queue.entries")


CheckLua = Callable[[str, str], str | None]


@attrs.frozen(kw_only=True)
class Application:
    """Everything that was declared, checked and linked."""

    entries: Mapping[EntryId, Entry]
    settings: Settings = attrs.field(factory=Settings)
    warnings: tuple[Problem, ...] = ()
    unresolved: tuple[Unresolved, ...] = ()  # names that must be registered in Python before the start


def load(
    paths: Sequence[str | os.PathLike[str]],
    *,
    driver_kinds: Mapping[str, DriverKind],
    settings: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    skip_unsupported: bool = False,
    known_modules: Collection[str],
    python_names: Collection[str] = (),
    check_lua: CheckLua | None = None,
) -> Application:
    """Return the application in these folders and files.

    Args:
        paths: folders, in whose trees every ``_index.yaml`` is read, and YAML files.
        driver_kinds: the drivers that exist, by kind.
        settings: nested or with dotted keys; wins over ``wippy.yaml``.
        overrides: ``{entry id: {field: value}}``, applied before anything is checked; ``lifecycle.auto_start`` is a
            field too.
        skip_unsupported: leave out, with a warning, what exists in Wippy but not here.
        known_modules: names of the Lua modules that exist.
        python_names: modules and functions that Python has registered already.
        check_lua: returns what is wrong with the text of a Lua source of that name, or None.

    Raises:
        ConfigurationError: with every mistake of the application.
    """
    if isinstance(paths, (str, os.PathLike)) or not paths:
        raise Invalid(f"expected a list with at least one folder or file, found {paths!r}")
    return _Loading(paths).finish(
        driver_kinds=driver_kinds,
        settings=settings,
        overrides=overrides,
        skip_unsupported=skip_unsupported,
        known_modules=known_modules,
        python_names=python_names,
        check_lua=check_lua,
    )


def from_entries(
    entries: Sequence[Mapping[str, Any]],
    *,
    namespace: str,
    base_dir: str | os.PathLike[str] = ".",
    driver_kinds: Mapping[str, DriverKind],
    settings: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    skip_unsupported: bool = False,
    known_modules: Collection[str],
    python_names: Collection[str] = (),
    check_lua: CheckLua | None = None,
) -> Application:
    """Return the application of these entries, each of them what it would be in YAML.

    Args:
        entries: mappings with ``name``, ``kind`` and the fields of the kind.
        namespace: of all the entries.
        base_dir: what ``source: file://...`` is relative to, and may not leave.

    The other arguments, and what is raised, are those of :func:`load`; no ``wippy.yaml`` is read.
    """
    if not isinstance(base_dir, (str, os.PathLike)):
        raise Invalid(f"base_dir: expected the path of a folder, found {base_dir!r}")
    given: Any = entries
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise Invalid(f"expected a list of entries, found {given!r}")
    loading = _Loading([])
    loading.add_entries(entries, namespace, Path(base_dir))
    return loading.finish(
        driver_kinds=driver_kinds,
        settings=settings,
        overrides=overrides,
        skip_unsupported=skip_unsupported,
        known_modules=known_modules,
        python_names=python_names,
        check_lua=check_lua,
    )


class _Loading:
    """One load: what was declared so far, and what is wrong with it."""

    def __init__(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        self._problems: list[Problem] = []
        self._declared: list[Declared] = []
        self._settings: list[Node] = []
        self._seen: set[Path] = set()
        for path in paths:
            if not isinstance(path, (str, os.PathLike)):
                raise Invalid(f"expected the path of a folder or file, found {path!r}")
            self._add_path(Path(path))

    def finish(
        self,
        *,
        driver_kinds: Mapping[str, DriverKind],
        settings: Mapping[str, Any] | None,
        overrides: Mapping[str, Mapping[str, Any]] | None,
        skip_unsupported: bool,
        known_modules: Collection[str],
        python_names: Collection[str],
        check_lua: CheckLua | None,
    ) -> Application:
        given: Any = overrides
        if given is not None and not isinstance(given, Mapping):
            self._note(f"expected a mapping of ids to fields, found {given!r}", Where(), _OVERRIDES)
            given = None
        for entry, fields in (given or {}).items():
            self._override(entry, fields)
        builder = Builder(
            self._declared,
            os.environ,
            driver_kinds=driver_kinds,
            known_modules=known_modules,
            python_names=python_names,
            skip_unsupported=skip_unsupported,
        )
        entries = builder.build()
        registry, reader = builder.registry, builder.reader
        links.note_cycles(entries, reader)
        if check_lua is not None and not skip_unsupported:  # else only the function itself fails, when it is called
            for unit in entries.values():
                if isinstance(unit, LuaLibraryEntry) and (fault := check_lua(unit.source, unit.source_name)):
                    reader.note(fault, Where(entry=unit.id, path="source"), unit.place)
        layers = [(node, skip_unsupported) for node in self._settings]
        if settings is not None and (node := self._from_python(settings, Where(path="settings"), _SETTINGS)):
            layers.append((node, False))
        read = read_settings(layers, reader, registry.warnings)
        problems = [*self._problems, *reader.problems]
        if problems:
            raise ConfigurationError(sorted(dict.fromkeys(problems), key=_in_order))
        for warning in registry.warnings:
            _log.warning("%s", warning, extra={"entry": warning.entry, "path": warning.path})
        return Application(
            entries=entries,
            settings=read,
            warnings=tuple(registry.warnings),
            unresolved=tuple(registry.unresolved),
        )

    def add_entries(self, entries: Sequence[Mapping[str, Any]], namespace: str, base: Path) -> None:
        """Take entries that were declared in Python."""
        if not self._is_namespace(namespace, Where(path="namespace"), NOWHERE):
            return
        for index, entry in enumerate(entries):
            where = Where(path=f"entries[{index}]", namespace=namespace)
            if node := self._from_python(entry, where, NOWHERE):
                self._declare(node, where, base, base)

    # Files

    def _add_path(self, path: Path) -> None:
        try:
            if path.is_dir():
                found = self._index_files(path)
                root = path
            elif path.is_file():
                found, root = [path], path.parent
            else:
                beside = path.parent.iterdir() if path.parent.is_dir() else ()
                close = did_you_mean(path.name, [other.name for other in beside])
                self._problem(f"there is no such file or folder{close or '; expected an application'}", path)
                return
        except OSError as error:
            self._problem(f"cannot be read: {error.strerror}", path)
            return
        for file in found:
            node = self._parse(file)
            if node is not None:
                self._read_file(node, file, root)
        for folder in (root, root.resolve().parent if root == path else None):  # in it, else beside it
            if folder is not None and (folder / SETTINGS).is_file():
                node = self._parse(folder / SETTINGS)
                if node is not None:
                    self._read_settings(node)
                break

    def _index_files(self, folder: Path) -> list[Path]:
        found: list[Path] = []
        other: list[str] = []
        for name, folders, files in os.walk(folder, onerror=self._walk_error):
            folders.sort()
            if INDEX in files:
                found.append(Path(name, INDEX))
            other += [
                os.fspath(Path(name, file)) for file in files if file.endswith((".yaml", ".yml")) and file != SETTINGS
            ]
        if not found:
            hint = f"; {other[0]} is not read, name it so" if other else "; an application is a folder with one"
            self._problem(f"there is no {INDEX} in this folder, nor below it{hint}", folder)
        return found

    def _walk_error(self, error: OSError) -> None:
        self._problem(f"cannot be read: {error.strerror}", Path(error.filename))

    def _parse(self, file: Path) -> Node | None:
        """Return the document in a file; None where it is broken, or was read before."""
        from wippy_queue.entries.yamlfile import parse  # an application in Python does without YAML

        try:
            real = file.resolve()
            if real in self._seen:
                return None
            self._seen.add(real)
            if not stat.S_ISREG(real.stat().st_mode):  # a read of a pipe might never end
                self._problem("is no file", file)
                return None
            data = file.read_bytes()
        except (OSError, RuntimeError) as error:
            self._problem(f"cannot be read: {getattr(error, 'strerror', None) or error}", file)
            return None
        return parse(data, os.fspath(file), self._problems, may_be_empty=file.name == SETTINGS)

    def _read_file(self, document: Node, file: Path, root: Path) -> None:
        if not isinstance(document.value, dict):
            message = f"expected a mapping with namespace and entries, found {describe(document)}"
            self._note(message, Where(), document.place)
            return
        fields = document.value
        for key, node in fields.items():
            if key not in _FIELDS:
                close = did_you_mean(key, _FIELDS) or f"; known are {', '.join(_FIELDS)}"
                self._note(f"unknown field {key!r}{close}", Where(path=key), node.key or node.place)
        self._check_version(document)
        namespace, entries = fields.get("namespace"), fields.get("entries")
        for name in ("namespace", "entries"):
            if name not in fields:
                self._note(f"the field {name!r} is required", Where(path=name), document.place)
        if namespace is not None and not self._is_namespace(
            namespace.value, Where(path="namespace"), namespace.place, describe(namespace)
        ):
            namespace = None
        if entries is None:
            return
        if not isinstance(entries.value, list):
            message = f"expected a list of entries, found {describe(entries)}"
            self._note(message, Where(path="entries"), entries.place)
            return
        # Without a namespace there are no ids; the entries are checked when it is there.
        for index, node in enumerate(entries.value if namespace is not None else ()):
            where = Where(path=f"entries[{index}]", namespace=namespace.value if namespace else None)
            self._declare(node, where, file.parent, root)

    def _read_settings(self, document: Node) -> None:
        if isinstance(document.value, dict):
            self._check_version(document)
            document.value.pop("version", None)
        self._settings.append(document)

    def _check_version(self, document: Node) -> None:
        version = document.value.get("version")
        if version is not None and (version.value is True or version.value not in ("1.0", 1.0)):
            self._note(f'expected the version "1.0", found {describe(version)}', Where(path="version"), version.place)

    # Entries

    def _declare(self, node: Node, where: Where, folder: Path, root: Path) -> None:
        if not isinstance(node.value, dict):
            self._note(f"expected a mapping with name and kind, found {describe(node)}", where, node.place)
            return
        name = node.value.get("name")
        if name is None or name.value is None:
            self._note("the field 'name' is required", where.child("name"), node.place)
            return
        try:
            if not isinstance(name.value, str) or ":" in name.value:
                raise Invalid("a name")
            entry = EntryId.parse(name.value, where.namespace)
        except Invalid:
            message = f"expected a name of letters, digits, '_', '-' and '.', found {describe(name)}"
            self._note(message, where.child("name"), name.place)
            return
        # In a file the place says which one it is; in Python only the index does.
        subject = Where(entry, where.path if node.place is NOWHERE else "", where.namespace)
        self._declared.append(Declared(id=entry, node=node, where=subject, folder=folder, root=root))

    def _override(self, entry: str, fields: Mapping[str, Any]) -> None:
        where = Where(entry=str(entry))
        targets = [item for item in self._declared if item.id == entry]
        if not targets:
            close = did_you_mean(str(entry), [item.id for item in self._declared])
            self._note(f"there is no entry {entry}{close}", where, _OVERRIDES)
            return
        node = self._from_python(fields, where, _OVERRIDES, loose=True)
        if node is None:
            return
        if not isinstance(node.value, dict):
            self._note(f"expected a mapping of fields, found {describe(node)}", where, _OVERRIDES)
            return
        for path, value in node.value.items():
            if path == "name":
                self._note("the name of an entry cannot be overridden", where.child(path), _OVERRIDES)
            elif not all(path.split(".")):
                self._note(f"expected a field like driver or lifecycle.auto_start, found {path!r}", where, _OVERRIDES)
            else:
                put(targets[0].node, path, value)

    def _from_python(self, value: Any, where: Where, place: Place, *, loose: bool = False) -> Node | None:
        try:
            return from_python(value, place, loose=loose)
        except ValueError as error:
            self._note(str(error), where, place)
            return None

    def _is_namespace(self, value: Any, where: Where, place: Place, found: str = "") -> bool:
        try:
            if isinstance(value, str) and ":" not in value:
                EntryId.parse(f"{value}:name")
                return True
        except Invalid:
            pass
        self._note(f"expected a namespace like app.queue, found {found or repr(value)}", where, place)
        return False

    def _note(self, message: str, where: Where, place: Place) -> None:
        self._problems.append(where.problem(message, place))

    def _problem(self, message: str, file: Path) -> None:
        self._problems.append(Problem(message, os.fspath(file)))


def _in_order(problem: Problem) -> tuple[str, int, int]:
    return (problem.file or "", problem.line or 0, problem.column or 0)


def dependencies(app: Application) -> dict[EntryId, tuple[EntryId, ...]]:
    """Return, for each service of an application, the services that must run before it."""
    return links.dependencies(app.entries)
