"""A RabbitMQ of a test's own, to stop, starve and restart without disturbing anybody else."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

_BIN: Final = Path("/usr/lib/rabbitmq/bin")  # the scripts themselves: those in the PATH want to be another user
_START: Final = 60.0  # seconds


class RabbitServer:
    """A node with its files in a folder; it listens on a free port of this machine."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port, distribution = _free_port(), _free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{port}/"
        self._port = port
        self._node = f"wippy-queue-test-{port}@localhost"
        (folder / "plugins").write_text("[].")
        (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n")
        self._environment = {
            **os.environ,
            "HOME": str(folder),  # for the cookie of Erlang
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "no-such.conf"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        }
        with (folder / "output").open("w") as output:
            self._process = subprocess.Popen(
                [_BIN / "rabbitmq-server"], env=self._environment, stdout=output, stderr=output, start_new_session=True
            )
        self._wait(folder)

    def _wait(self, folder: Path) -> None:
        deadline = time.monotonic() + _START
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                return
            except OSError:
                ended = self._process.poll() is not None
                assert not ended, (folder / "output").read_text()
                assert time.monotonic() < deadline, "RabbitMQ has not started"
                time.sleep(0.1)

    def ctl(self, *words: str) -> None:
        """Run rabbitmqctl on this node."""
        done = subprocess.run(
            [_BIN / "rabbitmqctl", "-n", self._node, *words],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def close_connections(self) -> None:
        self.ctl("close_all_connections", "--vhost", "/", "a test does this")

    def stop(self) -> None:
        self.ctl("shutdown")
        self._process.wait(60)


def start_server(folder: Path) -> RabbitServer:
    """Return a node that runs; skips where RabbitMQ is not installed."""
    if not (_BIN / "rabbitmq-server").exists():
        pytest.skip(f"there is no RabbitMQ to start in {_BIN}")
    return RabbitServer(folder)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
