"""Ending a handler that runs too long: the hook that kills, and the thread that watches deadlines."""

from __future__ import annotations

import ctypes
import heapq
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Final, Literal, Protocol

from lupa import lua54

HookMode = Literal["async", "count", "off"]

COUNT: Final = 1_000  # instructions between two looks, where a count hook looks whether the call is over

_MASK_COUNT: Final = 8  # LUA_MASKCOUNT
_MASK_LINE: Final = 4  # LUA_MASKLINE
_SLOW: Final = 0.01  # seconds after which a batch counts as slow, and what it has not begun is given to others
_GRID: Final = 0.005  # seconds; batches that become slow within so many are looked at together, in one wake-up
_IDLE: Final = 10.0  # seconds without a deadline after which the watchdog's thread ends
_FIRST_RETRY: Final = 0.01  # seconds until a hook that seems to have got lost is armed again; doubles up to
_LAST_RETRY: Final = 1.0
_FAR: Final = 10.0  # seconds after which the watchdog looks in any case: until then what is void stays in its heap

_logger = logging.getLogger(__name__)


class HookLibrary:
    """Lua's own functions for hooks, called by address.

    A count hook that is always there makes CPU loops more than twice as slow. ``lua_sethook`` may be called while
    another thread runs the state (Lua's `ldebug.c` says so), so the hook is set at the moment of the kill and a
    handler that keeps its limits pays nothing.
    """

    def __init__(self) -> None:
        library = ctypes.PyDLL(lua54.__file__)
        self._get = library.lua_gethook
        self._get.restype = ctypes.c_void_p
        self._get.argtypes = [ctypes.c_void_p]
        self._set = library.lua_sethook
        self._set.restype = None
        self._set.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]

    @classmethod
    def load(cls) -> HookLibrary | None:
        """Return the functions, or None where lupa was built without exporting them."""
        try:
            return cls()
        except (AttributeError, OSError):
            return None

    def attach(self, state: int) -> AsyncHook:
        """Take the hook that ``debug.sethook`` has installed out of a state, ready to be armed."""
        hook = AsyncHook(self, state, self._get(state))
        hook.disarm()
        return hook

    def set(self, thread: int, hook: int, mask: int, count: int = 1) -> None:
        """Set the hook of a main thread or a coroutine; a mask of 0 takes it off."""
        self._set(thread, hook, mask, count)


class AsyncHook:
    """The hook of one Lua state: of its main thread, and of those of its coroutines that are followed.

    Thread safety: one thread at a time, while the state is open. ``arm`` and ``knock`` while another one runs the
    state, the rest on the thread that runs it, or while none does.
    """

    __slots__ = ("_coroutines", "_hook", "_library", "_main", "_mask")

    def __init__(self, library: HookLibrary, main: int, hook: int) -> None:
        self._library = library
        self._main = main
        self._hook = hook
        self._mask = 0  # what is set
        self._coroutines: list[int] = []

    def arm(self) -> None:
        """Have the hook called at each instruction from now on."""
        self._set(_MASK_COUNT)

    def knock(self) -> None:
        """Have the hook called at each line from now on."""
        self._set(_MASK_LINE)

    def disarm(self) -> None:
        """Leave the state alone."""
        self._set(0)

    def _set(self, mask: int) -> None:
        self._mask = mask
        self._library.set(self._main, self._hook, mask)  # first: coroutines with a count hook look at this one
        for coroutine in self._coroutines:
            self._library.set(coroutine, self._hook, mask)

    def follow(self, coroutine: int) -> None:
        """Take a coroutine's count hook off, and set its hook like that of the main thread until ``let_go``."""
        self._coroutines.append(coroutine)
        self._library.set(coroutine, self._hook, self._mask)

    def let_go(self) -> None:
        """Give the coroutines their count hooks back, and never touch them again."""
        for coroutine in self._coroutines:
            self._library.set(coroutine, self._hook, _MASK_COUNT, COUNT)
        self._coroutines.clear()


class Watched(Protocol):
    """Something with a deadline."""

    def overdue(self, at: float, now: float) -> float | None:
        """Act on a deadline that has passed; return when to look again (monotonic seconds), None for never.

        ``at`` is when the look was asked for.
        """


