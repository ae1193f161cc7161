"""A consumer: a subscription, a feeder, a buffer and a pool of workers, and the order in which they start and stop."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import attrs

from wippy_queue.access import SecurityContext
from wippy_queue.delivery import Delivery
from wippy_queue.driver import GRACE, Driver
from wippy_queue.errors import Canceled, StopReport, Timeout, Unavailable, WippyQueueError
from wippy_queue.events import Event, SettleLost, WorkerDied, WorkerStuck
from wippy_queue.flow.burial import Burial
from wippy_queue.flow.cancel import Cancellation
from wippy_queue.flow.feeder import RECEIVE_TIMEOUT, Feeder
from wippy_queue.flow.pool import WorkerPool
from wippy_queue.flow.prefetch import PrefetchBuffer
from wippy_queue.flow.settle import Settler
from wippy_queue.flow.tempo import Tempo
from wippy_queue.flow.timekeeper import Timekeeper
from wippy_queue.flow.worker import Worker
from wippy_queue.handler import Handler, Outcome, WorkerContext
from wippy_queue.ids import EntryId
from wippy_queue.queues import Queue, RetryPolicy

_log = logging.getLogger(__name__)

_DEAF_AFTER: Final = 3 * RECEIVE_TIMEOUT  # seconds
_NICEST: Final = 19
_FEEDER_GRACE: Final = 1.0  # seconds of a stop that a feeder may take at most to come back from its driver


@attrs.frozen(kw_only=True)
class ConsumerSpec:
    """What a consumer consists of."""

    id: EntryId
    queue: Queue
    driver: Driver
    function: EntryId
    make_handler: Callable[[], Handler]  # called at each start; raises when there is no such function
    retry: RetryPolicy
    concurrency: int = 1
    prefetch: int = 10
    auto_ack: bool = False
    options: object = None  # an instance of the driver kind's consumer_options
    batch: int = 1  # deliveries that a worker may take at a time, while the handler is fast
    security: SecurityContext | None = None  # what the handlers act with
    exact_counts: bool = True  # of the driver: what it says to be ready can be received
    stuck_after: float | None = None  # seconds from a handler's start until its worker is stuck; None: never
    max_stuck_workers: int = 10  # more than these fail the consumer


class Consumer:
    """A service that handles the messages of a queue; it may be started again after a stop.

    Thread safety: every method may be called from any thread; ``start`` and ``stop`` one at a time.
    """

    def __init__(self, spec: ConsumerSpec, burial: Burial, emit: Callable[[Event], None]) -> None:
        self.spec = spec
        self._burial = burial
        self._emit = emit
        self._life: _Life | None = None
        self._stuck: list[Worker] = []  # of all lives: their threads may come back one day

    def start(self, on_failure: Callable[[Exception], None]) -> None:
        """Start consuming; returns once every worker has its session.

        Args:
            on_failure: called, at most once, when a thread of this life has ended by an error.

        Raises:
            WippyQueueError: the driver refuses, or the handler cannot run.
        """
        if (too_many := _too_many_stuck(self.spec, self._stuck)) is not None:
            raise too_many
        life = _Life(self.spec, self._burial, self._emit, on_failure, self._stuck)
        self._life = life
        life.start()

    def stop(self, timeout: float) -> StopReport:
        """Stop consuming, within ``timeout`` seconds; see `_Life.stop` for the order."""
        life = self._life
        if life is None:
            return StopReport()
        try:
            return life.stop(timeout)
        finally:  # until then its handlers may ask whether they are ours
            if self._life is life:
                self._life = None

    def cancel_start(self) -> None:
        """Make a ``start`` that waits on another thread give up."""
        life = self._life
        if life is not None:
            life.abort(Canceled(f"{self.spec.id} was stopped while it started"))

    def runs_on(self, thread_id: int) -> bool:
        """Return whether that thread is one of the workers."""
        life = self._life
        workers = [] if life is None else life.workers
        return any(worker.thread_id == thread_id for worker in (*workers, *self._stuck))

    def check(self) -> None:
        """Raise when it is alive, but deaf."""
        life = self._life
        if life is not None:
            life.check()


class _Life:
    """From one start of a consumer to its stop."""

    def __init__(
        self,
        spec: ConsumerSpec,
        burial: Burial,
        emit: Callable[[Event], None],
        on_failure: Callable[[Exception], None],
        stuck: list[Worker],
    ) -> None:
        self._handler = spec.make_handler()
        self._stuck = stuck
        self._spec = spec
        self._emit = emit
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._ready = threading.Event()  # every worker has its session, or there is an error
        self._missing = spec.concurrency  # workers that have no session yet
        self._error: Exception | None = None
        self._cancel = Cancellation()
        self._failing: list[threading.Thread] = []  # each settles what a stuck worker had in hand
        self._stopping = False
        self._lost: set[str] = set()  # message ids; of those whose settle came to nothing while we stopped
        self._tempo = Tempo(spec.batch)
        self._buffer = PrefetchBuffer(spec.prefetch, self._tempo)
        self._subscription = spec.driver.subscribe(spec.queue, spec.prefetch + spec.concurrency, spec.options)
        self._settler = Settler(
            consumer=spec.id,
            function=spec.function,
            queue=spec.queue,
            retry=spec.retry,
            subscription=self._subscription,
            burial=burial,
            cancel=self._cancel,
            emit=self._note,
        )
        died = partial(self._died, f"{spec.id}-feeder")
        self.feeder = Feeder(self._subscription, self._buffer, self._ready_messages, died)
        self._feeder_thread = threading.Thread(target=self.feeder.run, name=f"{spec.id}-feeder", daemon=True)
        self._pool = WorkerPool(spec.concurrency + spec.max_stuck_workers + 1, f"{spec.id}-worker")
        self.workers = [self._worker(index) for index in range(spec.concurrency)]

    def _worker(self, index: int) -> Worker:
        spec = self._spec
        context = WorkerContext(
            consumer=spec.id,
            queue=spec.queue.id,
            worker=index,
            settle=self._settler.settle,
            cancel=self._cancel,
            auto_ack=spec.auto_ack,
            security=spec.security,
        )
        worker = Worker(self._handler, context, self._buffer, self._subscription, self._settler, self._tempo)
        context.part, context.late = worker.part, worker.late
        return worker

    def start(self) -> None:
        try:
            self._pool.start({worker.index: self._task(worker) for worker in self.workers})
            self._ready.wait()
            if self._error is not None:
                if isinstance(self._error, WippyQueueError):
                    self._error.retryable = None  # a handler that cannot run makes its consumer Failed, not Exited
                raise self._error
            self._feeder_thread.start()
            if self._spec.stuck_after is not None:
                name = f"{self._spec.id}-timekeeper"
                keeper = Timekeeper(
                    self.workers, self._spec.stuck_after, self._replace, self._cancel, partial(self._died, name)
                )
                threading.Thread(target=keeper.run, name=name, daemon=True).start()
        except BaseException:
            self.stop(0.0)
            raise

    def _task(self, worker: Worker) -> Callable[[], None]:
        return partial(worker.run, self._one_more_ready, partial(self._died, f"{self._spec.id}-worker-{worker.index}"))

    def check(self) -> None:
        """Raise when the feeder has ended, or waits for its driver for much longer than it asked to."""
        since = self.feeder.asking_since
        if since is not None and time.monotonic() - since > _DEAF_AFTER:
            raise Unavailable(f"{self._spec.id}: its driver has not answered for {time.monotonic() - since:.0f} s")
        if self._ready.is_set() and not self._stopping and not self._feeder_thread.is_alive():
            raise Unavailable(f"{self._spec.id}: its feeder has ended")

    def _one_more_ready(self) -> None:
        with self._lock:
            self._missing -= 1
            if self._missing == 0:
                self._ready.set()

    def abort(self, error: Exception) -> None:
        with self._lock:
            if self._error is None and not self._ready.is_set():  # else nobody waits: an error of later would be lost
                self._error = error
            self._ready.set()

    def _died(self, thread: str, error: Exception) -> None:
        """A thread of ours ended by an error: the consumer fails, once, unless it was still starting."""
        with self._lock:
            first, starting = self._error is None, not self._ready.is_set()
            if first:
                self._error = error
            self._ready.set()
        if starting or self._stopping or not first:
            return
        self._emit(WorkerDied(consumer=self._spec.id, thread=thread, error=f"{type(error).__name__}: {error}"))
        self._on_failure(error)

    def _replace(self, worker: Worker, hand: Sequence[Delivery]) -> None:
        """The handler outlives its limit and cannot be ended: its message fails, another worker takes its place.

        Which of several in hand it is stuck in, nobody can tell, so they all fail.
        """
        spec = self._spec
        error = Timeout(f"{spec.function}: the handler exceeded its time limit and could not be ended")
        if worker.begun is None or not self._buffer.retire(worker, hand):
            return  # it came back at the last moment
        self._stuck.append(worker)
        _lower_priority(worker)
        self._fail_soon(hand, Outcome(error=error))
        too_many = _too_many_stuck(spec, self._stuck)
        if too_many is None:
            fresh = self._worker(worker.index)
            self.workers[worker.index] = fresh
            self._pool.start({fresh.index: self._task(fresh)})
        else:
            self.workers.remove(worker)
            self._pool.forget(worker.index)  # nobody takes its place, and a stop need not wait for it
        _log.error(
            "a handler could not be ended; its worker was replaced",
            extra={"fields": {"consumer": spec.id, "message_id": hand[0].message.id, "function": spec.function}},
        )
        self._emit(
            WorkerStuck(
                consumer=spec.id,
                queue=spec.queue.id,
                message_id=hand[0].message.id,
                thread=f"{spec.id}-worker-{worker.index}",
                stuck=len(self._stuck),
            )
        )
        if too_many is not None:
            raise too_many

    def _fail_soon(self, hand: Sequence[Delivery], outcome: Outcome) -> None:
        """Settle on a thread of its own: a dead letter may take its time, and the next worker may be stuck by then."""

        def fail() -> None:
            try:
                for delivery in hand:
                    self._settler.settle(delivery, outcome)
            except Exception as error:
                self._died(thread.name, error)

        thread = threading.Thread(target=fail, name=f"{self._spec.id}-settler", daemon=True)
        with self._lock:
            self._failing = [*(other for other in self._failing if other.is_alive()), thread]
            thread.start()

    def _ready_messages(self) -> int:
        """Return how many messages wait for a consumer; 0 where the driver cannot tell."""
        if not self._spec.exact_counts or self._stopping:
            return 0
        try:
            return self._spec.driver.info(self._spec.queue).ready or 0
        except WippyQueueError:
            return 0  # a backend that is away is its driver's business, which comes back by itself

    def _note(self, event: Event) -> None:
        if self._stopping and isinstance(event, SettleLost):
            self._lost.add(event.message_id)
        self._emit(event)

    def stop(self, timeout: float) -> StopReport:
        """Stop in an order in which nothing is lost and nothing repeats.

        No new deliveries; the buffer goes back untouched; the handlers that run may finish and settle, for their
        subscription is still open; what runs past the deadline is cut and goes back too; then the subscription closes.
        """
        deadline = time.monotonic() + timeout
        self._stopping = True
        cut: list[Delivery] = []
        try:
            waiting = self._subscription.cancel()
            buffered = self._buffer.close()
            self._cancel.set()
            running = [delivery for worker in self.workers for delivery in worker.hand]
            self._settler.release(buffered)
            if self._feeder_thread.is_alive():
                self._feeder_thread.join(max(0.0, min(deadline - time.monotonic(), _FEEDER_GRACE)))
            self._settler.release(self.feeder.left_over + waiting)
            if not self._pool.wait(deadline):
                cut = self._cut()
            with self._lock:
                failing = self._failing
            for thread in failing:
                thread.join(max(0.0, deadline - time.monotonic()))
        finally:
            self._pool.shutdown()
            self._subscription.close(max(GRACE, deadline - time.monotonic()))
        handed_back = [delivery for delivery in self._settler.handed_back if delivery not in cut]
        return self._report(_ids(running), _ids(handed_back), _ids([*cut, *self._settler.burying]))

    def _report(self, running: Sequence[str], handed_back: Sequence[str], cut: Sequence[str]) -> StopReport:
        """Return what became of the messages, by id; one that was handled, and whose settle was lost, comes again."""
        unsettled = sorted(self._lost.difference(handed_back, cut))
        gone_back = {*handed_back, *cut, *unsettled}
        finished = tuple(message_id for message_id in running if message_id not in gone_back)
        return StopReport(finished, tuple(handed_back), (*cut, *unsettled))

    def _cut(self) -> list[Delivery]:
        """Past the deadline: what is still running goes back, its late settles are refused, the handlers are killed."""
        cut: list[Delivery] = []
        for worker in self.workers:
            hand = worker.hand
            cut += [d for d in hand if self._settler.release([d]) or self._spec.auto_ack]
            if hand:
                worker.kill()
        return cut


def _too_many_stuck(spec: ConsumerSpec, stuck: list[Worker]) -> Unavailable | None:
    """Forget the workers that have come back; return an error when more are stuck than may be."""
    stuck[:] = [worker for worker in stuck if worker.thread_id is not None]
    if len(stuck) <= spec.max_stuck_workers:
        return None
    return Unavailable(
        f"{spec.id}: {len(stuck)} workers are stuck in handlers that cannot be ended, more than"
        f" lua.max_stuck_workers allows ({spec.max_stuck_workers}); mend {spec.function} and start the process anew"
    )


def _lower_priority(worker: Worker) -> None:
    """Let what is stuck in a loop of C take only the processor time that nobody else wants; Linux knows threads."""
    if sys.platform == "linux" and worker.native_id is not None:
        with contextlib.suppress(OSError):  # it may have ended meanwhile
            os.setpriority(os.PRIO_PROCESS, worker.native_id, _NICEST)


def _ids(deliveries: list[Delivery]) -> tuple[str, ...]:
    return tuple(delivery.message.id for delivery in deliveries)
