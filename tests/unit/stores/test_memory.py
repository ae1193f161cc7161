"""The store in memory: versions, expiry, limits, its one thread."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from wippy_queue.errors import AlreadyExists, Conflict, Invalid, NotFound, Unavailable, WippyQueueError
from wippy_queue.store import Store
from wippy_queue.stores import memory
from wippy_queue.stores.memory import MemoryStore


class FakeTime:
    """Stands in for the time module of the store; only the test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + 1_700_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(memory, "time", fake)
    return fake


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    store = MemoryStore("app:cache", max_size=3, cleanup_interval=0)
    store.start()
    yield store
    store.stop()


def test_it_keeps_the_contract(store: MemoryStore) -> None:
    contract: Store = store
    assert contract.info().backend == "memory"


def test_what_was_put_can_be_got(store: MemoryStore) -> None:
    assert store.put("a", b"1") == store.get("a")
    assert store.get("a").value == b"1"
    assert store.has("a")


def test_a_missing_key_is_not_found_and_deleting_it_is_no_error(store: MemoryStore) -> None:
    with pytest.raises(NotFound, match="app:cache.*'a'"):
        store.get("a")
    assert not store.has("a")
    assert store.delete("a") is False


def test_a_deleted_key_is_gone(store: MemoryStore) -> None:
    store.put("a", b"1")
    assert store.delete("a") is True
    assert not store.has("a")


def test_versions_grow_and_are_never_used_again(store: MemoryStore) -> None:
    versions = [store.put("a", b"1").version, store.put("a", b"2").version]
    store.delete("a")
    versions.append(store.put("a", b"3").version)
    assert versions == sorted(set(versions))


def test_only_if_absent_refuses_a_key_that_is_there(store: MemoryStore) -> None:
    store.put("a", b"1", only_if_absent=True)
    with pytest.raises(AlreadyExists):
        store.put("a", b"2", only_if_absent=True)
    assert store.get("a").value == b"1"


def test_if_version_refuses_what_has_changed_and_says_that_trying_again_helps(store: MemoryStore) -> None:
    first = store.put("a", b"1")
    second = store.put("a", b"2", if_version=first.version)
    for version in (first.version, second.version + 1):
        with pytest.raises(Conflict) as caught:
            store.put("a", b"3", if_version=version)
        assert caught.value.retryable is True
    with pytest.raises(Conflict, match="does not exist"):
        store.put("b", b"1", if_version=1)
    assert store.get("a").value == b"2"


