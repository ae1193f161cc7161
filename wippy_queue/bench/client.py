"""A client library without an engine, as somebody who knows it well would use it for the same work.

A feeder hands at most a window of messages to the workers, and one thread settles what they have finished, in whatever
batches have come together meanwhile. What is sent is stored when the call returns. No attempts, no delays, no limits,
nothing that mends a lost connection: the distance to it is what the engine and its driver cost on that backend.
"""

from __future__ import annotations

import abc
import queue
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

from wippy_queue.errors import Internal, Timeout

WAIT: Final = 0.1  # seconds of one fetch from an empty queue

Fetched = list[tuple[Any, bytes]]  # what a message is settled with, and its body
Handler = Callable[[bytes], Any]


class Client(abc.ABC):
    """Two queues: what is sent to ``tasks`` is handled, what handlers send to ``done`` stays there.

    Args:
        address: of the backend; None: where its driver would look.
        window: how many messages may be in this process, those in the workers' hands included.

    Thread safety: ``send`` and ``send_many`` may be called from any thread; what else is said of a method.
    """

    def __init__(self, address: str | None, window: int) -> None:
        self.tasks = f"wippy-queue-bench-{uuid.uuid4().hex}"
        self.done = f"{self.tasks}-done"
        self._window = window
        self._todo: queue.SimpleQueue[tuple[Any, bytes] | None] = queue.SimpleQueue()
        self._settling: queue.SimpleQueue[Any] = queue.SimpleQueue()  # None ends both
        self._changed = threading.Condition()  # guards the three below
        self._out = 0  # messages that are fetched and not settled
        self._settled = 0
        self._error: Exception | None = None  # what has ended one of the threads
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    @abc.abstractmethod
    def send(self, name: str, body: bytes) -> None:
        """Store one message in the queue of that name."""

    @abc.abstractmethod
    def send_many(self, name: str, bodies: Sequence[bytes]) -> None:
        """Store messages in the queue of that name, in order."""

    @abc.abstractmethod
    def fetch(self, limit: int) -> Fetched:
        """Return up to ``limit`` tasks, which may take `WAIT`. One thread, always the same."""

    @abc.abstractmethod
    def ack(self, receipts: Sequence[Any]) -> None:
        """Settle; returns when it is done. One thread, that of ``fetch`` or another."""

    def start(self, handlers: Sequence[Handler]) -> None:
        """Begin to handle tasks, with one worker for each handler. The thread that made this."""
        targets = [self._feed, self._settle, *(lambda handler=handler: self._work(handler) for handler in handlers)]
        self._threads = [threading.Thread(target=self._run, args=(target,), daemon=True) for target in targets]
        for thread in self._threads:
            thread.start()

    def wait(self, handled: int, timeout: float) -> None:
        """Return when so many tasks are settled, counted from the beginning. Any thread.

        Raises:
            Timeout: they are not, after ``timeout`` seconds.
            Internal: they never will be, for a handler or the library has failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._settled >= handled or self._error, timeout)
            if self._error is not None:
                raise Internal(f"{type(self._error).__name__}: {self._error}") from self._error
            if self._settled < handled:
                raise Timeout(f"{self._settled} of {handled} messages are settled after {timeout:g} s")

    def close(self) -> None:
        """End, and remove the queues; the thread that made this."""
        self._stopping.set()
        for _ in self._threads:
            self._todo.put(None)
        self._settling.put(None)
        for thread in self._threads:
            thread.join(10)

    def _run(self, target: Callable[[], None]) -> None:
        try:
            target()
        except Exception as error:
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _feed(self) -> None:
        while not self._stopping.is_set():
            with self._changed:
                if not self._changed.wait_for(lambda: self._out < self._window, WAIT):
                    continue
                room = self._window - self._out
            fetched = self.fetch(room)
            with self._changed:
                self._out += len(fetched)
            for one in fetched:
                self._todo.put(one)

    def _work(self, handler: Handler) -> None:
        while (one := self._todo.get()) is not None:
            handler(one[1])
            self._settling.put(one[0])

    def _settle(self) -> None:
        while (first := self._settling.get()) is not None:
            receipts = [first]
            try:
                while (more := self._settling.get_nowait()) is not None:
                    receipts.append(more)
            except queue.Empty:
                pass
            self.ack(receipts)
            with self._changed:
                self._out -= len(receipts)
                self._settled += len(receipts)
                self._changed.notify_all()
