"""Moving the messages of a queue to another queue, of the same driver or of another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import attrs
import msgspec

from wippy_queue.codecs import decode_body, encode_body
from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.driver import Capabilities, Subscription
from wippy_queue.errors import Invalid, Kind, WippyQueueError
from wippy_queue.flow.burial import Route
from wippy_queue.flow.walk import Pace, check_arguments, store, walk
from wippy_queue.ids import EntryId
from wippy_queue.message import Message

_MOST_FAILURES: Final = 10_000  # messages that could not be moved, after which a move ends: they are held until then


@attrs.frozen(kw_only=True)
class MoveReport:
    """What a move did.

    ``failed`` tells by message id what stayed, and why. ``left`` is what the source holds now, None where its driver
    cannot know: what has failed, is delayed, is in the hands of consumers or has come meanwhile.
    """

    moved: int = 0
    failed: Mapping[str, str] = attrs.field(factory=dict)
    left: int | None = None


def move(
    source: Route,
    target: Route,
    capabilities: Mapping[EntryId, Capabilities],
    *,
    limit: int | None = None,
    rate: float | None = None,
    lossy: bool = False,
    progress: Callable[[int], None] | None = None,
    cancel: threading.Event | None = None,
) -> MoveReport:
    """Move what waits; see `Engine.move`, which explains the arguments. ``capabilities`` are by driver id."""
    if source.queue.id == target.queue.id:
        raise Invalid(f"{source.queue.id} and {target.queue.id} are the same queue; name another one to move to")
    check_arguments(limit=1 if limit is None else limit, progress=progress, cancel=cancel)
    pace = Pace(rate, cancel)
    mover = _Mover(source, target, capabilities[target.queue.driver], lossy=lossy, pace=pace, progress=progress)
    exact = capabilities[source.queue.driver].exact_counts
    total = source.driver.info(source.queue).message_count if exact else None
    most = min((number for number in (limit, total) if number is not None), default=None)
    try:
        walk(source, mover.act, pace=pace, window=_MOST_FAILURES, limit=most)
    except WippyQueueError as error:
        error.details.update(moved=mover.moved, failed=mover.failed)
        raise
    return MoveReport(moved=mover.moved, failed=mover.failed, left=source.driver.info(source.queue).message_count)


class _Mover:
    """Publishes each message first and removes it second: whatever happens in between, none is lost."""

    def __init__(
        self,
        source: Route,
        target: Route,
        capabilities: Capabilities,
        *,
        lossy: bool,
        pace: Pace,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._source = source
        self._target = target
        self._capabilities = capabilities
        self._lossy = lossy
        self._pace = pace
        self._progress = progress
        self.moved = 0
        self.failed: dict[str, str] = {}

    def act(self, subscription: Subscription, deliveries: Sequence[Delivery]) -> None:
        fitting: list[tuple[Delivery, Message]] = []
        for delivery in deliveries:
            try:
                fitting.append((delivery, self._fitted(delivery.message)))
            except Invalid as error:
                self.failed[delivery.message.id] = str(error)
        errors = self._store([message for _, message in fitting])
        stored = [delivery for (delivery, _), error in zip(fitting, errors, strict=True) if error is None]
        subscription.settle([Settlement(d, done=partial(self._removed, d.message.id)) for d in stored if d.claim()])
        self.moved += len(stored)
        for (delivery, _), failure in zip(fitting, errors, strict=True):
            if failure is None:
                continue
            if failure.kind is not Kind.INVALID:
                raise failure  # it is about the target: the next message would fare no better
            self.failed[delivery.message.id] = str(failure)
        if self._progress is not None:
            self._progress(self.moved)
        self._pace.wait(len(deliveries))

    def _store(self, messages: Sequence[Message]) -> list[WippyQueueError | None]:
        errors = store(self._target, messages) if messages else []
        if not self._lossy:
            return errors
        # Whether a queue takes priorities may be up to its options, which only its driver knows.
        return [
            store(self._target, [msgspec.structs.replace(message, priority=0)])[0]
            if error is not None and error.kind is Kind.INVALID and message.priority
            else error
            for message, error in zip(messages, errors, strict=True)
        ]

    def _fitted(self, message: Message) -> Message:
        """Return the message as the target takes it. Raises Invalid where something would be lost that may not be."""
        able = self._capabilities
        lost = [
            name
            for name, wanted in (
                ("priority", message.priority and not able.priority),
                ("ttl", message.expires_at is not None and not able.ttl),
            )
            if wanted
        ]
        if lost and not self._lossy:
            what = " and ".join(lost)
            raise Invalid(f"driver {self._target.queue.driver} cannot honour its {what}; a lossy move leaves that out")
        body, encoding = message.body, message.encoding
        if encoding not in ("binary", self._target.queue.encoding):
            body, encoding = encode_body(decode_body(message), self._target.queue.encoding)
        return msgspec.structs.replace(
            message,
            body=body,
            encoding=encoding,
            delay=0.0,  # it is due
            priority=0 if "priority" in lost else message.priority,
            expires_at=None if "ttl" in lost else message.expires_at,
            edition=self._source.queue.id,  # so that it can come back, and a move that is resumed stores it once
        )

    def _removed(self, message_id: str, error: Exception | None) -> None:
        if error is not None:
            self.failed[message_id] = f"moved, but still in {self._source.queue.id} as well: {error}"
