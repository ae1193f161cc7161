"""CONTRACT of access control: who acts, under which policies, and who decides."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol

import attrs
import msgspec

from wippy_queue.errors import Invalid
from wippy_queue.ids import EntryId

Verdict = Literal["allow", "deny", "undefined"]

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def _plain(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a copy that nobody else can change, after seeing that Lua could hold it."""
    try:
        copy: Mapping[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(dict(value)))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Invalid(f"the meta of an actor must be a mapping of plain data: {error}") from None
    return copy


def _names(value: Iterable[str] | None) -> tuple[str, ...] | None:
    if isinstance(value, str):
        raise Invalid(f"expected a list of ids, found the text {value!r}; write [{value!r}]")
    if value is None:
        return None
    given: Any = value
    names = tuple(given) if isinstance(given, Iterable) else (None,)
    if not all(isinstance(name, str) for name in names):
        raise Invalid(f"expected a list of ids, found {value!r}")
    return names


@attrs.frozen
class Actor:
    """Who acts, and for a call from Python also under which policies.

    Args:
        id: not empty; ``user:123``.
        meta: what policies may ask about it, under ``actor.meta``: plain data.
        policies: registry ids of ``security.policy`` entries.
        groups: registry ids of groups of policies. With neither there is no scope, and the context is incomplete.
    """

    id: str
    meta: Mapping[str, Any] = attrs.field(factory=dict, converter=_plain, repr=False)
    policies: tuple[str, ...] | None = attrs.field(default=None, converter=_names, kw_only=True)
    groups: tuple[str, ...] | None = attrs.field(default=None, converter=_names, kw_only=True)

    def __attrs_post_init__(self) -> None:
        given: Any = self.id
        if not isinstance(given, str) or not given:
            raise Invalid(f"the id of an actor must be text that is not empty, found {given!r}")


class Policy(Protocol):
    """A rule that allows or denies actions on resources."""

    @property
    def id(self) -> EntryId: ...

    def evaluate(self, actor: Actor | None, action: str, resource: str, meta: Mapping[str, Any]) -> Verdict: ...


@attrs.frozen
class Scope:
    """The policies that somebody acts under; an empty scope allows nothing."""

    policies: tuple[Policy, ...] = ()

    def evaluate(self, actor: Actor | None, action: str, resource: str, meta: Mapping[str, Any] = NOTHING) -> Verdict:
        """Return ``deny`` where any policy denies, else ``allow`` where any allows, else ``undefined``."""
        result: Verdict = "undefined"
        for policy in self.policies:
            verdict = policy.evaluate(actor, action, resource, meta)
            if verdict == "deny":
                return "deny"
            if verdict == "allow":
                result = "allow"
        return result


@attrs.frozen(kw_only=True)
class SecurityContext:
    """What a call runs with. It is complete when it has both."""

    actor: Actor | None = None
    scope: Scope | None = None


class Access(Protocol):
    """Who decides. Every method may be called from any thread."""

    def require(
        self,
        security: SecurityContext | None,
        action: str,
        *resources: str,
        meta: Mapping[str, Any] = NOTHING,
        function: EntryId | None = None,
    ) -> None:
        """Return when the action is allowed.

        Args:
            security: who asks.
            action: ``queue.publish``.
            resources: what it is about; several are names of one and the same thing.
            meta: what policies may ask about it.
            function: that asks, for the audit event.

        Raises:
            PermissionDenied: it is not; the denial has been logged, and emitted as an event.
        """

    def allows(
        self, security: SecurityContext | None, action: str, *resources: str, meta: Mapping[str, Any] = NOTHING
    ) -> bool:
        """Return whether `require` would let it pass; nothing is logged."""

    def policy(self, policy_id: str) -> Policy:
        """Return a declared policy. Raises NotFound."""

    def group(self, group_id: str) -> Sequence[Policy]:
        """Return the policies of a group. Raises NotFound where no policy belongs to it."""


class _Here(threading.local):
    security: SecurityContext | None = None  # of the class: a missing attribute would cost an exception at each look


_here = _Here()  # what this thread's Python code acts with


def acting() -> SecurityContext | None:
    """Return what the Python code of this thread acts with: the context of the handler that it is, or belongs to."""
    return _here.security


def act_with(security: SecurityContext | None) -> SecurityContext | None:
    """Let Python code of this thread act with this from now on; return what it acted with before, to be put back."""
    before, _here.security = _here.security, security
    return before
