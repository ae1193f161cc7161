"""The threads of a consumer's workers: a ``ThreadPoolExecutor`` that never keeps the interpreter alive."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.thread
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

# A Lua runtime that recurses through C to its limit needs 512 KiB of stack, a chain of functions that call one another
# some MiB: with less the process dies (see design/lua-runtime.md and docs/explanation/sandbox.md).
_STACK: Final = 8 * 2**20  # bytes; only what is used is taken from memory
_stack_lock = threading.Lock()  # the size is a setting of the whole process


@contextlib.contextmanager
def _large_stacks() -> Iterator[None]:
    """Have threads that start in the block get large stacks, where the platform would give them smaller ones."""
    if _default_stack() >= _STACK:
        yield
        return
    with _stack_lock:
        before = threading.stack_size(_STACK)
        try:
            yield
        finally:
            threading.stack_size(before)


def _default_stack() -> int:
    """Return the bytes of stack that a new thread gets, 0 where that cannot be told."""
    if wanted := threading.stack_size():
        return wanted
    try:
        import resource

        glibc = bool(os.confstr("CS_GNU_LIBC_VERSION"))
        soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    except (ImportError, ValueError, OSError, AttributeError):  # not Linux, or another C library: 128 to 512 KiB
        return 0
    return soft if glibc and soft != resource.RLIM_INFINITY else 0


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
        failed: list[Exception] = []
        starter = threading.Thread(target=self._start, args=(tasks, failed), name=f"{self._name}-starter", daemon=True)
        starter.start()
        starter.join()
        if failed:
            raise failed[0]

    def _start(self, tasks: Mapping[int, Callable[[], None]], failed: list[Exception]) -> None:
        try:
            with _large_stacks():
                for index, task in tasks.items():
                    self._futures[index] = self._executor.submit(self._run, index, task)
        except Exception as error:  # no more threads are to be had, or the pool was shut down meanwhile
            failed.append(error)
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
