"""Which entries there are, what refers to what, and in which order services start."""

from __future__ import annotations

import graphlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from wippy_queue.driver import DriverKind
from wippy_queue.entries import wippy
from wippy_queue.entries.environment import is_expression
from wippy_queue.entries.fields import DROPPED, Missing, Reader
from wippy_queue.entries.kinds import (
    ENTRY_CLASSES,
    NOT_YET_KINDS,
    PLANNED_DRIVERS,
    ConsumerEntry,
    Entry,
    LuaLibraryEntry,
    QueueEntry,
    Service,
)
from wippy_queue.entries.nodes import Node, Place, Where
from wippy_queue.errors import Invalid, Problem
from wippy_queue.ids import EntryId
from wippy_queue.suggest import did_you_mean

_COMPARISONS = 20_000  # of ids, for did-you-mean; enough for any human's mistakes, and no machine's take minutes

# References without which an entry makes no sense: when they lead to what is left out, it is left out too.
_NEEDED = {"queue.queue": ("driver",), "queue.consumer": ("queue", "func")}


@attrs.define(kw_only=True)
class Declared:
    """An entry as it was written."""

    id: EntryId
    node: Node  # a mapping
    where: Where
    folder: Path  # that its `file://` is relative to
    root: Path  # that they may not leave
    kind: str | None = None  # None: it has none, or a wrong one


@attrs.frozen(kw_only=True)
class Unresolved:
    """A name that neither the application nor the engine knows, and that Python may still register."""

    what: Literal["module", "function"]
    name: str
    entry: EntryId  # that needs it
    path: str
    place: Place
    suggestion: str  # "; did you mean 'json'?", or nothing


class Registry:
    """The declared entries by id, and where references lead."""

    def __init__(
        self,
        declared: Iterable[Declared],
        reader: Reader,
        *,
        driver_kinds: Mapping[str, DriverKind],
        python_names: Collection[str],
        skip_unsupported: bool,
    ) -> None:
        self._reader = reader
        self._driver_kinds = driver_kinds
        self._python_names = python_names
        self._skip = skip_unsupported
        self._comparisons = _COMPARISONS
        self.declared: dict[EntryId, Declared] = {}
        self.left_out: set[EntryId] = set()
        self.unresolved: list[Unresolved] = []
        self.warnings: list[Problem] = []
        for item in declared:
            first = self.declared.setdefault(item.id, item)
            if first is not item:
                seen = f" at {first.node.place}" if first.node.place.file else ""
                reader.note(f"there is an entry of this id already{seen}; rename one", item.where, item.node.place)
        for item in self.declared.values():
            self._set_kind(item)

    def supported(self) -> list[Declared]:
        """Return the entries that are to be read, without those that are left out."""
        if self._skip:
            self._leave_out_dependents()
        return [item for item in self.declared.values() if item.kind is not None and item.id not in self.left_out]

    def unsupported(self, message: str, where: Where, place: Place) -> Missing:
        """Note what exists in Wippy and not here: a warning where such things are to be skipped, else a problem."""
        if self._skip:
            self.warnings.append(where.problem(f"{message}; skipped", place))
            return DROPPED
        return self._reader.note(f"{message}; remove it, or load with skip_unsupported", where, place)

    def resolve(self, node: Node, where: Where, kinds: tuple[str, ...], *, late: bool) -> Any:
        """Return the id that ``node`` names; BAD and a problem where it cannot be, DROPPED where it is left out.

        Args:
            node: the reference.
            where: its subject; has the namespace of a bare name.
            kinds: what the entry may be; nothing means any.
            late: whether Python may still register it.
        """
        text = self._reader.text(node, where)
        if isinstance(text, Missing):
            return text
        try:
            target = EntryId.parse(text, where.namespace)
        except Invalid:
            message = f"expected the id of an entry, like app.queue:tasks, found {node.value!r}"
            return self._reader.note(message, where, node.place)
        shown = node.value if is_expression(node.value) else target
        found = self.declared.get(target)
        if found is None:
            return self._unknown(target, node, where, kinds, late=late)
        if found.kind is None or target in self.left_out:
            if self._skip and target in self.left_out:
                self.warnings.append(where.problem(f"{shown} is left out, and so is this reference to it", node.place))
            return DROPPED
        if kinds and not _is_one_of(found.kind, kinds):
            expected = " or ".join(kind + "*" if kind.endswith(".") else kind for kind in kinds)
            return self._reader.note(
                f"expected the id of a {expected}, but {shown} is a {found.kind}", where, node.place
            )
        return target

    def target(self, item: Declared, field: str) -> Declared | None:
        """Return what a reference leads to, without noting anything."""
        text = item.node[field]
        if not isinstance(text, str):
            return None
        try:
            expanded = self._reader.environment.expand(text, item.where.namespace)
            return self.declared.get(EntryId.parse(expanded, item.id.namespace))
        except (ValueError, Invalid):
            return None

    def _set_kind(self, item: Declared) -> None:
        where = item.where.child("kind")
        node = item.node.value.get("kind")
        if node is None or node.value is None:
            self._reader.note("the field 'kind' is required", where, item.node.place)
            return
        kind = self._reader.text(node, where)
        if isinstance(kind, Missing):
            return
        if kind in self._driver_kinds or (kind in ENTRY_CLASSES and kind not in NOT_YET_KINDS):
            item.kind = kind
        elif kind in NOT_YET_KINDS or kind in PLANNED_DRIVERS:
            self.left_out.add(item.id)
            self.unsupported(f"the kind {node.value} is not supported yet", where, node.place)
        elif kind in wippy.KINDS:
            self.left_out.add(item.id)
            self.unsupported(f"the kind {node.value} exists in Wippy but not here", where, node.place)
        else:
            known = [*self._driver_kinds, *(name for name in ENTRY_CLASSES if name not in NOT_YET_KINDS)]
            close = did_you_mean(kind, [*known, *NOT_YET_KINDS, *PLANNED_DRIVERS, *wippy.KINDS])
            listed = f"; known are {', '.join(known)}"
            self._reader.note(f"unknown kind {node.value!r}{close or listed}", where, node.place)

    def _leave_out_dependents(self) -> None:
        for kind, fields in _NEEDED.items():  # queues before the consumers that need them
            for item in self.declared.values():
                if item.kind != kind:
                    continue
                for field in fields:
                    target = self.target(item, field)
                    if target is not None and target.id in self.left_out:
                        self.left_out.add(item.id)
                        message = f"left out too, for it needs {target.id}"
                        self.warnings.append(item.where.child(field).problem(message, item.node.value[field].place))
                        break

    def _unknown(self, target: EntryId, node: Node, where: Where, kinds: tuple[str, ...], *, late: bool) -> Any:
        if late and target in self._python_names:
            return target
        candidates = [
            item.id for item in self.declared.values() if not kinds or (item.kind and _is_one_of(item.kind, kinds))
        ]
        elsewhere = [candidate for candidate in candidates if candidate.name == target.name]
        suggestion = f"; did you mean {str(elsewhere[0])!r}?" if elsewhere else self._suggest(target, candidates)
        if late:
            entry = EntryId(where.entry or "")
            self.unresolved.append(
                Unresolved(
                    what="function", name=target, entry=entry, path=where.path, place=node.place, suggestion=suggestion
                )
            )
            return target
        shown = node.value if is_expression(node.value) else target
        return self._reader.note(f"there is no entry {shown}{suggestion}", where, node.place)

    def _suggest(self, target: str, candidates: list[EntryId]) -> str:
        self._comparisons -= len(candidates)
        return did_you_mean(target, candidates) if self._comparisons >= 0 else ""


