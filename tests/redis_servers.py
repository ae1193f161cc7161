"""Redis servers of our own, on loopback ports, for tests that restart, fill or kill them."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support import DEADLINE, eventually

DURABLE = ("appendonly yes", "appendfsync always")  # what it has confirmed is on its disk
_REPLICATED = (*DURABLE, "repl-diskless-sync-delay 0")  # and a replica is served at once


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
        self._run()

    def _run(self, *options: str) -> None:
        self._process = subprocess.Popen([*self._command, *options], stdout=subprocess.DEVNULL)
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

    def info(self, section: str) -> dict[str, Any]:
        with self.client() as client:
            return dict(client.info(section))

    def kill_clients(self) -> None:
        """End every connection but our own."""
        self.ask("CLIENT", "KILL", "SKIPME", "yes")

    def message_ids(self) -> set[str]:
        """Return the ids of all messages that it holds, whatever their queue and state."""
        with self.client(decode_responses=True) as client:
            if client.info("cluster")["cluster_enabled"]:
                client.readonly()  # a replica answers too
            keys: list[str] = list(client.keys("*:body"))
            return {message_id for key in keys for message_id in client.hkeys(key)}

    def message_ids_on_disk(self) -> set[str]:
        """Return the ids of the messages that a stopped server with `DURABLE` held at its end."""
        port, self.port = self.port, free_port()  # where no client looks
        try:
            self._run("--port", str(self.port), "--cluster-enabled", "no")
            return self.message_ids()
        finally:
            self.stop()
            self.port = port

    def stop(self) -> None:
        """End the process at once, as a crash of the machine's power would not: what was written is with the kernel."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

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
    with redis_server(folder, *DURABLE) as server:
        yield server


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[list[RedisServer]]:
    """Three nodes that share the slots, and a replica of the first, which takes its place within ten seconds."""
    options = (*_REPLICATED, "cluster-enabled yes", "cluster-node-timeout 2500", "cluster-allow-reads-when-down yes")
    with contextlib.ExitStack() as stack:
        nodes = []
        for _ in range(4):
            port = next(port for port in iter(free_port, None) if port < 55000)  # the bus is 10000 above
            nodes.append(stack.enter_context(redis_server(folder, *options, port=port)))
        for number, node in enumerate(nodes[:3]):
            node.ask("CLUSTER", "ADDSLOTSRANGE", number * 5461, 16383 if number == 2 else number * 5461 + 5460)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port)
        for node in nodes:
            eventually(partial(_says, node, "cluster_known_nodes:4"), "the nodes know each other")
        nodes[3].ask("CLUSTER", "REPLICATE", nodes[0].ask("CLUSTER", "MYID"))
        for node in nodes:
            eventually(partial(_says, node, "cluster_state:ok"), "the nodes of the cluster agree")
        eventually(partial(follows, nodes[3]), "the replica follows")
        yield nodes


def _says(node: RedisServer, line: str) -> bool:
    return line in node.ask("CLUSTER", "INFO")


def follows(replica: RedisServer) -> bool:
    """Return whether it is a replica that hears its master."""
    return replica.info("replication").get("master_link_status") == "up"


@contextlib.contextmanager
def sentinel_group(folder: Path) -> Iterator[tuple[RedisServer, RedisServer, RedisServer]]:
    """A master, its replica, and one sentinel that takes 2.5 seconds to see a death: a busy machine is none."""
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(redis_server(folder, *_REPLICATED))
        replica = stack.enter_context(redis_server(folder, f"replicaof 127.0.0.1 {master.port}", *_REPLICATED))
        watch = (
            f"sentinel monitor main 127.0.0.1 {master.port} 1",
            "sentinel down-after-milliseconds main 2500",
            "sentinel failover-timeout main 3000",
        )
        sentinel = stack.enter_context(redis_server(folder, *watch, sentinel=True))
        eventually(lambda: len(sentinel.ask("SENTINEL", "REPLICAS", "main")) == 1, "the sentinel knows the replica")
        eventually(partial(follows, replica), "the replica follows")
        yield master, replica, sentinel


def kill_master(master: RedisServer, replica: RedisServer, meanwhile: Callable[[], None]) -> tuple[set[str], set[str]]:
    """Kill a master with `DURABLE`.

    Args:
        master: which dies.
        replica: which is to take its place.
        meanwhile: what happens on the master alone, for the replica hears nothing more of it. It should not take long.

    Returns:
        The ids of the messages that are lost with the master, and of those that the replica has although they were
        done with on the master.
    """
    replica.freeze()
    master.ask("CLIENT", "KILL", "TYPE", "replica")  # else what is on its way would get there
    meanwhile()
    master.stop()
    replica.thaw()
    eventually(lambda: not follows(replica), "the replica has taken it all")
    there = replica.message_ids()
    assert replica.info("replication")["role"] == "slave", "nobody has changed anything there yet"
    held = master.message_ids_on_disk()
    return held - there, there - held
