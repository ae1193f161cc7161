"""The threads of a consumer's workers: a ``ThreadPoolExecutor`` that never keeps the interpreter alive."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.thread
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any


class WorkerPool:
    """Runs each task on a daemon thread of its own.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, size: int, name: str) -> None:
        self._name = name
        self._executor = concurrent.futures.ThreadPoolExecutor(size)
        self._futures: dict[int, concurrent.futures.Future[None]] = {}

    def start(self, tasks: Mapping[int, Callable[[], None]]) -> None:
        """Run the tasks, by the number that is in the name of their thread; one of the same number is forgotten."""
        # An executor joins its threads at interpreter exit, daemons too: a script that raises before stop(), or has a
        # stuck handler, would hang for ever. So the threads are made from a daemon thread, for they inherit that, and
        # are taken out of the table that the exit hook joins. Private, the same in CPython 3.11 to 3.14; a test runs
        # such scripts in a child process.
        starter = threading.Thread(target=self._start, args=(tasks,), name=f"{self._name}-starter", daemon=True)
        starter.start()
        starter.join()

    def _start(self, tasks: Mapping[int, Callable[[], None]]) -> None:
        for index, task in tasks.items():
            self._futures[index] = self._executor.submit(self._run, index, task)
        joined_at_exit: Any = concurrent.futures.thread._threads_queues
        for thread in self._executor._threads:
            joined_at_exit.pop(thread, None)

    def _run(self, index: int, task: Callable[[], None]) -> None:
        threading.current_thread().name = f"{self._name}-{index}"
        task()

    def forget(self, index: int) -> None:
        """Do not wait for the task of that number."""
        self._futures.pop(index, None)

    def wait(self, deadline: float) -> bool:
        """Wait until ``deadline`` (monotonic seconds) for every task but forgotten ones; return whether all ended."""
        left = max(0.0, deadline - time.monotonic())
        return not concurrent.futures.wait(self._futures.values(), timeout=left).not_done

    def shutdown(self) -> None:
        """Let the threads end with their tasks; waits for nothing."""
        self._executor.shutdown(wait=False)
