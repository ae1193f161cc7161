"""How attempts stay exact: before a handler starts, its mark is with the kernel, on its way to the server.

A mark must survive the death of the process a moment later, so it cannot wait for the flusher; and a worker must not
wait for an answer. So there is a connection that the server does not answer on. What has been written to a socket
arrives although the process is killed.
"""

from __future__ import annotations

import threading
from typing import Any, Final

from redis import exceptions

from wippy_queue.drivers.redis.connecting import Servers

_SEND: Final = 0.05  # seconds that a worker may wait for the kernel to take a mark; it has room for thousands


class MarkLine:
    """A connection to each server that marks go to.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._lock = threading.Lock()
        self._connections: dict[bytes, Any] = {}
        self._closed = False

    def send(self, base: bytes, data: bytes) -> bool:
        """Write a command; False when it could not be: then the flusher has to bring the mark."""
        try:
            place = self._servers.place(base)
            with self._lock:
                connection = self._connections.get(place)
                if connection is None:
                    return False
                try:
                    connection.send_packed_command([data], check_health=False)
                except (exceptions.RedisError, OSError):
                    self._connections.pop(place).disconnect()
                    return False
        except (exceptions.RedisError, exceptions.RedisClusterException, OSError):
            return False
        return True

    def open(self, base: bytes) -> None:
        """Connect to the server of that key, where that was not done yet. The keeper calls it."""
        place = self._servers.place(base)
        if place in self._connections:
            return
        connection = self._servers.connect(place)
        connection.connect()
        connection.send_command("CLIENT", "REPLY", "OFF", check_health=False)
        connection._get_socket().settimeout(_SEND)  # the library has no public way to say it after connecting
        with self._lock:
            if self._closed or place in self._connections:
                connection.disconnect()
            else:
                self._connections[place] = connection

    def reset(self) -> None:
        """Give up the connections: something is wrong, and they are too quiet to tell."""
        with self._lock:
            connections, self._connections = self._connections, {}
        for connection in connections.values():
            connection.disconnect()

    def close(self) -> None:
        self._closed = True
        self.reset()


def pack(*arguments: bytes) -> bytes:
    """Return a command in the protocol of Redis."""
    parts = [b"*%d\r\n" % len(arguments)]
    parts += [b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments]
    return b"".join(parts)
