"""What a caller waits for while the driver's threads make the calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from wippy_queue.drivers.sqs.batches import Item
from wippy_queue.errors import Timeout, WippyQueueError


class Answer:
    """What a caller waits for: a number of results."""

    def __init__(self, count: int) -> None:
        self._changed = threading.Condition()
        self._results: dict[int, WippyQueueError | None] = {}
        self._count = count
        self._aborted: WippyQueueError | None = None
        self.items: Sequence[Item] = ()

    def tell(self, index: int, error: WippyQueueError | None) -> None:
        with self._changed:
            self._results[index] = error
            self._changed.notify_all()

    def abort(self, error: WippyQueueError) -> None:
        with self._changed:
            self._aborted = error
            self._changed.notify_all()

    def wait(self, deadline: float) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._aborted is not None or len(self._results) == self._count,
                max(0.0, deadline - time.monotonic()),
            )

    def went_well(self, index: int) -> bool:
        return index in self._results and self._results[index] is None

    def failed(self, trouble: Callable[[int], WippyQueueError | None]) -> WippyQueueError | None:
        """Return the first error, None when all went well."""
        with self._changed:
            for index in range(self._count):
                if index not in self._results:
                    return (
                        self._aborted or trouble(index) or Timeout("SQS has not answered; it may have it all the same")
                    )
                if (error := self._results[index]) is not None:
                    return error
        return None
