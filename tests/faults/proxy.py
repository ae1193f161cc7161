"""A TCP proxy in this process, to do to a connection what networks do: cut it, swallow everything, be slow."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from typing import Final, Self
from urllib.parse import urlsplit

import attrs

_BLOCK: Final = 65_536  # bytes


_Pair = tuple[socket.socket, socket.socket]  # to the client, to the server


@attrs.define
class _Cut:
    """A reset to come: of a connection whose client sends ``request``, once it has or when ``answer`` comes."""

    request: bytes
    answer: bytes | None
    asked: list[_Pair] = attrs.field(factory=list)
    done: threading.Event = attrs.field(factory=threading.Event)

    def is_due(self, pair: _Pair, data: bytes, *, from_client: bool) -> bool:
        if from_client and self.request in data:
            self.asked.append(pair)
            return self.answer is None
        return not from_client and self.answer is not None and pair in self.asked and self.answer in data


class Proxy:
    """Listens on a free port of this machine and passes everything on.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = (host, port)
        self._tls = tls  # of the side that clients connect to
        self._lock = threading.Lock()
        self._pairs: list[_Pair] = []
        self._cut: _Cut | None = None
        self._passing = threading.Event()
        self._passing.set()
        self._refusing = False
        self._closed = False
        self.latency = 0.0  # seconds that each piece takes, in each direction
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @classmethod
    def to(cls, url: str, default_port: int) -> Proxy:
        parts = urlsplit(url)
        return cls(parts.hostname or "127.0.0.1", parts.port or default_port)

    def url(self, url: str) -> str:
        """Return the url with this proxy in the place of its host and port."""
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{user}{'@' if user else ''}127.0.0.1:{self.port}").geturl()

    # what networks do

    def reset(self) -> None:
        """Cut every connection with a TCP reset."""
        for pair in self._take_pairs():
            for end in pair:
                _reset(end)

    def cut(self, request: bytes, answer: bytes | None = None) -> threading.Event:
        """Reset, once, a connection whose client sends these bytes: the server gets nothing.

        Args:
            request: what the client sends.
            answer: the server gets the request after all, and the client no answer: the reset comes in its place.

        Returns:
            An event, set when it has happened.
        """
        cut = self._cut = _Cut(request, answer)
        return cut.done

    def swallow(self) -> None:
        """A black hole: connections stay open, and nothing comes through any more; new ones get no answer."""
        self._passing.clear()

    def refuse(self) -> None:
        """Cut everything, and let nobody in: the server is away."""
        self._refusing = True
        self.reset()

    def restore(self) -> None:
        """Let new connections through; those that were swallowed stay dead, as after a change of routes."""
        self._refusing = False
        self.latency = 0.0
        if not self._passing.is_set():
            self.reset()
            self._passing.set()

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # a close alone leaves a thread in `accept`
        self._listener.close()
        self._passing.set()
        self.reset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take_pairs(self) -> list[_Pair]:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        return pairs

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self._refusing:
                _reset(client)
            else:
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            server = socket.create_connection(self._target, timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = (client, server)
        with self._lock:
            self._pairs.append(pair)
        if self._closed:  # meanwhile, and nobody looks after them any more
            self.reset()
            return
        for from_client in (True, False):
            threading.Thread(target=self._pass, args=(pair, from_client), daemon=True).start()

    def _pass(self, pair: _Pair, from_client: bool) -> None:
        source, sink = pair if from_client else pair[::-1]
        with contextlib.suppress(OSError):
            while data := source.recv(_BLOCK):
                self._passing.wait()
                if self.latency:
                    time.sleep(self.latency)
                if self._is_cut(pair, data, from_client):
                    return
                sink.sendall(data)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _is_cut(self, pair: _Pair, data: bytes, from_client: bool) -> bool:
        with self._lock:
            cut = self._cut
            if cut is None or not cut.is_due(pair, data, from_client=from_client):
                return False
            self._cut = None
        for end in pair:
            _reset(end)
        cut.done.set()
        return True


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RD)
    with contextlib.suppress(OSError):
        end.close()
