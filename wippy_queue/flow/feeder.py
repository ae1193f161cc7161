"""Step 2: the feeder, one thread a consumer, between the driver and the buffer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from wippy_queue.delivery import Delivery
from wippy_queue.driver import DirectSubscription, Subscription
from wippy_queue.errors import Unavailable
from wippy_queue.flow.prefetch import PrefetchBuffer

RECEIVE_TIMEOUT: Final = 5.0  # seconds; how often an idle feeder shows that it is alive
_DEAF_AFTER: Final = 3  # receives in a row that bring nothing although something is ready


class Feeder:
    """Takes from the driver as many deliveries as there is room for.

    Thread safety: ``run`` is the feeder thread; the attributes may be read from any thread.
    """

    def __init__(
        self,
        subscription: Subscription,
        buffer: PrefetchBuffer,
        waiting: Callable[[], int],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._receive = subscription.receive
        if isinstance(subscription, DirectSubscription):
            self._receive = partial(subscription.receive_into, self._feed)
        self._fed = False  # while it asked, something came past it
        self._buffer = buffer
        self._waiting = waiting  # how many messages are ready, as the driver tells
        self._missed = 0  # how often in a row nothing came although something was ready
        self._on_failure = on_failure
        self.left_over: list[Delivery] = []  # received when the buffer was closed already; valid once run() returned
        self.asking_since: float | None = None  # monotonic; None while it waits for room

    def run(self) -> None:
        try:
            while room := self._buffer.wait_room():
                self.asking_since, self._fed = time.monotonic(), False
                deliveries = self._receive(room, RECEIVE_TIMEOUT)
                self.asking_since = None
                if deliveries and not self._buffer.put_many(deliveries):
                    self.left_over = deliveries
                elif deliveries or self._fed:
                    self._missed = 0
                else:
                    self._listen()
        except Exception as error:
            self._on_failure(error)

    def _feed(self, deliveries: Sequence[Delivery]) -> bool:
        """The driver hands over what has come, in the thread that brought it."""
        self._fed = True
        return self._buffer.put_many(deliveries)

    def _listen(self) -> None:
        """Nothing came: that is as it should be, or this consumer has gone deaf."""
        self._missed = self._missed + 1 if self._waiting() else 0
        if self._missed >= _DEAF_AFTER:
            raise Unavailable(
                f"nothing was received for {_DEAF_AFTER * RECEIVE_TIMEOUT:g} s although messages are ready"
            )
