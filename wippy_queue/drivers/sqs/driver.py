"""The SQS driver itself: what the contract asks for, put together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from wippy_queue.driver import not_running
from wippy_queue.drivers.sqs.answers import Answer
from wippy_queue.drivers.sqs.batches import Item
from wippy_queue.drivers.sqs.looking import peek, purge
from wippy_queue.drivers.sqs.options import SqsConfig
from wippy_queue.drivers.sqs.pool import Pool
from wippy_queue.drivers.sqs.queue import SqsQueue, send_item
from wippy_queue.drivers.sqs.subscription import SqsSubscription
from wippy_queue.errors import (
    Canceled,
    Invalid,
    NotFound,
    Problem,
    RateLimited,
    Timeout,
    Unavailable,
    WippyQueueError,
)
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import Queue, QueueInfo

if TYPE_CHECKING:
    from wippy_queue.drivers.sqs.client import Client

_T = TypeVar("_T")

_CALLERS: Final = 8  # threads, and so connections, for everything but long polls
_POLLERS: Final = 12  # the same for long polls; more queues than that take turns
_WAIT: Final = 10.0  # seconds for an answer, where the caller names none
_LEAST_WAIT: Final = 2.0  # seconds that a look at a queue may take, however short the caller wants to wait
_LOOK: Final = 0.2  # seconds between two looks of who waits for a queue to be idle
_PURGE_WAIT: Final = 600.0  # seconds
_QUIET_WAIT: Final = 3.0  # seconds of a stop for calls and polls under way, which cannot be called back


class SqsDriver:
    """Queues on SQS.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, driver_id: EntryId, config: SqsConfig) -> None:
        self.id = driver_id
        self._config = config
        self._lock = threading.Lock()  # guards start, stop and the declared queues
        self._declared: dict[str, Queue] = {}
        self._open: _Open | None = None

    def start(self) -> None:
        with self._lock:
            if self._open is not None:
                return
            opened = _Open(self.id, self._config)
            try:
                opened.ask(opened.client.ping, _WAIT)
                for queue in self._declared.values():
                    opened.declare(queue)
            except BaseException:
                opened.close(0.0)
                raise
            self._open = opened

    def stop(self, timeout: float) -> None:
        with self._lock:
            opened, self._open = self._open, None
        if opened is not None:
            opened.close(timeout)

    def declare(self, queue: Queue) -> None:
        with self._lock:
            opened = self._open
        if opened is not None:
            opened.declare(queue)
        with self._lock:
            self._declared[queue.name] = queue

    def verify(self, queues: Sequence[Queue]) -> list[Problem]:
        opened = _Open(self.id, self._config)
        try:
            opened.ask(opened.client.ping, _WAIT)
            return [problem for queue in queues for problem in opened.verify(queue)]
        finally:
            opened.close(0.0)

    def publish(self, queue: Queue, messages: Sequence[Message], timeout: float) -> None:
        opened = self._opened()
        if messages:
            opened.publish(opened.queue(queue), messages, timeout)

    def subscribe(self, queue: Queue, window: int, options: object = None) -> SqsSubscription:
        opened = self._opened()
        return opened.subscribe(opened.queue(queue), window)

    def info(self, queue: Queue) -> QueueInfo:
        opened = self._opened()
        return opened.ask(opened.queue(queue).info, _WAIT)

    def peek(self, queue: Queue, limit: int) -> list[Message]:
        """Return up to ``limit`` waiting messages; SQS knows no look without a receive, so each counts one more."""
        opened = self._opened()
        return opened.ask(partial(peek, opened.queue(queue), limit), _PURGE_WAIT)

    def purge(self, queue: Queue) -> int:
        opened = self._opened()
        return opened.ask(partial(purge, opened.queue(queue)), _PURGE_WAIT)

    def wait_idle(self, queue: Queue, timeout: float) -> bool:
        opened = self._opened()
        return opened.wait_idle(opened.queue(queue), timeout)

    def _opened(self) -> _Open:
        opened = self._open
        if opened is None:
            raise not_running(self.id)
        return opened


