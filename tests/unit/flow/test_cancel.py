"""The event that ends the waits of a consumer's handlers."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tests.support import DEADLINE, eventually
from wippy_queue.flow.cancel import Cancellation


def test_a_wait_ends_when_its_time_is_up_and_leaves_nothing_behind() -> None:
    cancel = Cancellation()
    begun = time.monotonic()
    assert not cancel.wait(0.02)
    assert not cancel.wait(0.0)
    assert not cancel.wait(-1.0)
    assert time.monotonic() - begun >= 0.02
    assert not cancel._sleepers


def test_set_ends_all_waits_and_those_to_come() -> None:
    cancel = Cancellation()
    with ThreadPoolExecutor(20) as pool:
        waits = [pool.submit(cancel.wait, None if number % 2 else DEADLINE) for number in range(20)]
        eventually(lambda: len(cancel._sleepers) == 20, "all wait")
        cancel.set()
        assert all(wait.result(DEADLINE) for wait in waits)
    assert cancel.wait(DEADLINE)
    assert cancel.wait()
    cancel.set()
    assert not cancel._sleepers


def test_no_wait_misses_a_set_that_comes_at_the_same_moment() -> None:
    for _ in range(300):
        cancel, start = Cancellation(), threading.Barrier(3)

        def wait(cancel: Cancellation = cancel, start: threading.Barrier = start) -> bool:
            start.wait(DEADLINE)
            return cancel.wait(DEADLINE)

        with ThreadPoolExecutor(2) as pool:
            waits = [pool.submit(wait) for _ in range(2)]
            start.wait(DEADLINE)
            cancel.set()
            assert all(one.result(DEADLINE) for one in waits)
