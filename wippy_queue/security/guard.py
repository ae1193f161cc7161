"""The one place that lets an action pass or refuses it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from wippy_queue.access import NOTHING, Actor, Policy, Scope, SecurityContext, Verdict
from wippy_queue.errors import NotFound, PermissionDenied
from wippy_queue.events import AccessDenied, Event
from wippy_queue.ids import EntryId
from wippy_queue.suggest import did_you_mean

_REASONS: Final = {
    "deny": "a policy denies it",
    "undefined": "no policy of the scope allows it",
    "incomplete": "strict mode asks for an actor with policies or groups, and there is none; give the consumer "
    "lifecycle.security, or pass actor= in Python",
}

_log = logging.getLogger(__name__)


class Guard:
    """Knows the declared policies and applies them; see `access.Access`.

    Args:
        policies: all that are declared.
        groups: which of them belong to which group.
        strict: whether an incomplete context refuses; otherwise it allows.
        emit: takes the event of each denial.

    Thread safety: every method may be called from any thread.
    """

    def __init__(
        self,
        policies: Iterable[Policy] = (),
        groups: Mapping[str, Sequence[Policy]] = NOTHING,
        *,
        strict: bool = False,
        emit: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self._policies = {policy.id: policy for policy in policies}
        self._groups = dict(groups)
        self._strict = strict
        self._emit = emit

    def policy(self, policy_id: str) -> Policy:
        try:
            return self._policies[EntryId(policy_id)]
        except KeyError:
            raise NotFound(f"no policy {policy_id!r} is declared{did_you_mean(policy_id, self._policies)}") from None

    def group(self, group_id: str) -> Sequence[Policy]:
        try:
            return self._groups[group_id]
        except KeyError:
            suggestion = did_you_mean(group_id, self._groups)
            raise NotFound(f"no policy belongs to a group {group_id!r}{suggestion}") from None

    def context(
        self, actor: Actor | None, policies: Iterable[str] | None = None, groups: Iterable[str] | None = None
    ) -> SecurityContext:
        """Return what somebody acts with; there is a scope where policies or groups are given, even if none is named.

        Raises:
            NotFound: there is no such policy or group.
        """
        if policies is None and groups is None:
            return SecurityContext(actor=actor)
        members = [self.policy(policy_id) for policy_id in policies or ()]
        for group_id in groups or ():
            members += self.group(group_id)
        scope = Scope(tuple({policy.id: policy for policy in members}.values()))
        return SecurityContext(actor=actor, scope=scope)

    def allows(
        self, security: SecurityContext | None, action: str, *resources: str, meta: Mapping[str, Any] = NOTHING
    ) -> bool:
        return self._verdict(security, action, resources, meta) == "allow"

    def may_refuse(self, security: SecurityContext | None) -> bool:
        """Say whether there is anything that `require` would not let pass."""
        return self._strict or not (security is None or security.actor is None or security.scope is None)

    def require(
        self,
        security: SecurityContext | None,
        action: str,
        *resources: str,
        meta: Mapping[str, Any] = NOTHING,
        function: EntryId | None = None,
    ) -> None:
        verdict = self._verdict(security, action, resources, meta)
        if verdict == "allow":
            return
        actor = None if security is None or security.actor is None else security.actor.id
        resource = resources[0] if resources else ""
        why = _REASONS[verdict]
        fields = {"actor": actor, "action": action, "resource": resource, "function": function, "reason": why}
        _log.warning("access denied", extra={"fields": fields})
        self._emit(AccessDenied(actor=actor, action=action, resource=resource, function=function))
        subject = f"{action} on {resource}" if resource else action
        raise PermissionDenied(f"{subject}: not allowed for {actor or 'nobody'}: {why}")

    def _verdict(
        self, security: SecurityContext | None, action: str, resources: Sequence[str], meta: Mapping[str, Any]
    ) -> Verdict | Literal["incomplete"]:
        if security is None or security.actor is None or security.scope is None:
            return "incomplete" if self._strict else "allow"
        verdicts = {security.scope.evaluate(security.actor, action, name, meta) for name in resources or ("",)}
        return "deny" if "deny" in verdicts else "allow" if "allow" in verdicts else "undefined"
