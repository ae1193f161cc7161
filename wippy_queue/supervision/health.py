"""Health: is the process alive, and can it do its work now?"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from wippy_queue.ids import EntryId
from wippy_queue.supervision.supervisor import ServiceStatus, State


@attrs.frozen(kw_only=True)
class Health:
    """How an engine is.

    ``live`` is false when a service that is to run was given up, so that only a new start can help. ``ready`` is
    true when everything that is to run does. ``problems`` says in words what is wrong.
    """

    live: bool
    ready: bool
    problems: tuple[str, ...] = ()


def assess(services: Mapping[EntryId, ServiceStatus]) -> Health:
    """Return the health of an engine with these services; one that nobody wants to run is no problem."""
    wanted = [status for status in services.values() if status.wanted]
    return Health(
        live=not any(status.given_up for status in wanted),
        ready=bool(wanted) and all(status.state is State.RUNNING for status in wanted),
        problems=tuple(
            f"{status.id} is {status.state}{f': {status.error}' if status.error else ''}"
            for status in wanted
            if status.state is not State.RUNNING
        ),
    )
