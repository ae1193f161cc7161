"""The buffer between the feeder and the workers."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from tests.support import DEADLINE, message
from wippy_queue.delivery import Delivery
from wippy_queue.flow.prefetch import PrefetchBuffer


class Hand:
    hand: Sequence[Delivery] = ()


def deliveries(count: int) -> list[Delivery]:
    return [Delivery(message(f"m-{index}"), index) for index in range(count)]


def test_deliveries_come_out_in_order_and_into_the_hand() -> None:
    buffer, hand = PrefetchBuffer(3), Hand()
    first, second = deliveries(2)
    assert buffer.put_many([first, second])
    assert buffer.take(hand) == [first]
    assert hand.hand == [first]
    assert buffer.take(hand) == [second]


def test_room_is_what_prefetch_leaves() -> None:
    buffer = PrefetchBuffer(3)
    assert buffer.wait_room() == 3
    buffer.put_many(deliveries(2))
    assert buffer.wait_room() == 1


def test_a_full_buffer_makes_the_feeder_wait_until_a_worker_takes() -> None:
    buffer, rooms, asked = PrefetchBuffer(1), [], threading.Event()
    buffer.put_many(deliveries(1))

    def feeder() -> None:
        asked.set()
        rooms.append(buffer.wait_room())

    thread = threading.Thread(target=feeder)
    thread.start()
    assert asked.wait(DEADLINE)
    assert thread.is_alive()
    assert rooms == []
    buffer.take(Hand())
    thread.join(DEADLINE)
    assert rooms == [1]


def test_closing_gives_back_what_nobody_took_in_order_and_frees_who_waits() -> None:
    buffer, results = PrefetchBuffer(5), []
    waiting = [threading.Thread(target=lambda: results.append(buffer.take(Hand()))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    assert buffer.close() == []
    for thread in waiting:
        thread.join(DEADLINE)
    assert results == [(), (), ()]

    full = PrefetchBuffer(5)
    put = deliveries(3)
    full.put_many(put)
    full.take(Hand())
    assert full.close() == put[1:]
    assert full.wait_room() == 0
    assert not full.put_many(deliveries(1))
    assert full.close() == []


def test_a_worker_gets_its_share_at_most_so_that_no_other_one_idles() -> None:
    buffer = PrefetchBuffer(20, takers=4)
    put = deliveries(20)
    buffer.put_many(put)
    assert buffer.take(Hand(), 16) == put[:5]
    assert buffer.take(Hand(), 2) == put[5:7]
    assert buffer.take(Hand(), 16) == put[7:11]
    assert buffer.take(Hand()) == put[11:12]


def test_what_was_not_begun_goes_back_in_front_in_order() -> None:
    buffer = PrefetchBuffer(3, takers=1)
    put = deliveries(3)
    buffer.put_many(put)
    taken = buffer.take(Hand(), 3)
    buffer.put_many(deliveries(1))
    assert buffer.put_back(taken[1:])
    assert buffer.take(Hand(), 2) == put[1:]
    buffer.close()
    assert not buffer.put_back(taken)
