"""What tells the handlers of a consumer that it stops, and ends their waits."""

from __future__ import annotations

import contextlib
import threading


class Cancellation(threading.Event):
    """An event that many threads wait for at the same time, nearly always until their time is up.

    A wait for an ordinary one takes the lock of the event twice and searches a list of all who wait. Here each wait has
    a lock of its own, which ``set`` opens.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: set[threading.Lock] = set()

    def set(self) -> None:
        super().set()
        with contextlib.suppress(KeyError):  # empty
            while True:
                self._sleepers.pop().release()

    def wait(self, timeout: float | None = None) -> bool:
        sleeper = threading.Lock()
        sleeper.acquire()
        self._sleepers.add(sleeper)
        try:  # the flag is read after that, and `set` writes and reads them in the other order
            return self.is_set() or sleeper.acquire(True, -1 if timeout is None else max(0.0, timeout))
        finally:
            self._sleepers.discard(sleeper)
