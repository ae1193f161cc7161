"""Step 4: a worker, one thread, with a handler session of its own for life."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from wippy_queue.delivery import Delivery
from wippy_queue.driver import Subscription
from wippy_queue.flow.prefetch import PrefetchBuffer
from wippy_queue.flow.settle import Settler
from wippy_queue.handler import Handler, Session, WorkerContext


class Worker:
    """Takes a delivery, runs the handler, passes the outcome on; then the next.

    Thread safety: ``run`` is the worker's thread; ``kill`` may be called from any; ``current`` may be read from any.
    """

    def __init__(
        self,
        handler: Handler,
        context: WorkerContext,
        buffer: PrefetchBuffer,
        subscription: Subscription,
        settler: Settler,
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
        self.current: Delivery | None = None  # in hand, its handler started or about to
        self.begun: float | None = None  # monotonic; when the handler of ``current`` started
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
            while not self.retired and (delivery := self._buffer.take(self)) is not None:
                self._process(self._session, delivery)
        except Exception as error:
            on_failure(error)
        finally:
            self.thread_id = None
            if self._session is not None:
                self._session.close()

    def kill(self) -> None:
        if self._session is not None:
            self._session.kill()

    def _process(self, session: Session, delivery: Delivery) -> None:
        if not self._settler.is_spent(delivery) and self._subscription.begin(delivery):
            if self._context.auto_ack:
                self._settler.ack(delivery)
            self.begun = time.monotonic()
            outcome = session.handle(delivery)
            self._settler.settle(delivery, outcome)
        self.current = self.begun = None