class _Open:
    """A driver between start and stop."""

    def __init__(self, driver_id: EntryId, config: SqsConfig) -> None:
        self._id = driver_id
        self._config = config
        self.client = _connect(driver_id, config)
        self.calls = Pool(_CALLERS, f"{driver_id}-call")
        self.polls = Pool(_POLLERS, f"{driver_id}-poll")
        self._lock = threading.Lock()  # guards everything below
        self._queues: dict[str, SqsQueue] = {}  # by the name that the application uses; replaced as a whole
        self._subscriptions: frozenset[SqsSubscription] = frozenset()
        self._waiting: set[Answer] = set()
        self._closing = False

    def queue(self, queue: Queue) -> SqsQueue:
        try:
            return self._queues[queue.name]
        except KeyError:
            raise NotFound(f"queue {queue.id} was never declared on driver {self._id}") from None

    def declare(self, queue: Queue) -> None:
        known = self._queues.get(queue.name)
        if known is not None and known.queue.options == queue.options:
            return
        made = self._make(queue)
        self.ask(made.declare, _WAIT)
        with self._lock:
            self._queues = {**self._queues, queue.name: made}

    def _make(self, queue: Queue) -> SqsQueue:
        made = SqsQueue(queue, self._config, self.client, self.calls)
        others = [one for name, one in self._queues.items() if name != queue.name]
        other = next((one for one in others if one.name == made.name), None)
        if other is not None:
            raise Invalid(
                f"queue {queue.id}: on SQS it would be {made.name}, and so is {other.queue.id}; set another queue_name"
            )
        return made

    def verify(self, queue: Queue) -> list[Problem]:
        """Return what stands against the queue; nothing is made."""
        try:
            made = self._make(queue)
            self._queues = {**self._queues, queue.name: made}
            self.ask(made.verify, _WAIT)
        except WippyQueueError as error:
            return [Problem(str(error), entry=queue.id)]
        return []

    def subscribe(self, queue: SqsQueue, window: int) -> SqsSubscription:
        subscription = SqsSubscription(
            queue,
            window=window,
            wait_time=self._config.wait_time,
            polls=self.polls,
            calls=self.calls,
            on_close=self._forget,
        )
        with self._lock:
            self._subscriptions |= {subscription}
        return subscription

    def _forget(self, subscription: SqsSubscription) -> None:
        with self._lock:
            self._subscriptions -= {subscription}

    def publish(self, queue: SqsQueue, batch: Sequence[Message], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        entries = [queue.entry_of(message) for message in batch]
        answer = Answer(len(entries))
        items = [send_item(entry, lambda: deadline, partial(answer.tell, index)) for index, entry in enumerate(entries)]
        self._expect(answer, items)
        try:
            queue.sends.add(items)
            answer.wait(deadline)
        finally:
            self._done(answer)
        for item in items:
            item.withdrawn = True
        failed = answer.failed(lambda index: items[index].trouble)
        if failed is None:
            return
        accepted = [message.id for index, message in enumerate(batch) if answer.went_well(index)]
        raise self._not_published(queue, failed, accepted, len(batch), timeout)

    def _not_published(
        self, queue: SqsQueue, cause: WippyQueueError, accepted: list[str], count: int, timeout: float
    ) -> WippyQueueError:
        if isinstance(cause, Canceled):  # withdrawn by close()
            cause = self._stopped()
        text = f"queue {queue.queue.id}: {count - len(accepted)} of {count} messages were not published"
        if cause.retryable:
            text += f" within {timeout:g} s"
        return type(cause)(f"{text}: {cause}", retryable=cause.retryable, details={"accepted": accepted})

    def ask(self, call: Callable[[], _T], timeout: float) -> _T:
        """Make a call on one of the driver's threads; what is throttled is tried again until ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        values: list[_T] = []
        answer = Answer(1)

        def work() -> None:
            try:
                values.append(call())
            except RateLimited as error:
                if time.monotonic() < deadline and not self._closing:
                    self.calls.run(work, 0.5)
                    return
                answer.tell(0, error)
            except WippyQueueError as error:
                answer.tell(0, error)
            except Exception as error:
                answer.tell(0, WippyQueueError(f"{type(error).__name__}: {error}"))
                raise
            else:
                answer.tell(0, None)

        self._expect(answer, [])
        try:
            self.calls.run(work)
            answer.wait(deadline)
        finally:
            self._done(answer)
        failed = answer.failed(lambda _: Unavailable(f"driver {self._id}: SQS has not answered within {timeout:g} s"))
        if failed is not None:
            raise failed
        return values[0]

    def _expect(self, answer: Answer, items: Sequence[Item]) -> None:
        answer.items = items
        with self._lock:
            if self._closing:
                raise self._stopped()
            self._waiting.add(answer)

    def _done(self, answer: Answer) -> None:
        with self._lock:
            self._waiting.discard(answer)

    def _stopped(self) -> Unavailable:
        return Unavailable(f"driver {self._id} was stopped")

    def wait_idle(self, queue: SqsQueue, timeout: float) -> bool:
        """Return whether two looks in a row have found nothing: SQS counts a little later than it acts."""
        deadline = time.monotonic() + timeout
        idle = 0
        while True:
            trouble: WippyQueueError | None = None
            try:
                count = self.ask(queue.info, max(_LEAST_WAIT, deadline - time.monotonic())).message_count
                idle = idle + 1 if count == 0 else 0
            except (Unavailable, Timeout, RateLimited) as error:
                idle, trouble = 0, error
            if idle == 2:
                return True
            left = deadline - time.monotonic()
            if left <= 0 and idle == 0:
                if trouble is not None:
                    raise trouble
                return False
            if self._closing:
                raise self._stopped()
            with queue.left:
                queue.left.wait(max(0.0, min(_LOOK, left)))

    def close(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        stopped = self._stopped()
        with self._lock:
            self._closing = True
            waiting = list(self._waiting)
        for answer in waiting:
            for item in answer.items:
                item.withdrawn = True  # what is not under way; the rest comes back soon
        for queue in self._queues.values():
            queue.sends.sweep()
            queue.wake()
        subscriptions = self._subscriptions
        for subscription in subscriptions:
            subscription.begin_close()
        for subscription in subscriptions:
            subscription.wait_closed(deadline)
        for queue in self._queues.values():
            queue.close(stopped)
        deadline = min(deadline, time.monotonic() + _QUIET_WAIT)
        self.calls.wait_quiet(deadline)
        self.polls.wait_quiet(deadline)  # so that what a poll still brings goes back before the process may end
        for answer in waiting:
            answer.abort(stopped)
        self.calls.close()
        self.polls.close()


def _connect(driver_id: EntryId, config: SqsConfig) -> Client:
    try:
        from wippy_queue.drivers.sqs.client import connect
    except ModuleNotFoundError as error:
        if error.name not in ("boto3", "botocore"):
            raise
        raise Unavailable(
            f"driver {driver_id} needs the library boto3; install it with: pip install 'wippy_queue[sqs]'",
            retryable=False,
        ) from None
    return connect(config, driver_id, _CALLERS + _POLLERS)
