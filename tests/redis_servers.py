"""Redis servers of our own, on loopback ports, for tests that restart, fill or kill them."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support import DEADLINE, eventually


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """A `redis-server` process with a folder of its own; it can be stopped and started again on the same port."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        sentinel: bool = False,
        port: int | None = None,
        tls: tuple[Path, Path] | None = None,  # certificate and key
    ) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("redis-server is not installed")
        self.port = port or free_port()
        self.folder = folder / str(self.port)
        self.folder.mkdir(parents=True)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.tls_port = 0
        if tls is not None:
            self.tls_port = free_port()
            cert, key = tls
            options += (
                f"tls-port {self.tls_port}",
                f"tls-cert-file {cert}",
                f"tls-key-file {key}",
                f"tls-ca-cert-file {cert}",
                "tls-auth-clients no",
            )
        self._config = self.folder / "redis.conf"
        self._config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\nsave ''\nlogfile redis.log\n"
            + "".join(f"{option}\n" for option in options)
        )
        self._command = [program, str(self._config), *(["--sentinel"] if sentinel else [])]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        eventually(self.answers, f"redis-server answers on port {self.port}")

    def client(self, **options: Any) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=DEADLINE, **options)

    def answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def ask(self, *command: str | int) -> Any:
        with self.client(decode_responses=True) as client:
            return client.execute_command(*command)

    def kill_clients(self) -> None:
        """End every connection but our own."""
        self.ask("CLIENT", "KILL", "SKIPME", "yes")

    def stop(self) -> None:
        """End the process at once, as a crash of the machine's power would not: what was written is with the kernel."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def restart(self) -> None:
        self.stop()
        self.start()

    def forget(self) -> None:
        """Remove what it has stored; it must be stopped."""
        for path in self.folder.iterdir():
            if path != self._config:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def redis_server(folder: Path, *options: str, **more: Any) -> Iterator[RedisServer]:
    server = RedisServer(folder, *options, **more)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def durable_server(folder: Path) -> Iterator[RedisServer]:
    """A server that has on disk what it has confirmed."""
    with redis_server(folder, "appendonly yes", "appendfsync always") as server:
        yield server


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[list[RedisServer]]:
    """Three nodes that share the slots."""
    with contextlib.ExitStack() as stack:
        nodes = []
        for _ in range(3):
            port = next(port for port in iter(free_port, None) if port < 55000)  # the bus is 10000 above
            nodes.append(stack.enter_context(redis_server(folder, "cluster-enabled yes", port=port)))
        for number, node in enumerate(nodes):
            node.ask("CLUSTER", "ADDSLOTSRANGE", number * 5461, 16383 if number == 2 else number * 5461 + 5460)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port)

        def agreed(node: RedisServer) -> bool:
            info = node.ask("CLUSTER", "INFO")
            text = info if isinstance(info, str) else "\n".join(f"{key}:{value}" for key, value in info.items())
            return "cluster_state:ok" in text and "cluster_known_nodes:3" in text

        for node in nodes:
            eventually(partial(agreed, node), "the nodes of the cluster agree")
        yield nodes


@contextlib.contextmanager
def sentinel_group(folder: Path) -> Iterator[tuple[RedisServer, RedisServer, RedisServer]]:
    """A master, its replica, and one sentinel that takes half a second to see a death."""
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(redis_server(folder))
        replica = stack.enter_context(
            redis_server(folder, f"replicaof 127.0.0.1 {master.port}", "repl-diskless-sync-delay 0")
        )
        watch = (
            f"sentinel monitor main 127.0.0.1 {master.port} 1",
            "sentinel down-after-milliseconds main 500",
            "sentinel failover-timeout main 3000",
        )
        sentinel = stack.enter_context(redis_server(folder, *watch, sentinel=True))
        eventually(lambda: len(sentinel.ask("SENTINEL", "REPLICAS", "main")) == 1, "the sentinel knows the replica")
        eventually(lambda: "master_link_status:up" in _text(replica), "the replica follows")
        yield master, replica, sentinel


def _text(server: RedisServer) -> str:
    with server.client() as client:
        connection = client.connection_pool.get_connection()
        try:
            connection.send_command("INFO", "replication")
            return str(connection.read_response().decode())
        finally:
            client.connection_pool.release(connection)