class Watchdog:
    """One thread that looks at whatever is due; it starts with the first deadline and ends when idle.

    Thread safety: ``watch`` from any thread.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.Lock())
        self._heap: list[tuple[float, int, Watched]] = []
        self._order = itertools.count()
        self._thread: threading.Thread | None = None

    def watch(self, target: Watched, at: float) -> None:
        """Call ``target.overdue`` at the monotonic time ``at``."""
        with self._condition:
            first = not self._heap or at < self._heap[0][0]
            heapq.heappush(self._heap, (at, next(self._order), target))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="wippy-queue-lua-watchdog", daemon=True)
                self._thread.start()
            elif first:
                self._condition.notify()

    def _run(self) -> None:
        while (due := self._next()) is not None:
            at, target = due
            try:
                again = target.overdue(at, time.monotonic())
                if again is not None:
                    self.watch(target, again)
            except Exception:
                _logger.exception("the watchdog could not end a Lua handler")
            del due, target  # a runtime must not live on in this frame while the thread waits

    def _next(self) -> tuple[float, Watched] | None:
        """Wait for the next one that is due, and return when it was asked for, too.

        None: nothing was asked for, for a while, and the thread is to end.
        """
        with self._condition:
            while True:
                if not self._heap:
                    if not self._condition.wait(_IDLE) and not self._heap:
                        self._thread = None
                        return None
                    continue
                wait = self._heap[0][0] - time.monotonic()
                if wait <= 0:
                    at, _, target = heapq.heappop(self._heap)
                    return at, target
                self._condition.wait(min(wait, threading.TIMEOUT_MAX))


class Deadline:
    """The time limit of the calls of one runtime, and the switch that ends the one that runs.

    Thread safety: ``start`` and ``stop`` on the thread that runs the calls, everything else from any thread.
    """

    def __init__(self, watchdog: Watchdog, on_late: Callable[[], None]) -> None:
        self._watchdog = watchdog
        self._on_late = on_late  # called on the watchdog's thread when a batch has become slow
        self._hook: AsyncHook | None = None  # None: a count hook, or nothing, asks `is_over` now and then
        self._lock = threading.Lock()
        self._watched_at = math.inf  # when the watchdog looks here next; what it has in mind for later is void
        self._retry = _FIRST_RETRY
        self._running = False
        self._slow_at = math.inf  # monotonic; when the batch that runs is to be parted
        self._knocked = False  # the hook is set to part a batch
        self._timeout: float | None = None  # of the call that runs
        self.at = math.inf  # monotonic seconds
        self.expired = False
        self.killed = False

    def attach(self, hook: AsyncHook) -> None:
        """Take the hook of the runtime's state, before the first call."""
        self._hook = hook

    def start(self, timeout: float | None, watched: bool = False) -> bool:
        """A call begins, which may take ``timeout`` seconds; False: it must not, for the runtime was killed.

        When it is watched it is a batch, which is parted when it becomes slow. Each message of it may take that long:
        the clock starts with the first one, and anew when the batch is parted. A message of it begins at most 10 ms
        before that.
        """
        self._running = True  # before `killed` is read: `kill` writes and reads them in the other order
        if self.killed:
            return False
        if timeout is not None or watched:
            now = time.monotonic()
            if timeout is not None:
                self._timeout, self.at = timeout, now + timeout
            if watched:
                self._slow_at = (now + _SLOW) // _GRID * _GRID + _GRID
            due = self._due(now)
            if due < self._watched_at:
                self._watched_at = due
                self._watchdog.watch(self, due)
        return True

    def _due(self, now: float) -> float:
        """Return when there is something to do here; a time limit is none of it where there is no hook to arm."""
        due = self._slow_at if self._hook is None else min(self.at, self._slow_at)
        return due if due == math.inf else min(due, now + _FAR)

    def stop(self) -> None:
        """The call has ended."""
        self._running = False
        if self.at != math.inf or self._slow_at != math.inf or self._knocked:
            with self._lock:  # a deadline that is being acted on is this call's, never the next one's
                self.at = self._slow_at = math.inf
                self._timeout = None
                if self._knocked:  # too late for this call, and not meant for the next one
                    self._quiet()

    def kill(self) -> None:
        """End the call that runs."""
        with self._lock:
            self.killed = True
            if self._hook is None or not self._running:
                return
            self._hook.arm()
            self._watched_at = at = time.monotonic() + _FIRST_RETRY
        self._watchdog.watch(self, at)

    def restart(self) -> None:
        """The batch is parted: the message that runs has its own time."""
        with self._lock:
            self._slow_at = math.inf
            if self._timeout is not None and not self.expired:
                self.at = time.monotonic() + self._timeout  # later than before, so the watchdog will look again

    def relax(self) -> None:
        """The hook was called, and not to kill: it is not needed any more."""
        with self._lock:
            self._slow_at = math.inf
            self._quiet()

    def _quiet(self) -> None:
        """Caller holds the lock."""
        self._knocked = False
        if self._hook is not None and not self.killed and not self.expired:
            self._hook.disarm()

    def follow(self, coroutine: int | None) -> bool:
        """Watch over a coroutine too, by its address; None: over none any more. Say whether the call must end."""
        with self._lock:
            if self._hook is not None:
                if coroutine is None:
                    self._hook.let_go()
                else:
                    self._hook.follow(coroutine)
        return self.is_over()

    def detach(self) -> None:
        """The Lua state is about to be closed: never touch it again."""
        with self._lock:
            self._hook = None

    def is_over(self) -> bool:
        """Say whether the call must end."""
        if self.killed or self.expired:
            return True
        if self.at != math.inf and time.monotonic() >= self.at:
            self.expired = True
            return True
        return False

    def overdue(self, at: float, now: float) -> float | None:
        with self._lock:
            if at != self._watched_at:
                return None  # it looks again, or has looked, at another time
            self._watched_at = math.inf  # before `at` is read: `start` writes and reads them in the other order
            if not self._running:
                return None
            if self._hook is not None and (self.killed or now >= self.at):
                self.expired = not self.killed
                self._hook.arm()
                self._retry = min(self._retry * 2, _LAST_RETRY)
                self._watched_at = now + self._retry
                return self._watched_at
            late = now >= self._slow_at
            if late:
                self._knocked = True  # before `slow_at` is written: `stop` reads them in the other order
                self._slow_at = math.inf
                if self._hook is not None:
                    self._hook.knock()
            self._watched_at = again = self._due(now)
        if late:
            self._on_late()
        return None if again == math.inf else again
