"""The asyncio variant as a contestant: with handlers on its loop, or in threads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wippy_queue.bench.asyncio_engine import AsyncioEngine, LoopSpec
from wippy_queue.bench.contestant import Contestant, Task
from wippy_queue.bench.workloads import DONE_QUEUE, MODULES, QUEUE, Body
from wippy_queue.ids import EntryId
from wippy_queue.lua.host import Source
from wippy_queue.queues import Queue

_STOP_TIMEOUT = 60.0  # seconds


class AsyncioContestant(Contestant):
    """An `AsyncioEngine` with the two queues of the benchmark."""

    def __init__(self, task: Task, in_threads: bool) -> None:
        queues = [
            Queue(id=EntryId(queue_id), name=queue_id, driver=EntryId("bench:driver"))
            for queue_id in (QUEUE, DONE_QUEUE)
        ]
        source = Source(id=EntryId("bench:handler"), text=task.source, name="handler.lua", modules=MODULES)
        self._engine = AsyncioEngine(
            LoopSpec(
                queues=queues,
                source=source,
                modules={"bench": {"started": task.started}},
                concurrency=task.concurrency,
                prefetch=task.prefetch,
                in_threads=in_threads,
            )
        )

    def publish(self, bodies: Sequence[Body]) -> None:
        self._engine.publish(QUEUE, bodies)

    def pace(self, bodies: Iterable[Body], rate: float) -> None:
        self._engine.pace(QUEUE, bodies, rate)

    def start(self) -> None:
        self._engine.start()

    def wait(self, handled: int, timeout: float) -> None:
        self._engine.join(timeout)

    def stop(self) -> None:
        self._engine.stop(_STOP_TIMEOUT)
        self._engine.close()


def on_the_loop(task: Task) -> AsyncioContestant:
    return AsyncioContestant(task, in_threads=False)


def in_threads(task: Task) -> AsyncioContestant:
    return AsyncioContestant(task, in_threads=True)