def dependencies(entries: Mapping[EntryId, Entry]) -> dict[EntryId, tuple[EntryId, ...]]:
    """Return, for each service among the entries, the services that must run before it."""
    needs: dict[EntryId, tuple[EntryId, ...]] = {}
    for entry in entries.values():
        if isinstance(entry, Service):
            before = [*_drivers(entry, entries), *entry.lifecycle.depends_on]
            needs[entry.id] = tuple(dict.fromkeys(name for name in before if isinstance(entries.get(name), Service)))
    return needs


def note_cycles(entries: Mapping[EntryId, Entry], reader: Reader) -> None:
    """Note every cycle among services and among libraries."""
    libraries = {
        entry.id: tuple(entry.imports.values()) for entry in entries.values() if isinstance(entry, LuaLibraryEntry)
    }
    for graph, path, cure in (
        (
            dependencies(entries),
            "lifecycle.depends_on",
            "none of these services can start before the other; take one out",
        ),
        (libraries, "imports", "these libraries need each other; move what both use into a third one"),
    ):
        for cycle in _cycles(graph):
            where = Where(entry=cycle[0], path=path)
            reader.note(f"a cycle, {' -> '.join(cycle)}: {cure}", where, entries[cycle[0]].place)


def _drivers(entry: Service, entries: Mapping[EntryId, Entry]) -> Iterable[EntryId]:
    queue = entries.get(entry.queue) if isinstance(entry, ConsumerEntry) else None
    if isinstance(queue, QueueEntry):
        yield queue.driver
        buried = entries.get(queue.dead_letter.queue) if queue.dead_letter else None
        if isinstance(buried, QueueEntry):
            yield buried.driver


def _cycles(graph: Mapping[EntryId, tuple[EntryId, ...]]) -> list[list[EntryId]]:
    edges = {name: list(needs) for name, needs in graph.items()}
    found: list[list[EntryId]] = []
    while True:
        try:
            graphlib.TopologicalSorter(edges).prepare()
            return found
        except graphlib.CycleError as error:
            ring = error.args[1][::-1][:-1]  # each one needs the next
            start = ring.index(min(ring))
            ring = ring[start:] + ring[:start]
            found.append([*ring, ring[0]])
            edges[ring[-1]].remove(ring[0])  # then the next one shows


def _is_one_of(kind: str, allowed: tuple[str, ...]) -> bool:
    return any(kind == one or (one.endswith(".") and kind.startswith(one)) for one in allowed)
