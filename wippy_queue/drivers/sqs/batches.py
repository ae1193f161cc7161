"""What many threads ask for, put into calls of ten: no timer and no wait, a batch forms while the last is under way."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from wippy_queue.drivers.sqs.pool import Pool
from wippy_queue.errors import Canceled, Timeout, WippyQueueError

BATCH: Final = 10  # what SQS takes in a call
_FIRST_PAUSE: Final = 0.05  # seconds after a first failure that may pass
_LONGEST_PAUSE: Final = 2.0


@attrs.define(eq=False, kw_only=True)
class Item:
    """One entry of some batch to come. ``done`` is called once, from any thread, without a lock held."""

    entry: Mapping[str, Any]
    until: Callable[[], float]  # monotonic seconds; a failure that may pass is repeated until then
    done: Callable[[WippyQueueError | None], None]
    size: int = 0  # bytes
    withdrawn: bool = False  # set by its owner; it is not sent any more if it was not yet
    trouble: WippyQueueError | None = None  # the last one


class Batches:
    """Sends items in calls of up to ten, a few calls at a time, and repeats what failed for a passing reason.

    Thread safety: every method may be called from any thread.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Mapping[str, Any]]], Mapping[int, WippyQueueError]],
        calls: Pool,
        *,
        width: int,
        largest: int | None = None,
    ) -> None:
        self._send = send
        self._calls = calls
        self._width = width  # calls at a time; 1 keeps the order
        self._largest = largest  # bytes of a batch
        self._lock = threading.Lock()  # guards everything below
        self._pending: deque[Item] = deque()
        self._active = 0
        self._pause = 0.0  # seconds; grows with every failure in a row
        self._resume_at = 0.0  # monotonic
        self._closed: WippyQueueError | None = None

    def add(self, items: Sequence[Item]) -> None:
        with self._lock:
            refused = self._closed
            if refused is None:
                self._pending.extend(items)
                self._schedule()
        if refused is not None:
            for item in items:
                item.done(refused)

    def sweep(self) -> None:
        """Tell the items that were withdrawn or are out of time, now."""
        with self._lock:
            now = time.monotonic()
            stale = [item for item in self._pending if _is_stale(item, now)]
            self._pending = deque(item for item in self._pending if not _is_stale(item, now))
        _tell(stale)

    def close(self, error: WippyQueueError) -> None:
        """Tell what is not under way ``error``, and whatever is added from now on."""
        with self._lock:
            self._closed = error
            left, self._pending = list(self._pending), deque()
        for item in left:
            item.done(error)

    def _schedule(self) -> None:
        """Caller holds the lock."""
        wanted = min(self._width, -(-len(self._pending) // BATCH))
        while self._active < wanted:
            self._active += 1
            self._calls.run(self._flush, max(0.0, self._resume_at - time.monotonic()))

    def _flush(self) -> None:
        with self._lock:
            batch, stale = self._take()
        _tell(stale)
        failures: Mapping[int, WippyQueueError] = {}
        try:
            if batch:
                failures = self._send([item.entry for item in batch])
        except WippyQueueError as error:
            failures = dict.fromkeys(range(len(batch)), error)
        except Exception as error:  # an error of ours must not leave anybody waiting
            failures = dict.fromkeys(range(len(batch)), WippyQueueError(f"{type(error).__name__}: {error}"))
            raise
        finally:
            self._finish(batch, failures)

    def _finish(self, batch: Sequence[Item], failures: Mapping[int, WippyQueueError]) -> None:
        again = []
        for index, error in sorted(failures.items()):
            if error.retryable and not batch[index].withdrawn:
                batch[index].trouble = error
                again.append(index)
        with self._lock:
            if again and self._closed is None:
                self._pending.extendleft(batch[index] for index in reversed(again))
                self._pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * self._pause))
                self._resume_at = time.monotonic() + self._pause * random.uniform(0.75, 1.25)
            else:
                again = []
                self._pause = self._resume_at = 0.0
            self._active -= 1
            self._schedule()
        for index, item in enumerate(batch):
            if index not in again:
                item.done(failures.get(index))

    def _take(self) -> tuple[list[Item], list[Item]]:
        """Return the next batch, and what was in front of it and need not be sent any more. Caller holds the lock."""
        now = time.monotonic()
        batch: list[Item] = []
        stale: list[Item] = []
        size = 0
        while self._pending and len(batch) < BATCH:
            if _is_stale(self._pending[0], now):
                stale.append(self._pending.popleft())
                continue
            size += self._pending[0].size
            if batch and self._largest is not None and size > self._largest:
                break
            batch.append(self._pending.popleft())
        return batch, stale


def _is_stale(item: Item, now: float) -> bool:
    return item.withdrawn or item.until() <= now


def _tell(stale: Sequence[Item]) -> None:
    for item in stale:
        if item.withdrawn:
            item.done(item.trouble or Canceled("it was withdrawn"))
        else:
            item.done(item.trouble or Timeout("SQS did not take it in time"))