def test_one_of_many_threads_wins_a_key(store: MemoryStore) -> None:
    won: list[int] = []
    together = threading.Barrier(8)

    def race(number: int) -> None:
        together.wait(10)
        try:
            store.put("lock", b"%d" % number, only_if_absent=True)
            won.append(number)
        except AlreadyExists:
            pass

    threads = [threading.Thread(target=race, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(won) == 1
    assert store.get("lock").value == b"%d" % won[0]


def test_what_has_expired_is_not_there(store: MemoryStore, clock: FakeTime) -> None:
    entry = store.put("a", b"1", ttl=5)
    assert entry.expires_at == clock.time() + 5
    clock.now += 4.9
    assert store.get("a") == entry
    clock.now += 0.1
    assert not store.has("a")
    with pytest.raises(NotFound):
        store.get("a")
    assert store.list().entries == ()
    assert store.delete("a") is False
    assert store.put("a", b"2", only_if_absent=True).value == b"2"


def test_a_write_without_ttl_lasts(store: MemoryStore, clock: FakeTime) -> None:
    store.put("a", b"1", ttl=5)
    store.put("a", b"2", ttl=0)
    clock.now += 1e9
    assert store.get("a").value == b"2"
    assert store.get("a").expires_at is None


def test_a_full_store_takes_no_new_key_and_names_the_cure(store: MemoryStore) -> None:
    for key in "abc":
        store.put(key, b"1")
    with pytest.raises(Unavailable, match="full .3 entries.*max_size.*ttl") as caught:
        store.put("d", b"1")
    assert caught.value.retryable is True
    store.put("a", b"2")  # a key that is there is no new one
    store.delete("b")
    store.put("d", b"1")


def test_what_has_expired_makes_room(store: MemoryStore, clock: FakeTime) -> None:
    store.put("a", b"1", ttl=5)
    store.put("b", b"1", ttl=50)
    store.put("c", b"1")
    clock.now += 5
    store.put("d", b"1")
    assert [entry.key for entry in store.list().entries] == ["b", "c", "d"]
    with pytest.raises(Unavailable):
        store.put("e", b"1")


def test_a_listing_goes_on_where_it_stopped(store: MemoryStore) -> None:
    store = MemoryStore("app:cache", cleanup_interval=0)
    store.start()
    keys = [f"job:{number:03}" for number in range(25)] + ["other", "joa", "é"]
    for key in reversed(keys):
        store.put(key, key.encode())
    seen: list[str] = []
    after: str | None = None
    for size in itertools.repeat(10):
        page = store.list("job:", limit=size, after=after)
        seen += [entry.key for entry in page.entries]
        after = page.cursor
        if after is None:
            break
    assert seen == sorted(key for key in keys if key.startswith("job:"))
    assert [entry.key for entry in store.list().entries] == sorted(keys)


def test_a_page_that_ends_with_the_last_entry_is_the_last(store: MemoryStore) -> None:
    store.put("a", b"1")
    store.put("b", b"1")
    assert store.list(limit=2).cursor is None
    assert store.list(limit=1).cursor == "a"


def test_info_counts_what_lives(store: MemoryStore, clock: FakeTime) -> None:
    store.put("a", b"1", ttl=5)
    store.put("b", b"1")
    assert store.info().entries == 2
    clock.now += 5
    assert store.info().entries == 1
    assert store.info().max_size == 3


@pytest.mark.parametrize("ttl", [-1, float("nan"), float("inf")])
def test_a_ttl_that_is_none_is_invalid(store: MemoryStore, ttl: float) -> None:
    with pytest.raises(Invalid, match="ttl"):
        store.put("a", b"1", ttl=ttl)


def test_other_nonsense_is_invalid(store: MemoryStore) -> None:
    with pytest.raises(Invalid, match="key"):
        store.put("", b"1")
    with pytest.raises(Invalid, match="exclude"):
        store.put("a", b"1", only_if_absent=True, if_version=1)
    with pytest.raises(Invalid, match="limit"):
        store.list(limit=0)


def test_a_store_that_does_not_run_says_how_to_start_it() -> None:
    store = MemoryStore("app:cache")
    for call in (lambda: store.get("a"), lambda: store.put("a", b"1"), lambda: store.has("a"), store.list, store.info):
        with pytest.raises(WippyQueueError, match="app:cache is not running.*auto_start") as caught:
            call()
        assert isinstance(caught.value, Unavailable)


def test_entries_outlive_a_stop_and_a_start() -> None:
    store = MemoryStore("app:cache")
    store.start()
    store.put("a", b"1")
    store.stop()
    store.stop()
    store.start()
    assert store.get("a").value == b"1"


def _cleaners() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "app:cache-cleaner"]


class TestCleaner:
    def test_there_is_none_while_nothing_can_expire(self) -> None:
        store = MemoryStore("app:cache")
        store.start()
        store.put("a", b"1")
        assert _cleaners() == []
        store.put("b", b"1", ttl=60)
        assert [thread.daemon for thread in _cleaners()] == [True]
        store.put("c", b"1", ttl=60)
        assert len(_cleaners()) == 1
        store.stop()
        assert _cleaners() == []

    def test_it_removes_what_has_expired_and_ends_when_nothing_is_left(self) -> None:
        store = MemoryStore("app:cache", cleanup_interval=0.005)
        store.start()
        for _ in range(2):  # there is another one when it is needed again
            store.put("a", b"1", ttl=0.001)
            for cleaner in _cleaners():
                cleaner.join(10)
            assert _cleaners() == []
            assert store._slots == {}
        store.stop()

    def test_it_comes_back_with_the_store(self) -> None:
        store = MemoryStore("app:cache")
        store.start()
        store.put("a", b"1", ttl=60)
        store.stop()
        store.start()
        assert len(_cleaners()) == 1
        store.stop()

    def test_a_stop_does_not_wait_for_the_interval(self) -> None:
        store = MemoryStore("app:cache", cleanup_interval=3600)
        store.start()
        store.put("a", b"1", ttl=60)
        started = time.monotonic()
        store.stop()
        assert time.monotonic() - started < 5

    def test_an_interval_of_nothing_means_no_thread(self) -> None:
        store = MemoryStore("app:cache", cleanup_interval=0)
        store.start()
        store.put("a", b"1", ttl=60)
        assert _cleaners() == []
