"""A connection that many threads share: whoever comes first sends what all have brought meanwhile.

There is no thread of its own: a lone caller pays no hop, and callers that crowd share a round trip.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis import exceptions

from wippy_queue.drivers.redis import trouble
from wippy_queue.drivers.redis.trouble import Trouble
from wippy_queue.drivers.redis.wire import Argument
from wippy_queue.errors import Unavailable

Command = Sequence[Argument]
Reply = Any  # what the server answers, or the error that it answers with

_LEAST_PATIENCE: Final = 1.0  # seconds that an answer is given, also when the caller has less: giving up costs all
_BATCH: Final = 256  # calls in one round trip
_BYTES: Final = 4 * 1024 * 1024  # of their arguments: what is sent together has one time limit


class _Call:
    __slots__ = ("commands", "done", "error", "lead", "replies", "size", "wake")

    def __init__(self, commands: Sequence[Command]) -> None:
        self.commands = commands
        self.size = sum(len(part) for command in commands for part in command if type(part) is bytes)
        self.replies: list[Reply] | None = None
        self.error: Exception | None = None
        self.done = False
        self.lead = False  # its thread is to send now
        self.wake = threading.Lock()  # held until there is something to know: an Event costs more
        self.wake.acquire()


class Line:
    """One connection to one server.

    Thread safety: every method may be called from any thread. The leader alone touches the connection, but for `drop`.
    """

    def __init__(
        self,
        make_connection: Callable[[], Any],
        *,
        patience: float,
        delay: float,
        max_delay: float,
        on_trouble: Callable[[], None],
    ) -> None:
        self._make_connection = make_connection
        self._patience = patience
        self._delay = delay
        self._max_delay = max_delay
        self._on_trouble = on_trouble
        self._lock = threading.Lock()  # guards what follows, up to the connection
        self._waiting: list[_Call] = []
        self._busy = False  # somebody leads
        self._failures = 0  # in a row
        self._retry_at = 0.0  # monotonic; no try to connect before
        self._last_error: Exception | None = None
        self._connection: Any = None
        self._closed = threading.Event()

    @property
    def troubled(self) -> bool:
        return self._failures > 0

    def run(self, commands: Sequence[Command], deadline: float) -> list[Reply]:
        """Return the answers to the commands, which may be errors.

        Args:
            commands: what to send, in order.
            deadline: monotonic seconds; an answer that is under way is given a little longer.

        Raises:
            Trouble: the connection failed.
            Unavailable: the line was closed.
            PermissionDenied: the server does not let us in.
        """
        self._wait_for_backoff(deadline)
        call = _Call(commands)
        with self._lock:
            self._waiting.append(call)
            lead = not self._busy
            self._busy = True
        if not lead:
            self._follow(call, deadline)
        if lead or call.lead:
            self._lead(call, deadline)
        if call.replies is None:
            raise call.error or Unavailable("the connection to Redis was closed")
        return call.replies

    def _wait_for_backoff(self, deadline: float) -> None:
        while not self._closed.is_set():
            now = time.monotonic()
            wait = min(self._retry_at, max(deadline, now)) - now
            if wait <= 0:
                break
            self._closed.wait(wait)
        if self._closed.is_set():
            raise Unavailable("the connection to Redis was closed")
        if self._last_error is not None and time.monotonic() < self._retry_at:
            raise Trouble(trouble.text_of(self._last_error), unknown=False)

    def _follow(self, call: _Call, deadline: float) -> None:
        patience = max(_LEAST_PATIENCE, deadline - time.monotonic())
        try:
            if call.wake.acquire(timeout=patience):
                return
        except BaseException:  # Ctrl-C in the main thread: others must not wait for it to lead
            with self._lock:
                if call in self._waiting:
                    self._waiting.remove(call)
                if call.lead:
                    self._hand_on()
            raise
        with self._lock:
            if call.lead or call.done:
                return
            unknown = call not in self._waiting
            if not unknown:
                self._waiting.remove(call)
            call.error = Trouble("Redis does not answer in time", unknown=unknown)

    def _lead(self, call: _Call, deadline: float) -> None:
        """Send everything that waits, ``call`` at its head, and let somebody else lead then."""
        with self._lock:
            count = self._share()
            batch, self._waiting = self._waiting[:count], self._waiting[count:]
        error: Exception | None = None
        replies: list[Reply] = []
        try:
            replies = self._exchange([command for one in batch for command in one.commands], deadline)
        except Exception as failed:
            error = failed
        except BaseException:
            error = Trouble("interrupted", unknown=True)
            raise
        finally:
            with self._lock:
                first = 0
                for one in batch:
                    if error is None:
                        one.replies = replies[first : first + len(one.commands)]
                        first += len(one.commands)
                    else:
                        one.error = one.error or error
                    one.done = True
                self._hand_on()
            for one in batch:
                if one is not call:
                    one.wake.release()

    def _share(self) -> int:
        """Return how many calls go together. Caller holds the lock."""
        size = 0
        for count, call in enumerate(self._waiting[:_BATCH]):
            size += call.size
            if count and size > _BYTES:
                return count
        return _BATCH

    def _hand_on(self) -> None:
        """Let the next one lead. Caller holds the lock."""
        self._busy = bool(self._waiting)
        if self._busy:
            self._waiting[0].lead = True
            self._waiting[0].wake.release()

    def _exchange(self, commands: Sequence[Command], deadline: float) -> list[Reply]:
        now = time.monotonic()
        ends = now + min(self._patience, max(_LEAST_PATIENCE, deadline - now))
        sent = False
        connection = self._connection
        try:
            if connection is None:
                connection = self._make_connection()
                self._connection = connection
            connection.socket_connect_timeout = connection.socket_timeout = ends - now
            connection.connect()  # does nothing when it is connected
            if self._closed.is_set():
                raise exceptions.ConnectionError("closed")
            packed = connection.pack_commands(commands)
            sent = True
            connection.send_packed_command(packed, check_health=False)
            replies = [self._read(connection, ends) for _ in commands]
        except (exceptions.RedisError, OSError, ValueError) as error:  # ValueError: closed from another thread
            self._fail(error)
            raise trouble.of_connection(error, unknown=sent) from error
        except BaseException:
            self._fail(None)
            raise
        if self._failures:
            with self._lock:
                self._failures, self._retry_at, self._last_error = 0, 0.0, None
        for reply in replies:
            if isinstance(reply, Exception) and trouble.wants_new_connection(reply):
                self._fail(reply)
                break
        return replies

    @staticmethod
    def _read(connection: Any, ends: float) -> Reply:
        left = ends - time.monotonic()
        if left <= 0:
            raise exceptions.TimeoutError("Redis does not answer in time")
        try:
            return connection.read_response(disable_decoding=True, timeout=left, disconnect_on_error=True)
        except exceptions.ResponseError as error:
            return error

    def _fail(self, error: Exception | None) -> None:
        """Give the connection up; the first try to get another comes at once, the next ones later and later."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
        with self._lock:
            self._last_error = error
            self._failures += 1
            if self._failures > 1:
                delay = min(self._max_delay, self._delay * 2 ** min(self._failures - 2, 30))
                self._retry_at = time.monotonic() + delay * random.uniform(0.7, 1.0)
        self._on_trouble()

    def drop(self) -> None:
        """End the connection; the next call gets another."""
        connection = self._connection
        if connection is not None:
            connection.disconnect()

    def close(self) -> None:
        """Let everybody go who waits, and take no more."""
        self._closed.set()
        self.drop()
