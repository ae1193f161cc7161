"""The bare client library as a contestant: its queues, threads, Lua as the baseline has it, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from wippy_queue.bench.baseline import bare_handlers
from wippy_queue.bench.client import Client
from wippy_queue.bench.contestant import Contestant, Task
from wippy_queue.bench.workloads import Body
from wippy_queue.errors import Invalid


class ClientContestant(Contestant):
    """A `Client` with the handlers of a task.

    Thread safety: ``publish`` may be called from any thread.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._encode = msgspec.json.Encoder().encode
        self._client = _library(task.driver)(task.url, task.prefetch + task.concurrency)

    def publish(self, bodies: Sequence[Body]) -> None:
        if len(bodies) == 1:
            self._client.send(self._client.tasks, self._encode(bodies[0]))
        else:
            self._client.send_many(self._client.tasks, [self._encode(body) for body in bodies])

    def start(self) -> None:
        self._client.start(bare_handlers(self._task.concurrency, self._task.source, self._pass_on, self._task.started))

    def _pass_on(self, body: str) -> None:
        self._client.send(self._client.done, body.encode("latin-1"))  # each character of it is a byte of Lua's

    def wait(self, handled: int, timeout: float) -> None:
        self._client.wait(handled, timeout)

    def stop(self) -> None:
        self._client.close()


def _library(driver: str) -> type[Client]:
    """Return the client of a driver's backend.

    Raises:
        Invalid: its library is not installed.
    """
    try:
        if driver == "amqp":
            from wippy_queue.bench.client_amqp import Pika

            return Pika
        if driver == "redis":
            from wippy_queue.bench.client_redis import RedisStreams

            return RedisStreams
        if driver == "sqs":
            from wippy_queue.bench.client_sqs import Boto3

            return Boto3
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "wippy_queue":
            raise
        raise Invalid(
            f"--driver {driver} needs {error.name}, which is not installed: pip install 'wippy_queue[{driver}]'"
        ) from None
    from wippy_queue.bench.client_sqlite import Sqlite

    return Sqlite
