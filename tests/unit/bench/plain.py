"""A contestant of somebody else's: ``--against tests.unit.bench.plain:make``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wippy_queue.bench import Contestant, Task
from wippy_queue.errors import Unavailable


class Plain(Contestant):
    """Does nothing but tell that handlers start; or forgets to."""

    def __init__(self, task: Task, *, silent: bool = False) -> None:
        self._started = (lambda _: None) if silent else task.started
        self._backlog: list[dict[str, Any]] | None = []

    def publish(self, bodies: Sequence[dict[str, Any]]) -> None:
        if self._backlog is None:
            self._handle(bodies)
        else:
            self._backlog.extend(bodies)

    def _handle(self, bodies: Sequence[dict[str, Any]]) -> None:
        for body in bodies:
            if "mark" in body:
                self._started(body["mark"])

    def start(self) -> None:
        backlog, self._backlog = self._backlog or [], None
        self._handle(backlog)

    def wait(self, handled: int, timeout: float) -> None: ...

    def stop(self) -> None:
        print("a contestant may print")


def make(task: Task) -> Plain:
    return Plain(task)


def silent(task: Task) -> Plain:
    return Plain(task, silent=True)


def broken(task: Task) -> Plain:
    raise Unavailable("no broker answers at amqp://somewhere")
