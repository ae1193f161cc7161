"""Dead letters: what is there, why, and back to where it came from. The same for parked messages, on every driver."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import attrs
import msgspec

from wippy_queue.codecs import decode_body
from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.driver import Subscription
from wippy_queue.durations import check_seconds
from wippy_queue.errors import Invalid, NotFound
from wippy_queue.flow.burial import Route
from wippy_queue.flow.walk import Pace, check_arguments, store, walk
from wippy_queue.ids import EntryId
from wippy_queue.message import (
    ATTEMPTS,
    DEAD_LETTER_ERROR,
    DEAD_LETTER_FUNCTION,
    DEAD_LETTER_REASON,
    DEAD_LETTER_TIME,
    NO_HEADERS,
    ORIGINAL_QUEUE,
    RESERVED_PREFIX,
    HeaderValue,
    Message,
)

_REASONS: Final = ("attempts", "not_retryable", "undecodable", "expired", "maxlen")
_UNCOUNTED: Final = 10_000  # messages that a selection may pass over where the driver cannot count them


@attrs.frozen(kw_only=True)
class DeadMessage:
    """A message that was given up: where it came from, why, and when (Unix seconds)."""

    id: str
    queue: str | None  # that it came from; None: it was published here by somebody else
    reason: str | None  # attempts, not_retryable, undecodable, expired, maxlen
    error: str | None
    function: str | None
    attempts: int
    time: float | None
    headers: Mapping[str, HeaderValue]
    message: Message = attrs.field(repr=False)

    def body(self) -> Any:
        """Return the decoded body; the bytes as they are where they cannot be decoded."""
        try:
            return decode_body(self.message)
        except Invalid:
            return self.message.body


@attrs.frozen(kw_only=True)
class Selection:
    """Which dead letters are meant; what is None does not matter.

    Args:
        ids: their message ids.
        reason: why they were given up.
        function: the id of the function whose handler gave up.
        queue: the queue that they came from.
        older_than: seconds since they were given up, at least.
        newer_than: seconds since they were given up, at most.
    """

    ids: Collection[str] | None = None
    reason: str | None = None
    function: str | None = None
    queue: str | None = None
    older_than: float | None = None
    newer_than: float | None = None

    def __attrs_post_init__(self) -> None:
        ids: Any = self.ids
        if ids is not None and (isinstance(ids, (str, bytes)) or not isinstance(ids, Collection)):
            raise Invalid(f"ids: expected a list of message ids, found {ids!r}")
        if self.reason is not None and self.reason not in _REASONS:
            raise Invalid(f"reason: expected one of {', '.join(_REASONS)}, found {self.reason!r}")
        for name in ("function", "queue"):
            if not isinstance(getattr(self, name), str | None):
                raise Invalid(f"{name}: expected an id, found {getattr(self, name)!r}")
        for name in ("older_than", "newer_than"):
            if getattr(self, name) is not None:
                check_seconds(getattr(self, name), name)

    def takes(self, dead: DeadMessage, now: float) -> bool:
        """Return whether the dead letter is meant."""
        age = None if dead.time is None else now - dead.time
        return (
            (self.ids is None or dead.id in self.ids)
            and (self.reason is None or dead.reason == self.reason)
            and (self.function is None or dead.function == self.function)
            and (self.queue is None or dead.queue == self.queue)
            and (self.older_than is None or (age is not None and age >= self.older_than))
            and (self.newer_than is None or (age is not None and age <= self.newer_than))
        )


_ALL: Final = Selection()
_DeadMessages = list[DeadMessage]  # inside the class, `list` is a verb
_ByTarget = dict[EntryId, list[Delivery]]


@attrs.frozen(kw_only=True)
class ReplayReport:
    """What a replay did, by message id: ``failed`` ones, with the reason, stayed where they were."""

    replayed: tuple[str, ...] = ()
    failed: Mapping[str, str] = attrs.field(factory=dict)


class DeadLetters:
    """The dead letters of a queue.

    Thread safety: every method may be called from any thread, also while consumers run.
    """

    def __init__(self, route: Route, routes: Mapping[EntryId, Route]) -> None:
        self._route = route
        self._routes = routes

    def list(self, selection: Selection = _ALL, limit: int = 100) -> _DeadMessages:
        """Return up to ``limit`` of them, the oldest first, and leave them where they are."""
        _check(selection)
        check_arguments(limit=limit)
        now = time.time()
        queue, driver = self._route.queue, self._route.driver
        # A selection may pass over any number, so all of the queue is looked at; without one the first are enough.
        reach = limit if selection == _ALL else max(limit, driver.info(queue).message_count or 0)
        found = (describe(message) for message in driver.peek(queue, reach))
        return [dead for dead in found if selection.takes(dead, now)][:limit]

    def show(self, message_id: str) -> DeadMessage:
        """Return one.

        Raises:
            NotFound: there is none of that id.
        """
        for dead in self.list(Selection(ids=[message_id]), 1):
            return dead
        raise NotFound(f"there is no dead letter {message_id!r} in {self._route.queue.id}")

    def replay(
        self,
        selection: Selection = _ALL,
        *,
        to: str | None = None,
        rate: float | None = None,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> ReplayReport:
        """Put dead letters back into the queues that they came from, with the same ids and as if never tried.

        Each is published first and removed second: a crash in between leaves a second copy, never a loss.

        Args:
            selection: which ones.
            to: the id of a queue to put them into instead.
            rate: messages per second at most; None: as fast as it goes.
            dry_run: tell what would be done, and do nothing.
            progress: called now and then with how many are done.
            cancel: ends the replay early when it is set.

        Raises:
            Invalid: ``rate`` is not above 0.
            NotFound: there is no queue ``to``.
        """
        _check(selection)
        check_arguments(progress=progress, cancel=cancel)
        pace = Pace(rate, cancel)
        target: Any = to
        if target is not None and (not isinstance(target, str) or target not in self._routes):
            raise NotFound(f"no queue {to!r} is declared")
        if dry_run:
            return self._plan(selection, to)
        replayed: list[str] = []
        failed: dict[str, str] = {}

        def send(subscription: Subscription, deliveries: Sequence[Delivery]) -> None:
            for target, group in self._by_target(deliveries, to, failed).items():
                errors = store(self._routes[target], [revived(d.message) for d in group])
                failed.update((d.message.id, str(e)) for d, e in zip(group, errors, strict=True) if e is not None)
                stored = [d for d, e in zip(group, errors, strict=True) if e is None]
                subscription.settle([Settlement(d) for d in stored if d.claim()])
                replayed.extend(d.message.id for d in stored)
                if progress is not None:
                    progress(len(replayed))
            pace.wait(len(deliveries))

        self._walk(selection, send, pace)
        return ReplayReport(replayed=tuple(replayed), failed=failed)

    def purge(self, selection: Selection = _ALL) -> int:
        """Remove dead letters for good, and return how many."""
        _check(selection)
        if selection == _ALL:
            return self._route.driver.purge(self._route.queue)
        removed = 0

        def remove(subscription: Subscription, deliveries: Sequence[Delivery]) -> None:
            nonlocal removed
            settlements = [Settlement(delivery) for delivery in deliveries if delivery.claim()]
            subscription.settle(settlements)
            removed += len(settlements)

        self._walk(selection, remove, Pace())
        return removed

    def _plan(self, selection: Selection, to: str | None) -> ReplayReport:
        count = self._route.driver.info(self._route.queue).message_count or 0
        failed: dict[str, str] = {}
        chosen = [Delivery(dead.message, None) for dead in self.list(selection, max(1, count))]
        groups = self._by_target(chosen, to, failed)
        return ReplayReport(
            replayed=tuple(delivery.message.id for group in groups.values() for delivery in group), failed=failed
        )

    def _by_target(self, deliveries: Sequence[Delivery], to: str | None, failed: dict[str, str]) -> _ByTarget:
        groups: _ByTarget = {}
        for delivery in deliveries:
            target = to or delivery.message.headers.get(ORIGINAL_QUEUE)
            if target is None:
                failed[delivery.message.id] = f"it has no header {ORIGINAL_QUEUE}; say where to put it"
            elif target not in self._routes:
                failed[delivery.message.id] = f"no queue {target!r} is declared here"
            else:
                groups.setdefault(EntryId(target), []).append(delivery)
        return groups

    def _walk(self, selection: Selection, act: Callable[[Subscription, Sequence[Delivery]], None], pace: Pace) -> None:
        """Take every message once and act on those that are selected."""
        route, now = self._route, time.time()
        total = route.driver.info(route.queue).message_count

        def act_on_selected(subscription: Subscription, deliveries: Sequence[Delivery]) -> None:
            chosen = [delivery for delivery in deliveries if selection.takes(describe(delivery.message), now)]
            if chosen:
                act(subscription, chosen)

        walk(route, act_on_selected, pace=pace, window=total or _UNCOUNTED, limit=total)


def _check(selection: object) -> None:
    if not isinstance(selection, Selection):
        raise Invalid(f"expected a Selection, found {selection!r}")


def describe(message: Message) -> DeadMessage:
    """Return a dead letter as its headers tell it."""
    headers = message.all_headers()
    attempts, when = headers[ATTEMPTS], headers.get(DEAD_LETTER_TIME)
    return DeadMessage(
        id=message.id,
        queue=_text(headers.get(ORIGINAL_QUEUE)),
        reason=_text(headers.get(DEAD_LETTER_REASON)),
        error=_text(headers.get(DEAD_LETTER_ERROR)),
        function=_text(headers.get(DEAD_LETTER_FUNCTION)),
        attempts=attempts if isinstance(attempts, int) else 0,
        time=when if isinstance(when, (int, float)) else None,
        headers=headers,
        message=message,
    )


def revived(message: Message) -> Message:
    """Return a dead letter as it was before it died, published now."""
    headers = {
        key: value for key, value in message.headers.items() if key != ATTEMPTS and not key.startswith(RESERVED_PREFIX)
    }
    return msgspec.structs.replace(
        message,
        headers=headers or NO_HEADERS,
        timestamp=time.time(),
        attempts=0,
        delay=0.0,
        expires_at=None,
        edition=uuid.uuid4().hex,
    )


def _text(value: HeaderValue | None) -> str | None:
    return value if isinstance(value, str) else None
