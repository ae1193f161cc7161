"""Declared entries to the classes of `kinds.py`: what takes more than one field, or another entry, to check."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import attrs

from wippy_queue.driver import DriverKind
from wippy_queue.entries import wippy
from wippy_queue.entries.environment import Environment, Variable, is_expression
from wippy_queue.entries.fields import BAD, DROPPED, LATE, Missing, Parser, Reader
from wippy_queue.entries.kinds import (
    ENTRY_CLASSES,
    NOT_YET_FIELDS,
    PLANNED_DRIVERS,
    ConsumerEntry,
    DriverEntry,
    Entry,
    GroupName,
    GroupReference,
    Imports,
    Lifecycle,
    LuaLibraryEntry,
    LuaSource,
    ModuleName,
    Names,
    QueueEntry,
    Retry,
)
from wippy_queue.entries.links import Declared, Registry, Unresolved
from wippy_queue.entries.nodes import Node, Where, describe
from wippy_queue.entries.sources import read_source
from wippy_queue.errors import Invalid
from wippy_queue.ids import EntryId
from wippy_queue.options import KINDS, FilePath
from wippy_queue.queues import DeadLetter, RetryPolicy
from wippy_queue.suggest import did_you_mean

_COMMON: Final = ("name", "kind", "meta")
_OPTIONS: Final = ("options", "driver_options")
_FILE: Final = "file://"
_LOOKS_LIKE_FILE: Final = re.compile(r"[\w./-]+\.lua")


class Builder:
    """Makes the entries of one application; the problems are those of its reader."""

    def __init__(
        self,
        declared: Iterable[Declared],
        process: Mapping[str, str],
        *,
        driver_kinds: Mapping[str, DriverKind],
        known_modules: Collection[str],
        python_names: Collection[str],
        skip_unsupported: bool,
    ) -> None:
        special = {
            EntryId: self._reference,
            ModuleName: lambda _: self._module,
            LuaSource: lambda _: self._source,
            Imports: self._imports,
            Names: lambda _: self._names,
            FilePath: lambda _: self._path,
            GroupName: lambda _: self._group,
            GroupReference: lambda _: self._group_reference,
        }
        self.reader = Reader(Environment(process), special, NOT_YET_FIELDS)
        self._driver_kinds = driver_kinds
        self._modules = {*known_modules, *python_names}
        self.registry = Registry(
            declared,
            self.reader,
            driver_kinds=driver_kinds,
            python_names=python_names,
            skip_unsupported=skip_unsupported,
        )
        self._groups: dict[EntryId, bool] = {}  # of policies; False: all of them are left out
        self._current: Declared  # whose fields are read
        self.entries: dict[EntryId, Entry] = {}

    def build(self) -> dict[EntryId, Entry]:
        """Return every entry without mistakes, in the order of the files."""
        items = self.registry.supported()
        for item in items:
            if item.kind == "env.variable":
                self._declare_variable(item)
        for item in self.registry.declared.values():
            if str(item.node["kind"]).startswith("security.policy"):
                self._declare_groups(item)
        for item in sorted(items, key=lambda item: item.kind == "queue.consumer"):  # what they refer to comes first
            self._current = item
            entry = self._driver(item) if item.kind in self._driver_kinds else self._entry(item)
            if not isinstance(entry, Missing):
                self.entries[item.id] = entry
        self._check_queue_names()
        return {item.id: self.entries[item.id] for item in items if item.id in self.entries}

    def _check_queue_names(self) -> None:
        """Note queues that would be one and the same at their driver; in memory they live under their ids."""
        taken: dict[tuple[EntryId, str], EntryId] = {}
        for entry in self.entries.values():
            driver = self.entries.get(entry.driver) if isinstance(entry, QueueEntry) else None
            if not isinstance(entry, QueueEntry) or not isinstance(driver, DriverEntry):
                continue
            other = taken.setdefault((driver.id, entry.queue_name), entry.id)
            if other != entry.id and driver.kind.capabilities.shared:
                item = self.registry.declared[entry.id]
                node = item.node.value.get("queue_name", item.node)
                message = f"{other} is {entry.queue_name!r} on {driver.id} already; set another queue_name"
                self.reader.note(message, item.where.child("queue_name"), node.place)

    def _declare_variable(self, item: Declared) -> None:
        storage = self.registry.target(item, "storage")
        name = item.node["variable"] if isinstance(item.node["variable"], str) else item.id.name
        default = item.node["default"] if isinstance(item.node["default"], str) else None
        in_memory = storage is not None and storage.kind == "env.storage.memory"
        self.reader.environment.declare(item.id, Variable(name=name, in_memory=in_memory, default=default))

    def _declare_groups(self, item: Declared) -> None:
        groups = item.node.value.get("groups")
        for node in groups.value if groups is not None and isinstance(groups.value, list) else ():
            try:
                group = EntryId.parse(node.value if isinstance(node.value, str) else "", item.id.namespace)
            except Invalid:
                continue  # a problem, when the entry is read
            self._groups[group] = self._groups.get(group, False) or item.id not in self.registry.left_out

    def _base(self, item: Declared) -> dict[str, Any]:
        meta = item.node.value.get("meta")
        if meta is not None and meta.value is not None and not isinstance(meta.value, dict):
            self.reader.note(f"expected a mapping, found {describe(meta)}", item.where.child("meta"), meta.place)
            meta = None
        return {"id": item.id, "meta": {} if meta is None else _as_written(meta) or {}, "place": item.node.place}

    def _driver(self, item: Declared) -> Entry | Missing:
        kind = self._driver_kinds[str(item.kind)]
        config = self.reader.values(kind.config, item.node, item.where, ignore=(*_COMMON, "lifecycle"))
        lifecycle = Lifecycle()
        node = item.node.value.get("lifecycle")
        read = lifecycle if node is None or node.value is None else self._read(Lifecycle, node, item.where, "lifecycle")
        base = self._base(item)
        if isinstance(config, Missing) or isinstance(read, Missing):
            return BAD
        self._refuse_security(item, read)
        built = self.reader.build(kind.config, config, item.node, item.where)
        return built if isinstance(built, Missing) else DriverEntry(**base, kind=kind, config=built, lifecycle=read)

    def _read(self, cls: type, node: Node, where: Where, field: str) -> Any:
        return self.reader.read(cls, node, where.child(field))

    def _entry(self, item: Declared) -> Entry | Missing:
        cls = ENTRY_CLASSES[str(item.kind)]
        ignore = [*_COMMON, *(_OPTIONS if cls in (QueueEntry, ConsumerEntry) else ())]
        for field in wippy.FIELDS.get(str(item.kind), ()):
            if field in item.node.value:
                ignore.append(field)
                place = item.node.value[field].key or item.node.place
                self.registry.unsupported("exists in Wippy but not here", item.where.child(field), place)
        values = self.reader.values(cls, item.node, item.where, ignore=ignore)
        finish = {QueueEntry: self._queue, ConsumerEntry: self._consumer}.get(cls)
        base = self._base(item)
        if finish is not None:
            values = finish(item, values)
        if isinstance(values, Missing):
            return values
        if issubclass(cls, LuaLibraryEntry):
            self._finish_lua(item, values)
        if cls is not ConsumerEntry and "lifecycle" in values:
            self._refuse_security(item, values["lifecycle"])
        if "kind" in attrs.fields_dict(cls):
            values["kind"] = item.kind
        return self.reader.build(cls, {**values, **base}, item.node, item.where)

    # Queues and consumers

    def _queue(self, item: Declared, values: dict[str, Any] | Missing) -> dict[str, Any] | Missing:
        driver = self._driver_kind(item)
        options = self._options(item, driver, "queue")
        if isinstance(values, Missing) or isinstance(options, Missing):
            return BAD
        retry = self._retry(item, values.get("retry"), RetryPolicy())
        dead_letter = values.get("dead_letter")
        if dead_letter is not None:
            node = item.node.value["dead_letter"].value["queue"]
            if dead_letter.queue == item.id:
                where = item.where.child("dead_letter").child("queue")
                self.reader.note("a queue cannot be its own dead-letter queue; name another", where, node.place)
            values["dead_letter"] = DeadLetter(queue=dead_letter.queue, max_attempts=dead_letter.max_attempts)
            self._check_attempts(item, retry)
        return {"queue_name": item.id.name, **values, "retry": retry, "options": options}

    def _consumer(self, item: Declared, values: dict[str, Any] | Missing) -> dict[str, Any] | Missing:
        declared = self.registry.target(item, "queue")
        driver = self._driver_kind(declared) if declared is not None and declared.kind == "queue.queue" else None
        options = self._options(item, driver, "consumer")
        if isinstance(values, Missing) or isinstance(options, Missing):
            return BAD
        queue = self.entries.get(values["queue"])
        if not isinstance(queue, QueueEntry):  # it has mistakes of its own
            return BAD
        values["retry"] = self._retry(item, values.get("retry"), queue.retry)
        if queue.dead_letter is not None:
            self._check_attempts(item, values["retry"])
        target = self.registry.declared.get(values["func"])
        if target is None or target.kind != "function.lua":
            if "memory_limit" in values:
                node = item.node.value["memory_limit"]
                message = "memory_limit is for Lua functions, and `func` names no Lua function; remove it"
                self.reader.note(message, item.where.child("memory_limit"), node.key or node.place)
            values["memory_limit"] = None
        return {**values, "options": options}

    def _retry(self, item: Declared, given: Retry | None, base: RetryPolicy) -> RetryPolicy:
        if given is None:
            return base
        try:
            return given.over(base)
        except ValueError as error:
            self.reader.note(str(error), item.where.child("retry"), item.node.value["retry"].place)
            return base

    def _check_attempts(self, item: Declared, retry: RetryPolicy) -> None:
        node = item.node.value.get("retry")
        if retry.max_attempts and node is not None and node["max_attempts"] is not None:
            self.reader.note(
                "the queue has dead_letter, whose max_attempts decides; remove this one",
                item.where.child("retry").child("max_attempts"),
                node.value["max_attempts"].place,
            )

    def _driver_kind(self, queue: Declared) -> DriverKind | None:
        driver = self.registry.target(queue, "driver")
        return None if driver is None or driver.kind is None else self._driver_kinds.get(driver.kind)

    def _options(self, item: Declared, driver: DriverKind | None, noun: str) -> Any:
        """Return the driver's options; None where the driver is not known, whose absence is a problem already."""
        nodes: dict[str, Node] = {}
        paths: dict[str, str] = {}
        for field, node in self._option_blocks(item, driver):
            for key, child in node.value.items():
                path = item.where.child(field).child(key).path
                if key in nodes:
                    message = f"this option stands in {paths[key]} already; remove one of them"
                    self.reader.note(message, attrs.evolve(item.where, path=path), child.key or child.place)
                nodes[key], paths[key] = child, path
        if driver is None:
            return None
        cls = driver.queue_options if noun == "queue" else driver.consumer_options
        known = tuple(self.reader.fields_of(cls))

        def unknown(key: str) -> str:
            has = f"it has {', '.join(known)}" if known else "it has none"
            message = f"the {driver.short_name} driver has no {noun} option {key!r}; {has}"
            if key in self.reader.fields_of(QueueEntry if noun == "queue" else ConsumerEntry):
                return f"{message}; {key!r} is a field of the {noun} itself"
            return f"{message}{did_you_mean(key, known)}"

        node, where = Node(nodes, item.node.place), item.where.child("options")
        values = self.reader.values(cls, node, where, unknown=unknown, paths=paths)
        return values if isinstance(values, Missing) else self.reader.build(cls, values, node, where)

    def _option_blocks(self, item: Declared, driver: DriverKind | None) -> Iterable[tuple[str, Node]]:
        """Yield the mappings that hold options of the bound driver."""
        flat, keyed = (item.node.value.get(field) for field in _OPTIONS)
        if flat is not None and flat.value is not None and self._is_mapping(flat, item.where.child("options")):
            yield "options", flat
        if keyed is None or keyed.value is None or not self._is_mapping(keyed, item.where.child("driver_options")):
            return
        names = [kind.rpartition(".")[2] for kind in dict.fromkeys((*PLANNED_DRIVERS, *self._driver_kinds))]
        for name, node in keyed.value.items():
            where = item.where.child("driver_options").child(name)
            if name not in names:
                close = did_you_mean(name, names) or f"; known are {', '.join(names)}"
                self.reader.note(f"unknown driver {name!r}{close}", where, node.key or node.place)
            elif (
                node.value is not None
                and self._is_mapping(node, where)
                and driver is not None
                and name == driver.short_name
            ):
                yield f"driver_options.{name}", node

    def _is_mapping(self, node: Node, where: Where) -> bool:
        if not isinstance(node.value, dict):
            self.reader.note(f"expected a mapping of options, found {describe(node)}", where, node.place)
            return False
        return True

    def _refuse_security(self, item: Declared, lifecycle: Lifecycle) -> None:
        if lifecycle.security is not None:
            node = item.node.value["lifecycle"].value["security"]
            where = item.where.child("lifecycle").child("security")
            self.reader.note("only a consumer runs functions that need it; remove it", where, node.key or node.place)

    # Policies

    def _names(self, node: Node, where: Where) -> Any:
        if isinstance(node.value, list) and node.value:
            names = [self.reader.text(child, where.child(index)) for index, child in enumerate(node.value)]
            return BAD if BAD in names else tuple(names)
        if isinstance(node.value, str):
            name = self.reader.text(node, where)
            return name if isinstance(name, Missing) else (name,)
        return self.reader.note(f"expected a text, or a list of texts, found {describe(node)}", where, node.place)

    def _group(self, node: Node, where: Where) -> Any:
        text = self.reader.text(node, where)
        if isinstance(text, Missing):
            return text
        try:
            return EntryId.parse(text, where.namespace)
        except Invalid:
            message = f"expected the id of a group, like app.security:admins, found {describe(node)}"
            return self.reader.note(message, where, node.place)

    def _group_reference(self, node: Node, where: Where) -> Any:
        group = self._group(node, where)
        if isinstance(group, Missing) or self._groups.get(group):
            return group
        shown = node.value if is_expression(node.value) else group
        if group in self._groups:
            message = f"every policy of the group {shown} is left out, and so is this reference to it"
            self.registry.warnings.append(where.problem(message, node.place))
            return DROPPED
        elsewhere = [known for known in self._groups if known.name == group.name]
        close = f"; did you mean {str(elsewhere[0])!r}?" if elsewhere else did_you_mean(group, self._groups)
        return self.reader.note(f"no policy belongs to a group {shown}{close}", where, node.place)

    # Functions and libraries

    def _finish_lua(self, item: Declared, values: dict[str, Any]) -> None:
        source = values["source"]
        values.update(source=source.text, source_name=source.name)
        values["modules"] = tuple(dict.fromkeys(values.get("modules", ())))
        for alias in values.get("imports", ()):
            if alias in values["modules"]:
                imports = item.node.value["imports"]
                node = imports.value[alias] if isinstance(imports.value, dict) else imports
                message = f"{alias!r} is under `modules:` too; give the import another name"
                self.reader.note(message, item.where.child("imports").child(alias), node.key or node.place)

    def _reference(self, metadata: Mapping[str, Any]) -> Parser:
        kinds, late = metadata.get(KINDS, ()), metadata.get(LATE, False)
        return lambda node, where: self.registry.resolve(node, where, kinds, late=late)

    def _module(self, node: Node, where: Where) -> Any:
        name = self.reader.text(node, where)
        if isinstance(name, Missing) or name in self._modules:
            return name
        if name in wippy.MODULES:
            return self.registry.unsupported(
                f"the module {node.value!r} exists in Wippy but not here", where, node.place
            )
        self.registry.unresolved.append(
            Unresolved(
                what="module",
                name=name,
                entry=self._current.id,
                path=where.path,
                place=node.place,
                suggestion=did_you_mean(name, self._modules),
            )
        )
        return name

    def _imports(self, metadata: Mapping[str, Any]) -> Parser:
        reference = self._reference(metadata)

        def parse(node: Node, where: Where) -> Any:
            if not isinstance(node.value, (dict, list)):
                message = f"expected a mapping of aliases to ids, or a list of ids, found {describe(node)}"
                return self.reader.note(message, where, node.place)
            steps = node.value.items() if isinstance(node.value, dict) else enumerate(node.value)
            imports: dict[str, EntryId] = {}
            failed = False
            for step, child in steps:
                target = reference(child, where.child(step))
                if isinstance(target, Missing):
                    failed = failed or target is BAD
                    continue
                alias = step if isinstance(step, str) else target.name
                if alias.split() != [alias]:
                    message = f"expected an alias without blanks, found {alias!r}"
                    failed = self.reader.note(message, where.child(step), child.place) is BAD
                    continue
                if alias in imports:
                    message = f"{alias!r} is imported twice; write a mapping, in which each has an alias of its own"
                    self.reader.note(message, where.child(step), child.place)
                imports[alias] = target
            return BAD if failed else imports

        return parse

    def _path(self, node: Node, where: Where) -> Any:
        text = self.reader.text(node, where)
        if isinstance(text, Missing):
            return BAD
        if not text or "\0" in text:
            return self.reader.note("expected the path of a file", where, node.place)
        return str(self._current.folder / text)

    def _source(self, node: Node, where: Where) -> Any:
        text = self.reader.text(node, where)
        if isinstance(text, Missing):
            return BAD
        if not text.startswith(_FILE):
            if _LOOKS_LIKE_FILE.fullmatch(text):
                return self.reader.note(
                    f"expected Lua or a file; did you mean {_FILE + node.value!r}?", where, node.place
                )
            if not text.strip():
                return self.reader.note("the source is empty", where, node.place)
            return LuaSource(text, str(self._current.id))
        fault, source = read_source(text.removeprefix(_FILE), self._current.folder, self._current.root)
        if source is None:
            return self.reader.note(f"{node.value}: {self.reader.environment.scrub(fault)}", where, node.place)
        return source


def _as_written(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: _as_written(child) for key, child in node.value.items()}
    return [_as_written(child) for child in node.value] if isinstance(node.value, list) else node.value
