"""The asyncio variant: the same system as somebody would write it who knows asyncio well.

One loop; an `asyncio.Queue` as prefetch buffer; a task for each worker, none for a message; awaitable sleep and
publish; the engine's codec, publisher, failure policy and Lua. It uses what asyncio makes possible: no locks, no feeder
(the buffer is filled by a call), coalesced acks, many messages into Lua in one crossing. With ``in_threads`` the
handlers run in a thread pool instead, as blocking ones have to.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Any, Final, TypeVar, cast

import attrs

from wippy_queue.bench.asyncio_buffer import LoopBuffer
from wippy_queue.bench.asyncio_driver import LoopDriver
from wippy_queue.bench.asyncio_lua import LoopChunks
from wippy_queue.bench.asyncio_queue import LoopQueue
from wippy_queue.bench.asyncio_workers import LoopWorker, ThreadWorker, Worker
from wippy_queue.bench.contestant import mark, schedule
from wippy_queue.bench.workloads import Body
from wippy_queue.delivery import Delivery, Settlement
from wippy_queue.driver import Capabilities, Driver, Subscription
from wippy_queue.environment import Environment
from wippy_queue.errors import NotFound, QueueFull, StopReport, Timeout
from wippy_queue.events import Event
from wippy_queue.flow.burial import Burial, Route
from wippy_queue.flow.publisher import Publisher, PublishOptions
from wippy_queue.flow.settle import Settler
from wippy_queue.handler import WorkerContext
from wippy_queue.ids import EntryId
from wippy_queue.lua.host import Host, Source
from wippy_queue.message import Encoding, HeaderValue, Message
from wippy_queue.queues import Queue, QueueInfo
from wippy_queue.security import Guard

_log = logging.getLogger(__name__)

_T = TypeVar("_T")
_CONSUMER: Final = EntryId("bench:consumer")
_PUBLISH_TIMEOUT: Final = 10.0  # seconds that a publish in a handler may wait


@attrs.frozen(kw_only=True)
class LoopSpec:
    """What an engine consists of: queues, of which the first is consumed, and what consumes it."""

    queues: Sequence[Queue]
    source: Source
    modules: Mapping[str, Mapping[str, Callable[..., Any]]] = attrs.field(factory=dict)
    concurrency: int = 1
    prefetch: int = 10
    in_threads: bool = False


class AsyncioEngine:
    """A loop in a thread of its own, and one consumer on it, which may be started again after a stop.

    Thread safety: every method may be called from any thread but the loop's.
    """

    def __init__(self, spec: LoopSpec) -> None:
        self.spec = spec
        self.events: list[Event] = []
        self._failure: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._driver = driver = LoopDriver(self._loop, spec.in_threads)
        for queue in spec.queues:
            driver.declare(queue)
        self._source = driver.of(spec.queues[0])
        routes = {queue.id: Route(queue, cast(Driver, driver)) for queue in spec.queues}
        self._publisher = Publisher(routes, {queue.driver: Capabilities() for queue in spec.queues})
        self._burial = Burial(routes, self.events.append)
        self._host = self._make_host()
        self._cancel = threading.Event()
        self._buffer = LoopBuffer(spec.prefetch, self._fill)
        self._workers: list[Worker] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._executor: ThreadPoolExecutor | None = None
        self._consuming = False
        self._thread = threading.Thread(target=self._run, name="asyncio-engine", daemon=True)
        self._thread.start()

    def _make_host(self) -> Host:
        host = Host(
            publish=self._publish_from_lua,
            post=self._publisher.post,
            may_wait=self._publisher.may_wait,
            queue_encoding=lambda queue_id: self._publisher.route(queue_id).queue.encoding,
            info=lambda queue_id: self._queue(queue_id).info(),
            store=_not_here,
            function=_not_here,
            access=Guard([], {}, strict=False, emit=self.events.append),
            environment=Environment([], {}),
            modules=self.spec.modules,
            # No hooks in coroutines: they make loops twice as slow, and what would end a handler has no turn anyway.
            hook_mode="async" if self.spec.in_threads else "off",
        )
        if not self.spec.in_threads:
            host.chunks = LoopChunks()
        return host

    def _run(self) -> None:
        self._driver.adopt()
        self._loop.run_forever()

    def _queue(self, queue_id: str) -> LoopQueue:
        return self._driver.of(self._publisher.route(queue_id).queue)

    # for whoever uses it

    def publish(self, queue_id: str, bodies: Sequence[Any]) -> None:
        """Publish in order; returns when all are stored."""
        self._do(self._publish(queue_id, bodies))

    def pace(self, queue_id: str, bodies: Iterable[Body], rate: float) -> None:
        """Publish one body after the other at ``rate`` per second, from the loop; see `Contestant.pace`."""
        self._do(self._pace(queue_id, bodies, rate))

    def start(self) -> None:
        """Start consuming; returns when every worker has its Lua runtime."""
        self._do(self._start())
        self._loop.call_soon_threadsafe(self._begin)  # not in _start: the tasks would be busy before it has returned

    def join(self, timeout: float) -> None:
        """Wait until nothing is ready, delayed or in flight in the queue that is consumed.

        Raises:
            Timeout: there was still something after ``timeout`` seconds.
        """
        self._do(self._join(timeout))

    def stop(self, timeout: float) -> StopReport:
        """Stop consuming, in the engine's order, within ``timeout`` seconds."""
        return self._do(self._stop(timeout))

    def close(self) -> None:
        """Stop without waiting for handlers, and end the loop."""
        self.stop(0.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def info(self, queue_id: str) -> QueueInfo:
        async def ask() -> QueueInfo:
            return self._queue(queue_id).info()

        return self._do(ask())

    def waiting(self, queue_id: str) -> list[Message]:
        """Return the messages that wait in a queue, next first."""

        async def ask() -> list[Message]:
            return self._queue(queue_id).peek()

        return self._do(ask())

    def _do(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    # publishing

    async def _publish(self, queue_id: str, bodies: Sequence[Any]) -> None:
        target = self._queue(queue_id)
        if not target.bounded:
            self._publisher.publish(queue_id, bodies, None, PublishOptions(), 0.0)
            return
        for body in bodies:
            while True:
                try:
                    self._publisher.publish(queue_id, [body], None, PublishOptions(), 0.0)
                    break
                except QueueFull:
                    await target.room()

    async def _pace(self, queue_id: str, bodies: Iterable[Body], rate: float) -> None:
        for due, body in schedule(bodies, rate):
            await asyncio.sleep(max(0.0, due / 1e9 - self._loop.time()))
            body["mark"] = mark(due)
            await self._publish(queue_id, [body])

    def _publish_from_lua(
        self,
        queue_id: str,
        body: bytes,
        encoding: Encoding,
        headers: dict[str, HeaderValue],
        cancel: threading.Event,
        deadline: float,
    ) -> str:
        timeout = _PUBLISH_TIMEOUT if self.spec.in_threads else 0.0  # on the loop it is the handler that waits
        return self._publisher.publish_encoded(queue_id, body, encoding, headers, cancel, timeout)

    # consuming; all of it on the loop

    def _fill(self) -> None:
        """Move from the queue to the buffer what both have room for; what a feeder does, without a task of its own."""
        if not self._consuming:
            return
        window = self.spec.prefetch + self.spec.concurrency - len(self._source.unsettled)
        room = min(self._buffer.room, window)
        if room > 0 and (deliveries := self._source.take(room)):
            self._buffer.put_many(deliveries)

    async def _start(self) -> None:
        spec = self.spec
        self._cancel = threading.Event()
        self._buffer = LoopBuffer(spec.prefetch, self._fill)
        settler = Settler(
            consumer=_CONSUMER,
            function=spec.source.id,
            queue=spec.queues[0],
            retry=spec.queues[0].retry,
            subscription=cast(Subscription, _Settling(self._driver, spec.queues[0])),
            burial=self._burial,
            cancel=self._cancel,
            emit=self.events.append,
        )
        if spec.in_threads:
            self._executor = ThreadPoolExecutor(spec.concurrency)
        self._workers = [self._make_worker(index, settler) for index in range(spec.concurrency)]
        self._tasks = [asyncio.create_task(worker.run()) for worker in self._workers]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    def _begin(self) -> None:
        self._source.on_change = self._fill
        self._consuming = True
        self._fill()

    def _make_worker(self, index: int, settler: Settler) -> Worker:
        spec = self.spec
        context = WorkerContext(
            consumer=_CONSUMER, queue=spec.queues[0].id, worker=index, settle=settler.settle, cancel=self._cancel
        )
        common = (self._buffer, self._source, settler, spec.source, self._host, context)
        if self._executor is not None:
            return ThreadWorker(*common, self._executor)
        return LoopWorker(*common, lambda queue_id: self._queue(queue_id).room())

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()
            _log.error("a task of the asyncio engine ended by an error", exc_info=self._failure)

    async def _join(self, timeout: float) -> None:
        try:
            await asyncio.wait_for(self._source.wait_idle(), timeout)
        except TimeoutError:
            if self._failure is not None:
                raise self._failure from None
            raise Timeout(f"queue {self.spec.queues[0].id} still holds messages: {self._source.info()}") from None

    async def _stop(self, timeout: float) -> StopReport:
        """As the engine: no new messages, the buffer goes back, handlers may finish, what is left is cut."""
        self._consuming = False
        for worker in self._workers:
            worker.give_back()
        handed_back = self._release(sorted(self._buffer.drain(), key=attrgetter("receipt")))
        self._cancel.set()
        running = [delivery for worker in self._workers for delivery in worker.batch if not delivery.claimed]
        busy = []
        for worker, task in zip(self._workers, self._tasks, strict=True):
            worker.stopping = True
            if worker.batch:
                worker.wake()
                busy.append(task)
            else:
                task.cancel()
        if busy:
            await asyncio.wait(busy, timeout=timeout)
        abandoned: list[Delivery] = []
        for worker, task in zip(self._workers, self._tasks, strict=True):
            if worker.batch and not task.done():
                abandoned += self._release(worker.batch)
                worker.kill()
                task.cancel()
            else:
                worker.close()
        if self._executor is not None:
            self._executor.shutdown(wait=False)
        self._workers, self._tasks, self._executor = [], [], None
        finished = [delivery for delivery in running if delivery not in abandoned]
        return StopReport(_ids(finished), _ids(handed_back), _ids(abandoned))

    def _release(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        mine = [delivery for delivery in deliveries if delivery.claim()]
        self._source.settle([Settlement(delivery, "release") for delivery in mine])
        return mine


class _Settling:
    """The one method of a subscription that a settler uses."""

    def __init__(self, driver: LoopDriver, queue: Queue) -> None:
        self._driver = driver
        self._queue = queue

    def settle(self, settlements: Sequence[Settlement]) -> None:
        self._driver.settle(self._queue, settlements)


def _not_here(name: str) -> Any:
    raise NotFound(f"the asyncio variant has no {name}: it knows queues alone")


def _ids(deliveries: Sequence[Delivery]) -> tuple[str, ...]:
    return tuple(delivery.message.id for delivery in deliveries)
