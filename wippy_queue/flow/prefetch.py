"""Step 3: the bounded buffer between the feeder and the workers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Final

from wippy_queue.delivery import Delivery
from wippy_queue.flow.tempo import Tempo

_GATHER: Final = 0.005  # seconds


class Holder:
    """Who takes deliveries out; ``away`` is the buffer's to write."""

    def __init__(self) -> None:
        self.hand: Sequence[Delivery] = ()  # taken; the handler has started with the first one, or is about to
        self.away = True  # takes its time, or may: it does not count as one that will soon take again
        self.retired = False  # gets nothing any more; the buffer's to write
        self.bell = threading.Lock()  # locked, but for the moment when it is woken
        self.bell.acquire()


class PrefetchBuffer(queue.Queue[Delivery]):
    """A ``queue.Queue`` of ``prefetch`` deliveries that can be closed, and gives back what it holds then.

    Args:
        prefetch: how many it holds.
        tempo: how fast the handler is.

    Thread safety: ``wait_room`` and ``put_many`` for the one feeder; ``close`` for anyone; the rest for any worker.
    """

    def __init__(self, prefetch: int, tempo: Tempo) -> None:
        super().__init__(prefetch)
        self._tempo = tempo
        self._closed = False
        self._full = False  # the feeder waits for the first room
        self._gathering = False  # the feeder waits for more room
        self._busy = 0  # workers that will soon take again
        self._idle: list[threading.Lock] = []  # bells of workers that wait, and nobody has woken them
        self._coming = 0  # workers that were woken, and have not taken yet

    def wait_room(self) -> int:
        """Wait until there is room and return how much; 0 once the buffer is closed.

        While more than half of it is full nobody is in a hurry, and each hop between threads costs more than a quick
        handler: so the feeder gathers room for a moment.
        """
        with self.mutex:
            while not self._closed:
                if self._qsize() >= self.maxsize:
                    self._full = True
                    self.not_full.wait()
                    continue
                if 2 * self._qsize() > self.maxsize:
                    self._gathering = True
                    self.not_full.wait(_GATHER)
                    self._gathering = False
                room = self.maxsize - self._qsize()
                if room > 0 and not self._closed:  # a worker may have put something back meanwhile
                    return room
            return 0

    def put_many(self, deliveries: Sequence[Delivery]) -> bool:
        """Put them all at the end; False, and none is taken over, once the buffer is closed.

        The feeder, and who puts in its place, has no more than ``wait_room`` said, so there is room.
        """
        with self.mutex:
            if self._closed:
                return False
            self.queue.extend(deliveries)
            if self._idle:
                self._wake()
            return True

    def take(self, holder: Holder) -> Sequence[Delivery]:
        """Wait for the next deliveries and put them into the holder's hand; none once the buffer is closed.

        While the handler is not fast, or where there is but one, the holder gets that, and is away with it from the
        start.
        """
        waiting = self.queue
        with self.mutex:
            if holder.retired:
                return ()
            while not self._closed and not (waiting and self._has_work(holder)):
                if not holder.away:
                    self._leave(holder)
                self._idle.append(holder.bell)
                self.mutex.release()
                holder.bell.acquire()
                self.mutex.acquire()
                self._coming -= 1
            if self._closed:
                return ()
            tempo, size, most = self._tempo, len(waiting), 1
            if tempo.fast and size > 1:  # its share at most, so that no other one idles who is worth waking
                if holder.away:
                    holder.away = False
                    self._busy += 1
                there = self._busy + self._coming + len(self._idle)
                most = min(tempo.most, -(-size // max(1, min(tempo.workers(size), there))))
            elif not holder.away:
                self._leave(holder)
            # Under the lock: a stop finds them here or there.
            holder.hand = hand = [waiting.popleft() for _ in range(most)]
            if (self._full and most == 1) or ((self._full or self._gathering) and 2 * (size - most) <= self.maxsize):
                self._full = self._gathering = False
                self.not_full.notify()
            if size > most and self._idle:
                self._wake()
            return hand

    def _has_work(self, holder: Holder) -> bool:
        """Say whether a worker is to take what waits, and not only to be in the way of those at work."""
        tempo = self._tempo
        return not (holder.away and tempo.fast and self._busy >= tempo.enough(len(self.queue)))

    def put_back(self, deliveries: Sequence[Delivery]) -> bool:
        """Put deliveries that were taken, and not begun, back in front; False once the buffer is closed."""
        with self.mutex:
            if self._closed:
                return False
            self.queue.extendleft(reversed(deliveries))
            self._wake()
            return True

    def leave(self, holder: Holder) -> None:
        """The worker's handler takes its time: until it takes again, somebody else has to look after what is here."""
        with self.mutex:
            self._pass_on(holder)

    def retire(self, holder: Holder, hand: Sequence[Delivery]) -> bool:
        """Give the holder nothing any more; False when that is not in its hand now: it is not stuck."""
        with self.mutex:
            if holder.hand is hand:
                holder.retired = True
                self._pass_on(holder)
            return holder.retired

    def close(self) -> list[Delivery]:
        """Let everybody go who waits, and return what nobody has taken, in order. Idempotent."""
        with self.mutex:
            self._closed = True
            left = list(self.queue)
            self.queue.clear()
            self._ring(len(self._idle))
            self.not_full.notify_all()
            return left

    def _pass_on(self, holder: Holder) -> None:
        """Somebody else has to look after what is here. Caller holds the mutex."""
        if not holder.away:
            self._leave(holder)
            self._wake()

    def _leave(self, holder: Holder) -> None:
        holder.away = True
        self._busy -= 1

    def _wake(self) -> None:
        """Wake the workers that there is use for: one for each delivery, but few while they are fast."""
        waiting = len(self.queue)
        wanted = waiting - self._coming
        if self._tempo.fast:
            wanted = min(wanted, self._tempo.workers(waiting) - self._busy - self._coming)
        self._ring(min(wanted, len(self._idle)))

    def _ring(self, count: int) -> None:
        """Wake those that have waited the least: what they work with is still in the processor's caches."""
        for _ in range(count):
            self._coming += 1
            self._idle.pop().release()
