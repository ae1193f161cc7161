"""Scripts to the server and answers back, over a few connections that all threads of a driver share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import attrs
from redis import exceptions

from wippy_queue.drivers.redis import scripts, trouble
from wippy_queue.drivers.redis.connecting import Servers
from wippy_queue.drivers.redis.line import Command, Line, Reply
from wippy_queue.drivers.redis.options import RedisConfig
from wippy_queue.drivers.redis.trouble import Trouble
from wippy_queue.drivers.redis.wire import Argument
from wippy_queue.errors import Timeout, Unavailable, WippyQueueError

_RETRY_PAUSE: Final = 0.05  # seconds before the same is tried on a connection that is fine: a slot moves, a script runs


@attrs.frozen
class Request:
    """A script, the queue that it is for, and its arguments."""

    script: str
    base: bytes  # "<prefix>{<queue>}:"
    arguments: Sequence[Argument] = ()


class Transport:
    """Connections of one purpose, one a server: publishing must not hold up settling.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, servers: Servers, config: RedisConfig, on_trouble: Callable[[], None]) -> None:
        self._servers = servers
        self._config = config
        self._on_trouble = on_trouble
        self._scripts = scripts.load(cluster=bool(config.cluster))
        self._lock = threading.Lock()
        self._lines: dict[bytes, Line] = {}
        self._closed = threading.Event()

    @property
    def troubled(self) -> bool:
        """Whether a server did not answer when it was last asked."""
        return any(line.troubled for line in list(self._lines.values()))

    def attempt(self, request: Request, deadline: float) -> Reply:
        """Send a script once and return its answer.

        Raises:
            Trouble: it may pass.
            WippyQueueError: it will not.
        """
        (reply,) = self.attempt_many([request], deadline)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def attempt_many(self, requests: Sequence[Request], deadline: float) -> list[Reply]:
        """Send scripts once and return their answers, errors among them: Trouble or a WippyQueueError."""
        replies: list[Reply] = [None] * len(requests)
        by_line: dict[Line, list[int]] = {}
        for index, request in enumerate(requests):
            try:
                by_line.setdefault(self._line(request.base), []).append(index)
            except WippyQueueError as error:
                replies[index] = error
            except (exceptions.RedisError, exceptions.RedisClusterException, OSError) as error:
                replies[index] = trouble.of_connection(error, unknown=False)
        for line, indices in by_line.items():
            answers = self._run(line, [requests[index] for index in indices], deadline)
            for index, answer in zip(indices, answers, strict=True):
                replies[index] = answer
        return replies

    def _run(self, line: Line, requests: Sequence[Request], deadline: float) -> list[Reply]:
        try:
            replies = line.run([self._by_sha(request) for request in requests], deadline)
            unknown = [i for i, reply in enumerate(replies) if isinstance(reply, exceptions.NoScriptError)]
            if unknown:  # a server that has started anew
                answers = line.run([self._by_source(requests[index]) for index in unknown], deadline)
                for index, answer in zip(unknown, answers, strict=True):
                    replies[index] = answer
        except (Trouble, WippyQueueError) as error:
            if isinstance(error, Trouble):
                self._look_again()
            return [error] * len(requests)
        for index, reply in enumerate(replies):
            if isinstance(reply, exceptions.RedisError):
                replies[index] = trouble.of_reply(reply)
                if isinstance(replies[index], Trouble):
                    self._look_again()
        return replies

    def _look_again(self) -> None:
        try:
            self._servers.refresh()
        except (exceptions.RedisError, exceptions.RedisClusterException, OSError):
            pass  # the next call tells

    def _by_sha(self, request: Request) -> Command:
        return ("EVALSHA", self._scripts[request.script].sha, 1, request.base, *request.arguments)

    def _by_source(self, request: Request) -> Command:
        return ("EVAL", self._scripts[request.script].source, 1, request.base, *request.arguments)

    def persist(self, request: Request, deadline: float, what: str) -> Reply:
        """Send a script that may be sent again until there is an answer.

        Args:
            request: one that does no harm when it is done twice.
            deadline: monotonic seconds.
            what: how errors call it, "publish to app:tasks".

        Raises:
            Timeout: no answer came, and the server may have done it.
            Unavailable: the server could not be reached, or has no memory left.
            WippyQueueError: it refuses.
        """
        unknown = False
        while True:
            try:
                return self.attempt(request, deadline)
            except Trouble as error:
                unknown = unknown or error.unknown
                if time.monotonic() + _RETRY_PAUSE >= deadline:
                    if unknown:
                        raise Timeout(f"{what}: no answer from Redis in time, it may have been done: {error}") from None
                    raise Unavailable(f"{what}: Redis cannot be reached: {error}") from None
                if not self.troubled:
                    self._closed.wait(_RETRY_PAUSE)
                self.check_open()

    def command(self, *command: Argument, deadline: float) -> Reply:
        """Send a plain command once, to any server. Raises Trouble or a WippyQueueError."""
        try:
            line = self._line_at(self._servers.anywhere())
        except (exceptions.RedisError, exceptions.RedisClusterException, OSError) as error:
            raise trouble.of_connection(error, unknown=False) from error
        (reply,) = line.run([command], deadline)
        if isinstance(reply, Exception):
            raise trouble.of_reply(reply)
        return reply

    def check_open(self) -> None:
        if self._closed.is_set():
            raise Unavailable("the driver was stopped")

    def _line(self, base: bytes) -> Line:
        return self._line_at(self._servers.place(base))

    def _line_at(self, place: bytes) -> Line:
        line = self._lines.get(place)
        if line is None:
            with self._lock:
                self.check_open()
                line = self._lines.get(place)
                if line is None:
                    line = Line(
                        lambda: self._servers.connect(place),
                        patience=self._config.connection_timeout,
                        delay=self._config.reconnect_delay,
                        max_delay=self._config.reconnect_max_delay,
                        on_trouble=self._on_trouble,
                    )
                    self._lines[place] = line
        return line

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            lines = list(self._lines.values())
        for line in lines:
            line.close()
