"""How many messages a worker takes at a time."""

from __future__ import annotations

import pytest

from wippy_queue.flow.tempo import Tempo


def sizes(tempo: Tempo, seconds: float, times: int) -> list[int]:
    found = []
    for _ in range(times):
        tempo.handled(seconds * tempo.most, tempo.most)
        found.append(tempo.most)
    return found


def test_more_and_more_while_they_are_fast_but_no_longer_than_four_milliseconds() -> None:
    assert sizes(Tempo(64), 1e-6, 7) == [2, 4, 8, 16, 32, 64, 64]
    assert sizes(Tempo(64), 1e-4, 7) == [2, 4, 8, 16, 32, 40, 40]
    assert sizes(Tempo(64), 1e-3, 3) == [2, 4, 4]
    assert sizes(Tempo(64), 3e-3, 3) == [1, 1, 1]


def test_one_at_a_time_while_all_are_slow() -> None:
    tempo = Tempo(64)
    sizes(tempo, 1e-6, 6)
    for _ in range(6):
        tempo.slow()
    assert tempo.most == 1
    assert not tempo.fast


def test_a_few_slow_ones_among_many_do_not_end_it() -> None:
    tempo = Tempo(64)
    sizes(tempo, 1e-6, 6)
    tempo.slow()
    assert tempo.most == 32
    assert sizes(tempo, 1e-6, 1) == [64]


def test_another_worker_is_worth_waking_for_two_changes_of_threads_or_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wippy_queue.flow.tempo._cores", lambda: 4)
    tempo = Tempo(64)
    sizes(tempo, 1e-5, 6)
    assert [tempo.workers(waiting) for waiting in (1, 29, 30, 45, 60, 1000)] == [1, 1, 2, 3, 4, 4]
    assert tempo.enough(1000) == 5, "one fills the gaps between short messages"
    sizes(tempo, 1e-3, 1)
    assert tempo.workers(1) == tempo.enough(1) == 4


@pytest.mark.parametrize("seconds", [1e-6, 1.0])
def test_always_one_where_several_are_not_allowed(seconds: float) -> None:
    assert sizes(Tempo(1), seconds, 3) == [1, 1, 1]
