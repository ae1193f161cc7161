"""The environment variables that an application declares: what the Lua module ``env`` reads and writes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Literal

import attrs

from wippy_queue.errors import NotFound, PermissionDenied
from wippy_queue.ids import EntryId
from wippy_queue.suggest import did_you_mean


@attrs.frozen(kw_only=True)
class Variable:
    """An ``env.variable`` entry."""

    id: EntryId
    name: str  # in its storage, and for everybody
    storage: EntryId | Literal["process"]  # a storage in memory, or the variables of the process, which never change
    default: str | None = attrs.field(default=None, repr=False)
    read_only: bool = False


class Environment:
    """The declared variables with their values; nothing that is not declared can be reached.

    Args:
        variables: all that are declared; of two with the same name, the first goes by it.
        process: the variables of the process.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, variables: Iterable[Variable], process: Mapping[str, str]) -> None:
        self._by_id = {variable.id: variable for variable in variables}
        self._by_name: dict[str, Variable] = {}
        for variable in self._by_id.values():
            self._by_name.setdefault(variable.name, variable)
        self._process = process
        self._lock = threading.Lock()
        self._memory: dict[tuple[str, str], str] = {}  # storage and name -> value

    def find(self, key: str, namespace: str) -> Variable | None:
        """Return the variable of this id; else that of the entry of this name in the namespace; else of this name."""
        ids = (EntryId(key), EntryId(f"{namespace}:{key}"))
        return next((self._by_id[entry] for entry in ids if entry in self._by_id), self._by_name.get(key))

    def variable(self, key: str, namespace: str) -> Variable:
        """Return what `find` finds. Raises NotFound."""
        found = self.find(key, namespace)
        if found is None:
            close = did_you_mean(key, [*self._by_id, *self._by_name])
            raise NotFound(f"no environment variable {key!r} is declared{close}; declare it as an env.variable")
        return found

    def named(self) -> Iterable[Variable]:
        """Return the variables that go by their names."""
        return self._by_name.values()

    def value(self, variable: Variable) -> str | None:
        """Return the value of a variable, else its default, else None."""
        if variable.storage == "process":
            return self._process.get(variable.name, variable.default)
        with self._lock:
            return self._memory.get((variable.storage, variable.name), variable.default)

    def set(self, variable: Variable, value: str) -> None:
        """Give a variable another value, for everybody.

        Raises:
            PermissionDenied: it is read-only, as all those of the process are.
        """
        if variable.read_only:
            raise PermissionDenied(f"the environment variable {variable.id} is read-only")
        if variable.storage == "process":
            raise PermissionDenied(
                f"the environment variable {variable.id} is one of the process, and those are read-only; "
                "give it an env.storage.memory"
            )
        with self._lock:
            self._memory[variable.storage, variable.name] = value
