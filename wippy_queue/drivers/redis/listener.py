"""The listener: one thread a driver that hears, on a connection of its own, that some queue has messages."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from redis import exceptions

from wippy_queue.drivers.redis import trouble
from wippy_queue.drivers.redis.connecting import Servers

_log = logging.getLogger(__name__)

_LOOK: Final = 1.0  # seconds after which it looks whether it is still connected to the right server


class Listener:
    """Subscribed to the inbox of this driver. What it misses, consumers find at their next receive.

    Thread safety: every method may be called from any thread.
    """

    def __init__(
        self,
        servers: Servers,
        inbox: bytes,
        *,
        delay: float,
        max_delay: float,
        on_wake: Callable[[bytes], None],
        on_connected: Callable[[], None],
        name: str,
    ) -> None:
        self._servers = servers
        self._inbox = inbox
        self._delay = delay
        self._max_delay = max_delay
        self._on_wake = on_wake  # with the base of a queue
        self._on_connected = on_connected  # something may have been missed before
        self._stopping = threading.Event()
        self._again = False  # the connection is not to be trusted any more
        self._connection: Any = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def reconnect(self) -> None:
        self._again = True

    def stop(self, deadline: float) -> None:
        """End the thread; it is waited for until ``deadline`` (monotonic seconds)."""
        self._stopping.set()
        connection = self._connection
        if connection is not None:
            connection.disconnect()  # it waits for a message there
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        delay = 0.0
        while not self._stopping.wait(delay):
            self._again = False
            connection: Any = None
            try:
                connection = self._connection = self._servers.connect(self._servers.anywhere())
                connection.connect()
                connection.send_command("SUBSCRIBE", self._inbox, check_health=False)
                connection.read_response(disable_decoding=True)
                delay = 0.0
                self._on_connected()
                self._listen(connection)
            except (exceptions.RedisError, exceptions.RedisClusterException, OSError, ValueError) as error:
                delay = min(self._max_delay, max(self._delay, delay * 2))
                _log.debug("the listener lost its connection", extra={"fields": {"error": trouble.text_of(error)}})
            except Exception:
                delay = self._max_delay
                _log.exception("the listener of a redis driver failed, and goes on")
            finally:
                if connection is not None:
                    connection.disconnect()

    def _listen(self, connection: Any) -> None:
        while not self._again and not self._stopping.is_set():
            try:
                message = connection.read_response(disable_decoding=True, timeout=_LOOK, disconnect_on_error=False)
            except exceptions.TimeoutError:
                continue
            if message[0] == b"message" and message[2]:
                self._on_wake(message[2])
