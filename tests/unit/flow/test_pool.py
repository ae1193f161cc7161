"""The threads of the workers."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support import DEADLINE
from wippy_queue.flow import pool
from wippy_queue.flow.pool import WorkerPool


def test_tasks_run_at_once_on_daemon_threads_named_after_their_numbers() -> None:
    together = threading.Barrier(3, timeout=DEADLINE)
    seen: list[tuple[str, bool]] = []

    def task() -> None:
        together.wait()
        seen.append((threading.current_thread().name, threading.current_thread().daemon))

    workers = WorkerPool(3, "app:worker")
    workers.start(dict.fromkeys(range(3), task))
    assert workers.wait(time.monotonic() + DEADLINE)
    workers.shutdown()
    assert sorted(seen) == [(f"app:worker-{number}", True) for number in range(3)]


def test_waiting_ends_at_the_deadline_and_leaves_out_what_was_forgotten() -> None:
    go_on = threading.Event()

    def wait() -> None:
        go_on.wait(DEADLINE)

    workers = WorkerPool(2, "app:worker")
    workers.start({0: lambda: None, 1: wait})
    assert not workers.wait(time.monotonic() + 0.05)
    workers.forget(1)
    assert workers.wait(time.monotonic() + DEADLINE)
    go_on.set()
    workers.shutdown()


def test_where_the_platform_gives_small_stacks_workers_get_larger_ones_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(pool, "_default_stack", lambda: 128 * 1024)
    before = threading.stack_size()
    submit = ThreadPoolExecutor.submit

    def spy(*args: Any) -> Any:
        sizes.append(threading.stack_size())
        return submit(*args)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", spy)
    workers = WorkerPool(1, "app:worker")
    workers.start({0: lambda: None})
    assert workers.wait(time.monotonic() + DEADLINE)
    workers.shutdown()
    assert sizes == [pool._STACK]
    assert threading.stack_size() == before
