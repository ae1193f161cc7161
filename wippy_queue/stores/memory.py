"""A store in this process's memory: kind ``store.memory``."""

from __future__ import annotations

import heapq
import logging
import math
import threading
import time
from typing import Final

import attrs

from wippy_queue.errors import AlreadyExists, Conflict, Invalid, NotFound, Unavailable
from wippy_queue.store import StoreEntry, StoreInfo, StorePage

DEFAULT_MAX_SIZE: Final = 10_000  # entries; Wippy's
DEFAULT_CLEANUP_INTERVAL: Final = 300.0  # seconds; Wippy's

_logger = logging.getLogger(__name__)


@attrs.frozen
class _Slot:
    entry: StoreEntry
    deadline: float  # monotonic seconds, inf: never


class MemoryStore:
    """Entries in a dict. What has expired is invisible at once, and removed by a cleaner or when room is needed.

    The cleaner is a daemon thread that exists only while there is something that can expire.

    Args:
        store_id: registry id, for errors and the name of the thread.
        max_size: entries that it holds, 1 or more.
        cleanup_interval: seconds between two passes of the cleaner; 0: no cleaner.

    Thread safety: every method from any thread; ``_lock`` guards all state, and nothing blocks while it is held.
    """

    def __init__(
        self,
        store_id: str,
        max_size: int = DEFAULT_MAX_SIZE,
        cleanup_interval: float = DEFAULT_CLEANUP_INTERVAL,
    ) -> None:
        self._id = store_id
        self._max_size = max_size
        self._cleanup_interval = cleanup_interval
        self._lock = threading.Lock()
        self._slots: dict[str, _Slot] = {}
        self._version = 0  # of the last write to any key: a key that comes back never repeats a version
        self._soonest = math.inf  # nothing expires before; monotonic seconds
        self._running = False
        self._cleaner: threading.Thread | None = None
        self._wake_cleaner = threading.Event()

    def start(self) -> None:
        with self._lock:
            self._running = True
            self._ensure_cleaner()

    def stop(self) -> None:
        with self._lock:
            self._running = False
            cleaner, self._cleaner = self._cleaner, None
            self._wake_cleaner.set()
        if cleaner is not None and cleaner is not threading.current_thread():
            cleaner.join()  # at most one pass

    def get(self, key: str) -> StoreEntry:
        with self._lock:
            self._require_running()
            slot = self._live(key)
        if slot is None:
            raise NotFound(f"store {self._id}: no key {key!r}")
        return slot.entry

    def has(self, key: str) -> bool:
        with self._lock:
            self._require_running()
            return self._live(key) is not None

    def put(
        self,
        key: str,
        value: bytes,
        *,
        ttl: float | None = None,
        only_if_absent: bool = False,
        if_version: int | None = None,
    ) -> StoreEntry:
        self._check_put(key, ttl, only_if_absent, if_version)
        with self._lock:
            self._require_running()
            now = time.monotonic()
            slot = self._live(key)
            if only_if_absent and slot is not None:
                raise AlreadyExists(f"store {self._id}: the key {key!r} exists")
            if if_version is not None and (slot is None or slot.entry.version != if_version):
                found = "does not exist" if slot is None else f"has version {slot.entry.version}"
                raise Conflict(
                    f"store {self._id}: the key {key!r} {found}, expected version {if_version}; read it and try again",
                    retryable=True,
                )
            if slot is None and len(self._slots) >= self._max_size:
                self._make_room(now)
            self._version += 1
            entry = StoreEntry(
                key=key, value=value, version=self._version, expires_at=time.time() + ttl if ttl else None
            )
            deadline = now + ttl if ttl else math.inf
            self._slots[key] = _Slot(entry, deadline)
            self._soonest = min(self._soonest, deadline)
            self._ensure_cleaner()
        return entry

    def delete(self, key: str) -> bool:
        with self._lock:
            self._require_running()
            was_there = self._live(key) is not None
            self._slots.pop(key, None)
            return was_there

    def list(self, prefix: str = "", *, limit: int = 100, after: str | None = None) -> StorePage:
        if limit < 1:
            raise Invalid(f"store {self._id}: limit: expected 1 or more, found {limit}")
        with self._lock:
            self._require_running()
            slots = list(self._slots.values())
        now = time.monotonic()
        found = (
            slot.entry
            for slot in slots
            if slot.deadline > now and slot.entry.key.startswith(prefix) and (after is None or slot.entry.key > after)
        )
        entries = heapq.nsmallest(limit + 1, found, key=lambda entry: entry.key)
        page = tuple(entries[:limit])
        return StorePage(entries=page, cursor=page[-1].key if len(entries) > limit else None)

    def info(self) -> StoreInfo:
        with self._lock:
            self._require_running()
            self._remove_expired(time.monotonic())
            return StoreInfo(backend="memory", durable=False, entries=len(self._slots), max_size=self._max_size)

    def _check_put(self, key: str, ttl: float | None, only_if_absent: bool, if_version: int | None) -> None:
        if not key:
            raise Invalid(f"store {self._id}: the key is empty")
        if ttl is not None and not 0 <= ttl < math.inf:
            raise Invalid(f"store {self._id}: ttl: expected seconds, 0 or more, found {ttl}")
        if only_if_absent and if_version is not None:
            raise Invalid(f"store {self._id}: only_if_absent and if_version exclude each other; give one of them")

    # The caller of everything below holds the lock.

    def _require_running(self) -> None:
        if not self._running:
            raise Unavailable(
                f"store {self._id} is not running; give it `lifecycle: auto_start: true`, or name it in the"
                " `depends_on` of the consumer that uses it"
            )

    def _live(self, key: str) -> _Slot | None:
        slot = self._slots.get(key)
        return slot if slot is not None and slot.deadline > time.monotonic() else None

    def _make_room(self, now: float) -> None:
        self._remove_expired(now)
        if len(self._slots) >= self._max_size:
            raise Unavailable(
                f"store {self._id} is full ({self._max_size} entries); raise its max_size, delete what is no longer"
                " needed, or give entries a ttl",
                details={"max_size": self._max_size},
            )

    def _remove_expired(self, now: float) -> None:
        if now < self._soonest:
            return
        self._slots = {key: slot for key, slot in self._slots.items() if slot.deadline > now}
        self._soonest = min((slot.deadline for slot in self._slots.values()), default=math.inf)

    def _ensure_cleaner(self) -> None:
        if self._cleaner is None and self._running and self._cleanup_interval > 0 and self._soonest < math.inf:
            self._wake_cleaner = threading.Event()
            self._cleaner = threading.Thread(
                target=self._clean, args=(self._wake_cleaner,), name=f"{self._id}-cleaner", daemon=True
            )
            self._cleaner.start()

    # On the cleaner's thread.

    def _clean(self, stopped: threading.Event) -> None:
        try:
            while not stopped.wait(min(self._cleanup_interval, threading.TIMEOUT_MAX)):
                with self._lock:
                    self._remove_expired(time.monotonic())
                    if self._soonest == math.inf:  # nothing is left that can expire; the next ttl starts another
                        if not stopped.is_set():
                            self._cleaner = None
                        return
        except Exception:
            _logger.exception("the cleaner of a store has failed", extra={"fields": {"store": self._id}})
