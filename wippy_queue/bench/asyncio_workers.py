"""The asyncio variant's workers: a task each, which runs its handlers on the loop, or hands them to threads."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Final

from wippy_queue.bench.asyncio_buffer import LoopBuffer
from wippy_queue.bench.asyncio_lua import OUTCOME, ROOM, LoopContext, LoopRuntime
from wippy_queue.bench.asyncio_queue import LoopQueue
from wippy_queue.delivery import Delivery
from wippy_queue.errors import Invalid
from wippy_queue.flow.settle import Settler
from wippy_queue.handler import ACK, Outcome, WorkerContext
from wippy_queue.lua.handler import MEMORY_LIMIT, LuaFunction
from wippy_queue.lua.host import Host, Source
from wippy_queue.lua.runtime import UNDECODABLE, Failure
from wippy_queue.message import Message

BATCH: Final = 64  # messages that go into Lua in one crossing, while handlers are fast
_THREAD_BATCH: Final = 16  # messages that go to a thread at a time
_TURN: Final = 0.004  # seconds of the loop's time that a batch is to take at most
_FAST: Final = 100e-6  # seconds that a handler in a thread takes at most to count as fast
_PATIENCE: Final = 0.002  # seconds after which other workers may have what a thread has not begun
_LOAD_TIMEOUT: Final = 10.0  # seconds


class Worker:
    """What both kinds have in common.

    Thread safety: the loop's thread alone.
    """

    def __init__(self, buffer: LoopBuffer, queue: LoopQueue, settler: Settler) -> None:
        self.batch: list[Delivery] = []  # in hand
        self.stopping = False
        self._buffer = buffer
        self._queue = queue
        self._settler = settler
        self._size = 1

    async def run(self) -> None:
        """Work until ``stopping``, or until cancelled while it waits for messages."""
        while not self.stopping:
            self.batch = await self._buffer.get_many(self._size)
            await self.handle(self.batch)
            self.batch = []

    async def handle(self, batch: list[Delivery]) -> None:
        raise NotImplementedError

    def give_back(self) -> None:
        """Put what was taken but not begun back into the buffer."""

    def wake(self) -> None:
        """End a wait of the handler, for the consumer stops."""

    def kill(self) -> None:
        """End the handler, if it can be ended."""

    def close(self) -> None: ...

    def _ack(self, deliveries: Sequence[Delivery]) -> None:
        self._queue.ack([delivery for delivery in deliveries if delivery.claim()])


class LoopWorker(Worker):
    """Runs its handlers as Lua coroutines, on the loop."""

    def __init__(
        self,
        buffer: LoopBuffer,
        queue: LoopQueue,
        settler: Settler,
        source: Source,
        host: Host,
        worker: WorkerContext,
        room: Callable[[str], Awaitable[None]],
    ) -> None:
        super().__init__(buffer, queue, settler)
        self._room = room  # in the queue of that id
        self._source = source
        self._function = LuaFunction(source, host)  # for what it knows of errors
        self._context = LoopContext(host=host, function=source.id, worker=worker, cancel=worker.cancel)
        self._loop = asyncio.get_running_loop()
        self._runtime = self._make_runtime()
        self._waiting: asyncio.Future[bool] | None = None

    def _make_runtime(self) -> LoopRuntime:
        runtime = LoopRuntime(self._context, MEMORY_LIMIT)
        failure = runtime.load(self._source, _LOAD_TIMEOUT)
        if failure is not None:
            raise Invalid(f"{self._source.id}: {self._function.failure(failure, runtime, _LOAD_TIMEOUT)[0]}")
        return runtime

    async def handle(self, batch: list[Delivery]) -> None:
        if self._runtime.spoiled:
            self._runtime.close()
            self._runtime = self._make_runtime()
        self._context.canceled = False
        begun = time.perf_counter()
        result = self._runtime.begin(batch)
        seconds = time.perf_counter() - begun
        self._size = min(2 * self._size, BATCH) if 2 * seconds < _TURN else max(1, self._size // 2)
        while result is not None:
            if type(result[0]) is int:  # the crossing itself broke: which message it was, nobody knows
                for delivery in batch:
                    self._settler.settle(delivery, self._outcome(delivery.message, result))
                return
            why, number, *rest = result
            if why == OUTCOME:
                delivery = batch[number - 1]
                self._settler.settle(delivery, self._outcome(delivery.message, tuple(rest)))
                result = self._runtime.resume(len(batch), True)
                continue
            self._ack(batch[: number - 1])
            if number < len(batch):  # nothing waits behind a handler that waits
                self._buffer.put_back(batch[number:])
                del batch[number:]
            self._size = 1
            result = self._runtime.resume(number, await self._wait(why, rest[0]))
        self._ack(batch)
        await asyncio.sleep(0)  # a backlog would keep the loop from everything else

    async def _wait(self, why: str, argument: Any) -> bool:
        """Wait for what the handler waits for; False: the consumer stops."""
        if self._context.cancel.is_set():
            await asyncio.sleep(0)
        else:
            self._waiting = waiting = self._loop.create_future()
            if why == ROOM:
                room = asyncio.ensure_future(self._room(argument))
                room.add_done_callback(lambda _: _resolve(waiting, True))
            else:
                self._loop.call_later(max(0.0, argument / 1e9), _resolve, waiting, True)
            if await waiting:
                return True
        self._context.canceled = True
        return False

    def _outcome(self, message: Message, failure: Failure) -> Outcome:
        if failure[0] == UNDECODABLE:
            why = failure[1]
            error = Invalid(f"message {message.id}: the body is no {message.encoding}: {why}")
            return Outcome(error=error, undecodable=True)
        found, trace = self._function.failure(failure, self._runtime, None)
        return Outcome(error=found, trace=trace, canceled=self._context.canceled)

    def wake(self) -> None:
        if self._waiting is not None:
            _resolve(self._waiting, False)

    def close(self) -> None:
        self._runtime.close()


class ThreadWorker(Worker):
    """Runs its handlers in threads, as whoever has blocking handlers would."""

    def __init__(
        self,
        buffer: LoopBuffer,
        queue: LoopQueue,
        settler: Settler,
        source: Source,
        host: Host,
        worker: WorkerContext,
        executor: Executor,
    ) -> None:
        super().__init__(buffer, queue, settler)
        worker.part = self._part
        self._session = LuaFunction(source, host).open(worker)
        self._loop = asyncio.get_running_loop()
        self._executor = executor
        self._rest: deque[Delivery] = deque()  # not begun; the thread takes from the left, the loop from the right
        self._done: deque[tuple[Delivery, Outcome]] = deque()  # the thread appends, the loop takes
        self._chunk: list[Delivery] = []  # what the thread has begun with
        self._told = 0  # how many of them are in `_done` already

    async def handle(self, batch: list[Delivery]) -> None:
        self._rest.extend(batch)
        timer = self._loop.call_later(_PATIENCE, self.give_back) if len(batch) > 1 else None
        seconds = await self._loop.run_in_executor(self._executor, self._run)
        if timer is not None:
            timer.cancel()
        self._size = min(2 * self._size, _THREAD_BATCH) if seconds < _FAST * len(batch) else 1
        self._settle_done()

    def _run(self) -> float:
        """In a thread: handle what the loop does not take back meanwhile; return the seconds that it took."""
        begun = time.perf_counter()
        while self._rest:
            chunk = self._chunk = self._take_rest()
            self._told = 0
            outcomes = self._session.handle(chunk) if chunk else ()
            self._rest.extendleft(reversed(chunk[len(outcomes) :]))
            self._done.extend(list(zip(chunk, outcomes, strict=False))[self._told :])
        return time.perf_counter() - begun

    def _take_rest(self) -> list[Delivery]:
        taken: list[Delivery] = []
        with contextlib.suppress(IndexError):  # nothing left, or taken back just now
            while True:
                taken.append(self._rest.popleft())
        return taken

    def _part(self, place: int) -> None:
        """In the thread, from inside `handle`: what comes after the message in that place may go elsewhere."""
        done, tail = self._chunk[: place - 1], self._chunk[place:]
        self._done.extend((delivery, ACK) for delivery in done)
        self._told = len(done)
        del self._chunk[place:]
        self._rest.extendleft(reversed(tail))

    def give_back(self) -> None:
        self._settle_done()
        if self.stopping:  # the buffer has been emptied for good: the thread does what it has
            return
        left: deque[Delivery] = deque()
        with contextlib.suppress(IndexError):
            while True:
                left.appendleft(self._rest.pop())
        if left:
            del self.batch[-len(left) :]
            self._buffer.put_back(left)

    def _settle_done(self) -> None:
        acked: list[Delivery] = []
        while self._done:
            delivery, outcome = self._done.popleft()
            if outcome is ACK:
                acked.append(delivery)
            else:
                self._settler.settle(delivery, outcome)
        self._ack(acked)

    def kill(self) -> None:
        self._session.kill()

    def close(self) -> None:
        self._session.close()


def _resolve(waiting: asyncio.Future[bool], value: bool) -> None:
    if not waiting.done():
        waiting.set_result(value)
