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
_GOODBYE: Final = 1.0  # seconds of a close for the server's answer, where nothing is left to settle
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
        self._left = threading.Condition(self._lock)  # the owner is alive no more
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
            if self._closing:
                self._helpers.flush(self)
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

    def begin(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        now = time.monotonic()
        valid = [d for d in deliveries if d.receipt.owner.alive and now < d.receipt.owner.until]
        receipts: list[Receipt] = [delivery.receipt for delivery in valid]
        if not self._mark(receipts, begun=True):
            with self._lock:
                self._marking += receipts
            self._helpers.flush(self)
        return valid

    def retract(self, deliveries: Sequence[Delivery]) -> None:
        receipts: list[Receipt] = [delivery.receipt for delivery in deliveries]
        with self._lock:
            self._marking = [receipt for receipt in self._marking if receipt not in receipts]
        self._mark(receipts, begun=False)

    def _mark(self, receipts: Sequence[Receipt], begun: bool) -> bool:
        """Tell the server which handlers have begun, or have not after all; False when it could not be told now."""
        sent = True
        for owner in dict.fromkeys(receipt.owner for receipt in receipts):  # nearly always one
            marks: list[bytes] = []
            for receipt in receipts:
                if receipt.owner is owner:
                    receipt.begun = begun
                    marks += (receipt.mark(), receipt.id)
            sent = self._marks.send(self.queue.base, pack(b"ZADD", owner.held_key, b"XX", *marks)) and sent
        return sent

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
        if late:
            tell(late, self._too_late())

    def next_batch(self) -> Batch | None:
        """Return what is to be sent now: the same as before, if that has not been confirmed. The flusher only."""
        with self._lock:
            owner = self._owner
            if self._sending is not None or not owner.alive:
                pass
            elif self._pending or self._marking:
                batch, self._pending = self._pending[:_FLUSH], self._pending[_FLUSH:]
                settled = {settlement.delivery.receipt for settlement in batch}
                marks = [receipt for receipt in self._marking if receipt not in settled and receipt.owner is owner]
                self._marking = []
                owner.flushes += 1
                self._sending = Batch(owner, batch, settle_request(self.queue.base, owner, batch, marks))
            elif self._closing and not self._claiming:  # a claim that came later would make it an owner again
                self._sending = Batch(owner, [], Request("leave", self.queue.base, (owner.token,)), leaves=True)
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
            if batch.leaves:
                self._end(batch.owner)
            more = bool(self._pending or self._marking) or (self._closing and batch.owner.alive)
        self._signal.set()
        self.queue.left.set()
        if any(s.action != "ack" and s.delivery.message.expires_at is not None for s in done):
            self._helpers.drop(self.queue)
        tell(done, None)
        if lost:
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
            held = len(self._held)
            given_up = self._end(owner)
            if not self._closing:
                self._owner = Owner(self.queue.base, self._lease)
        if held:
            fields = {"queue": self.queue.queue.id, "messages": held, "error": str(error)}
            _log.warning("a lease was lost; its messages will come again", extra={"fields": fields})
        tell(given_up, self._too_late(error))
        self._signal.set()
        self._helpers.tend(self.queue)

    def _end(self, owner: Owner) -> list[Settlement]:
        """Forget what an owner holds, and return what it had still to settle. Caller holds the lock."""
        owner.alive = False
        given_up = [] if self._sending is None else self._sending.settlements
        given_up += self._pending
        self._sending, self._pending, self._marking, self._held = None, [], [], {}
        self._left.notify_all()
        return given_up

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

    def close(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self.begin_close()
        self.wait_closed(deadline)

    def begin_close(self) -> None:
        """Have the flusher send what is left, and then that we leave."""
        self.cancel()
        with self._lock:
            self._closing = True
        self._helpers.flush(self)

    def wait_closed(self, deadline: float) -> None:
        """Wait for that until ``deadline`` (monotonic seconds); what is not sent by then comes when the lease ends."""
        now = time.monotonic()
        with self._lock:
            owner = self._owner
            self._left.wait_for(lambda: not owner.alive, max(0.0, min(_GOODBYE, deadline - now)))
            if self._pending or (self._sending is not None and self._sending.settlements):
                self._left.wait_for(lambda: not owner.alive, max(0.0, deadline - time.monotonic()))
            late = owner.alive
            given_up = self._end(owner)
        if late:
            fields = {"queue": self.queue.queue.id, "lease": self._lease, "settlements": len(given_up)}
            _log.warning("a consumer could not tell Redis in time that it leaves", extra={"fields": fields})
        tell(given_up, self._too_late(Unavailable("no answer from Redis in time")))
        self.queue.left.set()
        self._helpers.drop(self.queue)
        self._on_close(self)
