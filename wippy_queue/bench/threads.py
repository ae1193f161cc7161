"""This engine as a contestant, on any of its drivers."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from wippy_queue.bench.contestant import Contestant, Task
from wippy_queue.bench.workloads import DONE_QUEUE, MODULES, QUEUE, Body
from wippy_queue.engine import Engine

_ADDRESS: Final = {"sqlite": "file", "amqp": "url", "redis": "url", "sqs": "endpoint"}  # the field that --url sets
_EXPIRY: Final = "1h"  # after which RabbitMQ removes what a run has left


class ThreadEngine(Contestant):
    """An engine with two queues and one consumer."""

    def __init__(self, task: Task) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="wippy-queue-bench-")
        self._engine = Engine.from_entries(
            [
                {"name": "driver", "kind": f"queue.driver.{task.driver}", **self._address(task)},
                *(self._queue(queue_id) for queue_id in (QUEUE, DONE_QUEUE)),
                {"name": "handler", "kind": "function.lua", "source": task.source, "modules": list(MODULES)},
                {
                    "name": "consumer",
                    "kind": "queue.consumer",
                    "queue": QUEUE,
                    "func": "bench:handler",
                    "concurrency": task.concurrency,
                    "prefetch": task.prefetch,
                    "lifecycle": {"auto_start": True, "start_timeout": 60, "stop_timeout": 60},
                },
            ],
            namespace="bench",
        )
        self._engine.module("bench", {"started": task.started})
        self._engine.start(consumers=False)
        self._purge()  # what a run that was cut has left on a broker

    def _address(self, task: Task) -> dict[str, Any]:
        address: dict[str, Any] = {"lifecycle": {"auto_start": True}}
        if task.driver == "amqp":
            address["default_queue_expiry"] = _EXPIRY
        url = task.url
        if task.driver == "sqlite" and url is None:
            url = str(Path(self._folder.name) / "bench.db")
        if url is not None and task.driver in _ADDRESS:
            address[_ADDRESS[task.driver]] = url
        return address

    def _queue(self, queue_id: str) -> dict[str, Any]:
        name = queue_id.partition(":")[2]
        return {
            "name": name,
            "kind": "queue.queue",
            "driver": "bench:driver",
            "queue_name": f"wippy-queue-bench-{name}",
        }

    def publish(self, bodies: Sequence[Body]) -> None:
        self._engine.publish_many(QUEUE, bodies)

    def start(self) -> None:
        self._engine.start()

    def wait(self, handled: int, timeout: float) -> None:
        self._engine.join(QUEUE, timeout=timeout)

    def stop(self) -> None:
        try:
            self._purge()
        finally:
            self._engine.stop()
            self._folder.cleanup()

    def _purge(self) -> None:
        for queue_id in (QUEUE, DONE_QUEUE):
            self._engine.purge(queue_id)
