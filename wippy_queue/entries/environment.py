"""``${env:NAME}`` and ``${env:NAME|default}`` in the texts of an application."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

from wippy_queue.ids import EntryId
from wippy_queue.redact import redact
from wippy_queue.suggest import did_you_mean

_START: Final = "${env:"
_EXPRESSION = re.compile(r"\$\{env:(?P<name>[^}|]*)(?:\|(?P<default>[^}]*))?\}")
_SECRET_LENGTH: Final = 4  # shorter values are no secrets, and would be found all over a message


@attrs.frozen(kw_only=True)
class Variable:
    """An ``env.variable`` entry: which variable of the process it stands for, and its default."""

    name: str  # in its storage, and for everybody
    in_memory: bool  # it has its default alone, while an application is loaded
    default: str | None


class Environment:
    """What ``${env:...}`` may name: variables of the process, and ``env.variable`` entries by id or by name."""

    def __init__(self, process: Mapping[str, str]) -> None:
        self._process = process
        self._entries: dict[str, tuple[str, Variable]] = {}  # by id and by name: the namespace, and what it is
        self._defaults: list[Variable] = []  # whose defaults are being expanded
        self._used: dict[str, str] = {}  # value -> the expression that it came from

    def declare(self, entry: EntryId, variable: Variable) -> None:
        """Make an ``env.variable`` entry known; of two variables with one name the first goes by it."""
        self._entries[entry] = (entry.namespace, variable)
        self._entries.setdefault(variable.name, (entry.namespace, variable))

    def expand(self, text: str, namespace: str | None) -> str:
        """Return the text with every expression replaced by its value.

        Args:
            text: what was written.
            namespace: where names of entries are looked up.

        Raises:
            ValueError: a variable is missing and has no default; the message names it and shows no value.
        """
        if _EXPRESSION.sub("", text).count(_START):
            raise ValueError("`${env:` is not closed; expected ${env:NAME} or ${env:NAME|default}")
        return _EXPRESSION.sub(lambda match: self._value(match, namespace), text)

    def scrub(self, message: str) -> str:
        """Return a message that came from elsewhere, with every value replaced by its expression, and no password."""
        for value, expression in self._used.items():
            message = message.replace(value, expression)
        return redact(message)

    def _value(self, match: re.Match[str], namespace: str | None) -> str:
        name, default = match["name"], match["default"]
        if not name.strip():
            raise ValueError("`${env:}` names no variable; expected ${env:NAME} or ${env:NAME|default}")
        if is_expression(default or ""):
            raise ValueError(f"the default of ${{env:{name}}} cannot hold another; declare an env.variable")
        value = self._lookup(name, namespace)
        if value is None:
            value = default
        if value is None:
            known = did_you_mean(name, [*self._process, *self._entries])
            raise ValueError(
                f"the environment variable {name} is not set{known or '; set it, or write'}{_cure(name, known)}"
            )
        if len(value) >= _SECRET_LENGTH:
            self._used[value] = match[0]
        return value

    def _lookup(self, name: str, namespace: str | None) -> str | None:
        found = next((self._entries[key] for key in (f"{namespace}:{name}", name) if key in self._entries), None)
        if found is None:
            return self._process.get(name)
        home, entry = found
        value = None if entry.in_memory else self._process.get(entry.name)
        if value is not None or entry.default is None:
            return value
        if entry in self._defaults:
            raise ValueError(f"the default of the environment variable {name} needs that variable itself; change it")
        self._defaults.append(entry)
        try:
            return self.expand(entry.default, home)
        finally:
            self._defaults.pop()


def is_expression(text: str) -> bool:
    """Return whether a text holds something to expand."""
    return _START in text


def _cure(name: str, known: str) -> str:
    return "" if known else f" ${{env:{name}|default}}"
