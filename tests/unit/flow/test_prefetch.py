"""The buffer between the feeder and the workers."""

from __future__ import annotations

import queue
import threading
from functools import partial

import pytest

from tests.support import DEADLINE, eventually, message
from wippy_queue.delivery import Delivery
from wippy_queue.flow.prefetch import Holder, PrefetchBuffer
from wippy_queue.flow.tempo import Tempo


def deliveries(count: int) -> list[Delivery]:
    return [Delivery(message(f"m-{index}"), index) for index in range(count)]


def test_deliveries_come_out_in_order_and_into_the_hand() -> None:
    buffer, hand = PrefetchBuffer(3, Tempo()), Holder()
    first, second = deliveries(2)
    assert buffer.put_many([first, second])
    assert buffer.take(hand) == [first]
    assert hand.hand == [first]
    assert buffer.take(hand) == [second]


def test_room_is_what_prefetch_leaves() -> None:
    buffer = PrefetchBuffer(3, Tempo())
    assert buffer.wait_room() == 3
    buffer.put_many(deliveries(2))
    assert buffer.wait_room() == 1


def test_a_full_buffer_makes_the_feeder_wait_until_a_worker_takes() -> None:
    buffer, rooms, asked = PrefetchBuffer(1, Tempo()), [], threading.Event()
    buffer.put_many(deliveries(1))

    def feeder() -> None:
        asked.set()
        rooms.append(buffer.wait_room())

    thread = threading.Thread(target=feeder)
    thread.start()
    assert asked.wait(DEADLINE)
    assert thread.is_alive()
    assert rooms == []
    buffer.take(Holder())
    thread.join(DEADLINE)
    assert rooms == [1]


