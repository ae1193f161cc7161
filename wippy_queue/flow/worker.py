"""Step 4: a worker, one thread, with a handler session of its own for life."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from wippy_queue.delivery import Delivery
from wippy_queue.driver import Subscription
from wippy_queue.flow.prefetch import PrefetchBuffer
from wippy_queue.flow.settle import Settler
from wippy_queue.handler import Handler, Session, WorkerContext

_SPAN: Final = 1e-3  # seconds that the messages which a worker takes at a time may last together
_ALONE: Final = 64


class Worker:
    """Takes a delivery, or several while the handler is fast, runs the handler, passes the outcomes on; then the next.

    Thread safety: ``run`` is the worker's thread; ``kill`` may be called from any; ``hand`` may be read from any.
    """

    def __init__(
        self,
        handler: Handler,
        context: WorkerContext,
        buffer: PrefetchBuffer,
        subscription: Subscription,
        settler: Settler,
        batch: int = 1,
    ) -> None:
        self._handler = handler
        self._context = context
        self._buffer = buffer
        self._subscription = subscription
        self._settler = settler
        self._session: Session | None = None
        self.index = context.worker
        self.thread_id: int | None = None  # None: it has not begun, or has ended
        self.native_id: int | None = None  # the same for the operating system
        self.hand: Sequence[Delivery] = ()  # taken; the handler has started, or is about to
        self.begun: float | None = None  # monotonic; when the handler started
        self._most = 1  # deliveries that are taken at a time; above 1 only while the handler is fast
        self._limit = batch
        self._alone = 0  # how many more are taken one at a time, after a batch had to be parted
        self.retired = False  # stuck and replaced: it ends when its handler comes back, if ever

    def run(self, on_ready: Callable[[], None], on_failure: Callable[[Exception], None]) -> None:
        """Work until the buffer is closed.

        Args:
            on_ready: called once, when the session is there.
            on_failure: called with the error when there can be no session, or when a step of ours breaks.
        """
        self.thread_id, self.native_id = threading.get_ident(), threading.get_native_id()
        try:
            self._session = self._handler.open(self._context)
            on_ready()
            while not self.retired and (hand := self._buffer.take(self, self._most)):
                if len(hand) == 1:
                    self._process(self._session, hand[0])
                else:
                    self._process_many(self._session, hand)
                self.hand, self.begun = (), None
        except Exception as error:
            on_failure(error)
        finally:
            self.thread_id = None
            if self._session is not None:
                self._session.close()

    def kill(self) -> None:
        if self._session is not None:
            self._session.kill()

    def part(self, place: int) -> None:
        """The batch in hand ends with the message in that place: see `WorkerContext.part`."""
        done, tail = self.hand[: place - 1], self.hand[place:]
        self.hand = self.hand[place - 1 : place]
        self._settler.ack_many(done)
        self._give_back(tail)
        self._most, self._alone = 1, _ALONE

    def _process(self, session: Session, delivery: Delivery) -> None:
        if self._settler.is_spent(delivery) or not self._subscription.begin(delivery):
            return
        if self._context.auto_ack:
            self._settler.ack(delivery)
        self.begun = begun = time.monotonic()
        outcome = session.handle(delivery)
        if self._limit > 1:
            self._adapt(time.monotonic() - begun, 1)
        self._settler.settle(delivery, outcome)

    def _process_many(self, session: Session, hand: Sequence[Delivery]) -> None:
        """The same for several in one crossing; those that were not begun go back in front of the buffer."""
        hand = self.hand = [d for d in hand if not self._settler.is_spent(d) and self._subscription.begin(d)]
        if not hand:
            return
        self.begun = begun = time.monotonic()
        outcomes = session.handle_many(hand)
        self._adapt(time.monotonic() - begun, len(outcomes) or 1)
        self._settler.ack_many([d for d, outcome in zip(hand, outcomes, strict=False) if outcome.ok])
        for delivery, outcome in zip(hand, outcomes, strict=False):
            if not outcome.ok:
                self._settler.settle(delivery, outcome)
        left = [delivery for delivery in hand[len(outcomes) :] if delivery in self.hand]
        if left:
            self._give_back(left)

    def _adapt(self, seconds: float, count: int) -> None:
        """Take more at a time while the handler is fast, one at a time when it is not."""
        if self._alone:
            self._alone -= 1
        else:
            self._most = max(1, min(self._most * 2, self._limit, int(_SPAN * count / seconds) if seconds else 1))

    def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries and not self._buffer.put_back(deliveries):
            self._settler.release(deliveries)
