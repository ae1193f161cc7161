"""A consumer's share of a queue: claims in batches, settles in batches, one lease for all that it holds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.drivers.redis import scripts, wire
from wippy_queue.drivers.redis.leases import Batch, Owner, Receipt, settle_request, tell
from wippy_queue.drivers.redis.line import Reply
from wippy_queue.drivers.redis.marks import MarkLine, pack
from wippy_queue.drivers.redis.transport import Request, Transport
from wippy_queue.drivers.redis.trouble import Trouble
from wippy_queue.drivers.redis.waiting import LocalQueue
from wippy_queue.drivers.signal import Signal
from wippy_queue.errors import Conflict, Unavailable, WippyQueueError

_log = logging.getLogger(__name__)

_CLAIM: Final = 500  # messages that one claim brings at most
_FLUSH: Final = 1000  # settlements in one flush
_PAUSE: Final = 0.05  # seconds between two claims that fail, at least; a line that is down waits longer
_QUICK: Final = 0.25  # seconds that a claim is given at least
_CLOSE: Final = 5.0  # seconds that a close may take
_CLOSE_IN_TROUBLE: Final = 1.0  # the same when the server does not answer
_FIELDS: Final = 4  # of a message in the answer to a claim


class Helpers(Protocol):
    """What a subscription asks the threads of its driver for."""

    def flush(self, subscription: RedisSubscription) -> None: ...

    def tend(self, queue: LocalQueue) -> None: ...

    def drop(self, queue: LocalQueue) -> None: ...


class RedisSubscription:
    """One consumer; it is the owner of the leases that it holds.

    Thread safety: as the contract says. ``_lock`` is held for moments only, never for a call to the server.
    """

    def __init__(
        self,
        queue: LocalQueue,
        transport: Transport,
        marks: MarkLine,
        helpers: Helpers,
        *,
        inbox: bytes,
        window: int,
        lease: float,
        on_close: Callable[[RedisSubscription], None],
    ) -> None:
        self.queue = queue
        self._transport = transport
        self._marks = marks
        self._helpers = helpers
        self._inbox = inbox
        self._window = window
        self._lease = lease
        self._on_close = on_close
        self._signal = Signal()
        self._lock = threading.Lock()  # guards what follows
        self._owner = Owner(queue.base, lease)
        self._held: dict[bytes, Receipt] = {}  # by message id; settled ones until the server has confirmed
        self._pending: list[Settlement] = []
        self._marking: list[Receipt] = []  # begun, and the server may not know
        self._sending: Batch | None = None
        self._flushed = threading.Condition(self._lock)  # a batch is through, or a claim
        self._claiming = False
        self._hungry = False  # receive waits, and has room
        self._cancelled = False
        self._closing = False
        self._troubled_since: float | None = None

    # receiving

    def receive(self, limit: int, timeout: float) -> list[Delivery]:
        deadline = time.monotonic() + timeout
        while not self._cancelled:
            seen = self._signal.count
            wait = deadline - time.monotonic()
            room = min(limit, self._window - len(self._held), _CLAIM)
            if room > 0:
                self._hungry = True
                deliveries, due = self._claim(room, wait)
                if deliveries:
                    self._hungry = False
                    return deliveries
                if due is not None:
                    wait = min(wait, due)
            if time.monotonic() >= deadline:
                break
            self._signal.wait(seen, max(0.0, wait))
        self._hungry = False
        return []

    def _claim(self, room: int, wait: float) -> tuple[list[Delivery], float | None]:
        """Return deliveries, or none and when to look again, in seconds."""
        with self._lock:
            owner = self._owner
            owner.claims += 1
            known = list(self._held) if owner.strays else []
            recover, owner.strays = owner.strays, True
            flags = (int(not owner.entered), int(recover))
            self._claiming = True
        asked = time.monotonic()
        lease = wire.milliseconds(self._lease)
        request = Request(
            "claim", self.queue.base, (owner.token, owner.claims, room, lease, self._inbox, *flags, *known)
        )
        try:
            answer = self._transport.attempt(request, asked + max(wait, _QUICK))
        except Trouble as error:
            if not error.unknown:
                owner.strays = recover
            self._endure(error)
            return [], _PAUSE
        finally:
            with self._lock:
                self._claiming = False
                self._flushed.notify_all()
        self._troubled_since = None
        if answer[0] == scripts.LOST:
            self.lose(owner, Conflict("the lease ran out, or the server has lost its data"))
            return [], 0.0
        if answer[0] == scripts.STALE:
            return [], 0.0
        if answer[2]:
            self._helpers.drop(self.queue)
        parts = answer[3:]
        deliveries = []
        with self._lock:
            owner.strays = False
            owner.extended(asked)
            if not owner.alive:
                return [], 0.0  # lost or closed meanwhile: they went back with the rest, or will when the lease ends
            for first in range(0, len(parts), _FIELDS):
                message_id, place, meta, body = parts[first : first + _FIELDS]
                receipt = Receipt(owner, message_id, int(place))
                self._held[message_id] = receipt
                deliveries.append(Delivery(wire.decode(message_id, meta, body), receipt))
        return deliveries, answer[1] / 1000 if answer[1] >= 0 else None

    def _endure(self, error: Trouble) -> None:
        """Let a passing trouble pass; raise when it does not. The line itself waits between its tries."""
        now = time.monotonic()
        if self._troubled_since is None:
            self._troubled_since = now
            fields = {"queue": self.queue.queue.id, "error": str(error)}
            _log.warning("receiving from Redis fails; it is tried again", extra={"fields": fields})
        elif now - self._troubled_since >= self._lease:
            self._troubled_since = None
            raise Unavailable(f"queue {self.queue.queue.id}: no answer from Redis for {self._lease:g}s: {error}")

    def wake(self) -> bool:
        hungry = self._hungry and not self._cancelled
        self._signal.set()
        return hungry

    def begin(self, delivery: Delivery) -> bool:
        receipt: Receipt = delivery.receipt
        owner = receipt.owner
        if not owner.alive or time.monotonic() >= owner.until:
            return False
        receipt.begun = True
        if not self._marks.send(self.queue.base, pack(b"ZADD", owner.held_key, b"XX", receipt.mark(), receipt.id)):
            with self._lock:
                self._marking.append(receipt)
            self._helpers.flush(self)
        return True

    # settling

    def settle(self, settlements: Sequence[Settlement]) -> None:
        late: list[Settlement] = []
        with self._lock:
            for settlement in settlements:
                if self._closing or not settlement.delivery.receipt.owner.alive:
                    late.append(settlement)
                else:
                    self._pending.append(settlement)
        self._helpers.flush(self)
        tell(late, self._too_late())

    def next_batch(self) -> Batch | None:
        """Return what is to be sent now: the same as before, if that has not been confirmed. The flusher only."""
        with self._lock:
            owner = self._owner
            if self._sending is None and (self._pending or self._marking) and owner.alive:
                batch, self._pending = self._pending[:_FLUSH], self._pending[_FLUSH:]
                settled = {settlement.delivery.receipt for settlement in batch}
                marks = [receipt for receipt in self._marking if receipt not in settled and receipt.owner is owner]
                self._marking = []
                owner.flushes += 1
                self._sending = Batch(owner, batch, settle_request(self.queue.base, owner, batch, marks))
            return self._sending

    def flushed(self, batch: Batch, asked: float, answer: Reply) -> bool:
        """Take the answer to a batch; return whether there is more to send, or the same again. The flusher only."""
        if isinstance(answer, Trouble):
            if time.monotonic() < batch.owner.until:
                return batch.owner.alive
            answer = Unavailable(f"no answer from Redis until the lease had ended: {answer}")
        if isinstance(answer, Exception):
            self.lose(batch.owner, answer)
            return False
        if answer[0] == scripts.LOST:
            self.lose(batch.owner, Conflict("the lease ran out, or the server has lost its data"))
            return False
        missing = set(answer[1:])
        lost: list[Settlement] = []
        done: list[Settlement] = []
        with self._lock:
            if self._sending is not batch:
                return False  # it was given up meanwhile
            self._sending = None
            batch.owner.extended(asked)
            for settlement in batch.settlements:
                receipt = settlement.delivery.receipt
                self._held.pop(receipt.id, None)
                (lost if receipt.id in missing else done).append(settlement)
            self._flushed.notify_all()
            more = bool(self._pending or self._marking)
        self._signal.set()
        self.queue.left.set()
        if any(s.action != "ack" and s.delivery.message.expires_at is not None for s in done):
            self._helpers.drop(self.queue)
        tell(done, None)
        tell(lost, self._too_late())
        return more

    # the lease

    def beat(self) -> tuple[Owner, Request] | None:
        """Return what extends the lease, when a third of it has passed. The keeper only."""
        owner = self._owner
        if not owner.alive or (owner.entered and owner.until - time.monotonic() > owner.lease * 2 / 3):
            return None
        arguments = (owner.token, wire.milliseconds(self._lease), int(not owner.entered))
        return owner, Request("beat", self.queue.base, arguments)

    def beaten(self, owner: Owner, asked: float, answer: Reply) -> None:
        if isinstance(answer, Exception):
            if time.monotonic() >= owner.until and owner.entered:
                self.lose(owner, answer)
        elif answer[0] == scripts.LOST:
            self.lose(owner, Conflict("the lease ran out, or the server has lost its data"))
        else:
            with self._lock:
                owner.extended(asked)

    @property
    def next_beat(self) -> float:
        """When to extend the lease, in monotonic seconds."""
        owner = self._owner
        return owner.until - owner.lease * 2 / 3 if owner.entered else 0.0

    def mark_again(self) -> None:
        """A connection was lost, and marks with it, perhaps."""
        with self._lock:
            self._marking = [receipt for receipt in self._held.values() if receipt.begun]
            more = bool(self._marking)
        if more:
            self._helpers.flush(self)

    def lose(self, owner: Owner, error: Exception) -> None:
        """Give up all that an owner holds: others may have it. Handlers that run can no longer settle."""
        with self._lock:
            if not owner.alive:
                return
            owner.alive = False
            held = len(self._held)
            given_up = [] if self._sending is None else self._sending.settlements
            given_up += self._pending
            self._sending, self._pending, self._marking, self._held = None, [], [], {}
            if not self._closing:
                self._owner = Owner(self.queue.base, self._lease)
            self._flushed.notify_all()
        if held:
            fields = {"queue": self.queue.queue.id, "messages": held, "error": str(error)}
            _log.warning("a lease was lost; its messages will come again", extra={"fields": fields})
        tell(given_up, self._too_late(error))
        self._signal.set()
        self._helpers.tend(self.queue)

    def _too_late(self, cause: Exception | None = None) -> WippyQueueError:
        kind = Unavailable if isinstance(cause, Unavailable) else Conflict
        reason = "" if cause is None else f": {cause}"
        return kind(f"queue {self.queue.queue.id}: too late to settle, the message will come again{reason}")

    # the end

    def cancel(self) -> list[Delivery]:
        self._cancelled = True
        self._signal.set()
        self._helpers.tend(self.queue)  # a wake-up that came at the same time is for somebody else now
        return []

    def close(self) -> None:
        self.close_by(time.monotonic() + _CLOSE)

    def close_by(self, deadline: float) -> None:
        """Close, within a time; what could not be sent by then comes again when the lease ends."""
        self.cancel()
        with self._lock:
            if self._closing:
                return
            self._closing = True
            owner = self._owner
            while owner.alive and (self._sending is not None or self._pending or self._claiming):
                if self._transport.troubled:
                    deadline = min(deadline, time.monotonic() + _CLOSE_IN_TROUBLE)
                if not self._flushed.wait(min(0.1, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    break
            alive, owner.alive = owner.alive, False
            given_up = [] if self._sending is None else self._sending.settlements
            given_up += self._pending
            self._sending, self._pending, self._marking, self._held = None, [], [], {}
        error: Exception | None = None
        if alive:
            error = self._leave(owner, deadline)
        tell(given_up, self._too_late(error))
        self.queue.left.set()
        self._helpers.drop(self.queue)
        self._on_close(self)

    def _leave(self, owner: Owner, deadline: float) -> Exception | None:
        request = Request("leave", self.queue.base, (owner.token,))
        try:
            try:
                self._transport.attempt(request, deadline)
            except Trouble:
                soon = min(deadline, time.monotonic() + _CLOSE_IN_TROUBLE)
                self._transport.persist(request, soon, "close")
        except WippyQueueError as error:
            fields = {"queue": self.queue.queue.id, "lease": self._lease, "error": str(error)}
            _log.warning("a consumer could not tell Redis that it leaves", extra={"fields": fields})
            return error
        return None
