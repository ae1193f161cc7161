"""Step 4: a worker, one thread, with a handler session of its own for life."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from wippy_queue.delivery import Delivery
from wippy_queue.driver import Subscription
from wippy_queue.errors import Internal
from wippy_queue.flow.prefetch import Holder, PrefetchBuffer
from wippy_queue.flow.settle import Settler
from wippy_queue.flow.tempo import Tempo
from wippy_queue.handler import ACK, Handler, Session, WorkerContext


class Worker(Holder):
    """Takes a delivery, or several while the handler is fast, runs the handler, passes the outcomes on; then the next.

    Thread safety: ``run`` is the worker's thread; ``kill`` and ``late`` may be called from any; ``hand`` may be read
    from any.
    """

    def __init__(
        self,
        handler: Handler,
        context: WorkerContext,
        buffer: PrefetchBuffer,
        subscription: Subscription,
        settler: Settler,
        tempo: Tempo,
    ) -> None:
        super().__init__()
        self._handler = handler
        self._context = context
        self._buffer = buffer
        self._subscription = subscription
        self._settler = settler
        self._tempo = tempo
        self._session: Session | None = None
        self.index = context.worker
        self.thread_id: int | None = None  # None: it has not begun, or has ended
        self.native_id: int | None = None  # the same for the operating system
        self.begun: float | None = None  # monotonic; when the handler started
        self._slow = False  # the handler takes its time with what is in hand

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
            while hand := self._buffer.take(self):
                self._process(self._session, hand)
                self.hand, self.begun = (), None
                self._session.renew()
        except BaseException as error:
            on_failure(error if isinstance(error, Exception) else Internal(f"{type(error).__name__}: {error}"))
        finally:
            self.thread_id = None
            if self._session is not None:
                self._session.close()

    def kill(self) -> None:
        self._context.over = True
        if self._session is not None:
            self._session.kill()

    def part(self, place: int) -> None:
        """The message in that place of the hand takes its time, so it stays alone: see `WorkerContext.part`."""
        self._slow = True
        self._tempo.slow()
        if self.away and len(self.hand) == 1:
            return  # nothing waits behind it, and nobody counts on this worker
        done, tail = self.hand[: place - 1], self.hand[place:]
        self.hand, self.begun = self.hand[place - 1 : place], time.monotonic()
        self._settler.ack_many(done)
        self._retract(tail)
        self._buffer.leave(self)

    def late(self) -> None:
        """The handler takes its time: others have to look after the buffer."""
        self._slow = True
        self._buffer.leave(self)

    def _process(self, session: Session, hand: Sequence[Delivery]) -> None:
        """Run the handler and settle; deliveries that were not begun go back in front of the buffer."""
        hand = self.hand = self._begin(hand)
        if not hand:
            return
        if self._context.auto_ack:
            self._settler.ack_many(hand)
        self._slow = False
        self.begun, cpu = time.monotonic(), time.thread_time()  # of the clock, much goes by while other threads run
        # A word of the watchdog about the hand before this one may come now, so being away alone says nothing.
        outcomes = session.handle(hand, alone=self.away and len(hand) == 1)
        self.begun = None  # what it takes to settle is no time of the handler's
        if outcomes and not self._slow:
            self._tempo.handled(time.thread_time() - cpu, len(outcomes))
        if outcomes.count(ACK) == len(hand):
            self._settler.ack_many(hand)
            return
        self._settler.ack_many([d for d, outcome in zip(hand, outcomes, strict=False) if outcome.ok])
        rest = [delivery for delivery in hand[len(outcomes) :] if delivery in self.hand]
        self.hand = hand[: len(outcomes)]
        self._retract(rest)
        for delivery, outcome in zip(hand, outcomes, strict=False):
            if not outcome.ok:
                self._buffer.leave(self)  # a dead letter may take its time
                self._settler.settle(delivery, outcome)

    def _begin(self, hand: Sequence[Delivery]) -> Sequence[Delivery]:
        """Begin with what may be handled together.

        Should the process die, all of the hand count an attempt, and some of them never had it. So it happens to a
        message at most once: one that was tried before is handled alone.
        """
        for place, delivery in enumerate(hand):
            if delivery.message.attempts:
                rest, hand = hand[place or 1 :], hand[: place or 1]
                self.hand = hand
                self._give_back(rest)
                if place == 0:
                    self._buffer.leave(self)  # nobody waits for it: it is handled alone, or a dead letter
                    if self._settler.give_up_if_spent(delivery):
                        return ()
                break
        return self._subscription.begin(hand)

    def _retract(self, deliveries: Sequence[Delivery]) -> None:
        """Give back what has begun together with others, and has not started after all."""
        if deliveries:
            self._subscription.retract(deliveries)
            self._give_back(deliveries)

    def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries and not self._buffer.put_back(deliveries):
            self._settler.release(deliveries)