def test_room_that_is_gone_before_the_feeder_has_it_is_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker gives back what it has not begun, just as the feeder gathers room. 0 would tell the feeder to end."""
    buffer = PrefetchBuffer(4, Tempo())
    buffer.put_many(deliveries(3))
    waits: list[float | None] = []

    def wait(timeout: float | None = None) -> bool:
        waits.append(timeout)
        if len(waits) == 1:
            buffer.queue.appendleft(Delivery(message("back"), 9))
        else:
            buffer.queue.popleft()
        return True

    monkeypatch.setattr(buffer.not_full, "wait", wait)
    assert buffer.wait_room() == 2
    assert len(waits) == 3


def test_closing_gives_back_what_nobody_took_in_order_and_frees_who_waits() -> None:
    buffer, results = PrefetchBuffer(5, Tempo()), []
    waiting = [threading.Thread(target=lambda: results.append(buffer.take(Holder()))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    assert buffer.close() == []
    for thread in waiting:
        thread.join(DEADLINE)
    assert results == [(), (), ()]

    full = PrefetchBuffer(5, Tempo())
    put = deliveries(3)
    full.put_many(put)
    full.take(Holder())
    assert full.close() == put[1:]
    assert full.wait_room() == 0
    assert not full.put_many(deliveries(1))
    assert full.close() == []


def fast(most: int, awake: int) -> Tempo:
    tempo = Tempo(limit=most)
    tempo.most, tempo._cores, tempo._each = most, awake, 1.0
    return tempo


def at_work() -> Holder:
    holder = Holder()
    holder.away = False
    return holder


def test_a_worker_gets_its_share_at_most_so_that_no_other_one_idles_who_is_worth_waking() -> None:
    tempo = fast(16, awake=4)
    buffer = PrefetchBuffer(20, tempo)
    buffer._busy = 8
    put = deliveries(20)
    buffer.put_many(put)
    assert buffer.take(at_work()) == put[:5]
    tempo.most = 2
    assert buffer.take(at_work()) == put[5:7]
    tempo.most, tempo._cores = 16, 1
    assert buffer.take(at_work()) == put[7:20]


def test_what_was_not_begun_goes_back_in_front_in_order() -> None:
    buffer = PrefetchBuffer(3, fast(3, awake=1))
    put = deliveries(3)
    buffer.put_many(put)
    holder = Holder()
    taken = buffer.take(holder)
    buffer.put_many(deliveries(1))
    assert buffer.put_back(taken[1:])
    assert list(buffer.take(holder))[:2] == put[1:]
    buffer.close()
    assert not buffer.put_back(taken)


class Workers:
    """Threads that take once each, and say when they have."""

    def __init__(self, buffer: PrefetchBuffer, count: int) -> None:
        self.buffer = buffer
        self.taken: queue.Queue[int] = queue.Queue()
        self.threads = [threading.Thread(target=self._take, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()
        eventually(lambda: len(buffer._idle) == count, "all wait")

    def _take(self) -> None:
        self.taken.put(len(self.buffer.take(Holder())))

    def end(self) -> None:
        self.buffer.close()
        for thread in self.threads:
            thread.join(DEADLINE)


def test_while_handlers_are_slow_every_delivery_wakes_a_worker() -> None:
    buffer = PrefetchBuffer(10, Tempo())
    workers = Workers(buffer, 5)
    buffer.put_many(deliveries(4))
    assert [workers.taken.get(timeout=DEADLINE) for _ in range(4)] == [1] * 4
    assert (len(buffer._idle), buffer._qsize()) == (1, 0)
    workers.end()


def test_who_has_waited_the_least_is_woken_for_its_caches_are_warm() -> None:
    buffer = PrefetchBuffer(10, Tempo())
    order: list[int] = []
    came: queue.Queue[int] = queue.Queue()

    def has_idle(count: int) -> bool:
        return len(buffer._idle) == count

    def work(number: int) -> None:
        hand = Holder()
        while buffer.take(hand):
            came.put(number)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(3)]
    for number, thread in enumerate(threads, 1):
        thread.start()
        eventually(partial(has_idle, number), "it waits")
    for _ in range(5):
        buffer.put_many(deliveries(1))
        order.append(came.get(timeout=DEADLINE))
        eventually(partial(has_idle, 3), "it waits again")
    assert order == [2] * 5
    buffer.close()
    for thread in threads:
        thread.join(DEADLINE)


def test_while_handlers_are_fast_no_more_workers_are_woken_than_are_worth_it() -> None:
    buffer = PrefetchBuffer(10, fast(2, awake=1))
    workers = Workers(buffer, 5)
    buffer.put_many(deliveries(4))
    assert workers.taken.get(timeout=DEADLINE) == 2
    assert (len(buffer._idle), buffer._qsize()) == (4, 2), "the one who took will be back soon"
    workers.end()


def test_when_a_handler_takes_its_time_somebody_else_looks_after_the_rest() -> None:
    tempo = fast(2, awake=1)
    buffer = PrefetchBuffer(10, tempo)
    workers = Workers(buffer, 3)
    buffer.put_many(deliveries(6))
    assert workers.taken.get(timeout=DEADLINE) == 2
    tempo.slow()
    buffer.leave(at_work())
    assert [workers.taken.get(timeout=DEADLINE) for _ in range(2)] == [1, 1]
    workers.end()


def test_who_comes_back_while_enough_are_at_work_rests_until_one_of_them_takes_its_time() -> None:
    """More would only contend for the processors and the interpreter lock with those."""
    buffer = PrefetchBuffer(20, fast(2, awake=2))
    busy = [Holder(), Holder()]
    buffer.put_many(deliveries(10))
    assert [len(buffer.take(holder)) for holder in busy] == [2, 2]
    workers = Workers(buffer, 2)
    assert buffer._qsize() == 6, "they wait although there is something"
    buffer.take(busy[0])
    assert len(buffer._idle) == 2
    buffer.leave(busy[1])
    assert workers.taken.get(timeout=DEADLINE) == 2
    assert len(buffer._idle) == 1
    workers.end()


def test_who_is_stuck_does_not_count_as_one_at_work() -> None:
    buffer = PrefetchBuffer(20, fast(2, awake=1))
    stuck = Holder()
    buffer.put_many(deliveries(8))
    hand = buffer.take(stuck)
    workers = Workers(buffer, 1)
    assert buffer.retire(stuck, hand)
    assert workers.taken.get(timeout=DEADLINE) == 2
    assert buffer.take(stuck) == ()
    workers.end()


def test_who_rests_is_woken_when_handlers_are_not_fast_any_more() -> None:
    tempo = fast(2, awake=1)
    buffer = PrefetchBuffer(20, tempo)
    busy = Holder()
    buffer.put_many(deliveries(8))
    buffer.take(busy)
    workers = Workers(buffer, 3)
    tempo.most = 1
    assert len(buffer.take(busy)) == 1
    assert [workers.taken.get(timeout=DEADLINE) for _ in range(3)] == [1, 1, 1]
    workers.end()
