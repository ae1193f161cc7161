"""A RabbitMQ of a test's own, to stop, starve, kill and restart without disturbing anybody else."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

_BIN: Final = Path("/usr/lib/rabbitmq/bin")  # the scripts themselves: those in the PATH want to be another user
_START: Final = 60.0  # seconds
_NO_SUCH_TAG: Final = 0xFFFFFF


class RabbitServer:
    """A node with its files in a folder; it listens on a free port of this machine."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port, distribution = _free_port(), _free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{port}/"
        self._folder = folder
        self._port = port
        self._node = f"wippy-queue-test-{port}@localhost"
        (folder / "plugins").write_text("[].")
        (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n")
        self._environment = {
            **os.environ,
            "HOME": str(folder),  # for the cookie of Erlang
            "RABBITMQ_ALLOW_INPUT": "1",  # no shell between the node and us; it ends with its standard input
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "no-such.conf"),
            # RabbitMQ's own have idle threads of Erlang sleep at once: a start takes twice as long with them.
            "RABBITMQ_SERVER_ERL_ARGS": "+sbwt very_short",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        }
        self.start()

    def start(self) -> None:
        with (self._folder / "output").open("w") as output:
            self._process = subprocess.Popen(
                [_BIN / "rabbitmq-server"],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                return
            except OSError:
                ended = self._process.poll() is not None
                assert not ended, (self._folder / "output").read_text()
                assert time.monotonic() < deadline, "RabbitMQ has not started"
                time.sleep(0.02)

    def ctl(self, *words: str) -> None:
        """Run rabbitmqctl on this node; what it is told may be done twice, for it has been seen to hang."""
        try:
            done = self._ctl(*words)
        except subprocess.TimeoutExpired:
            done = self._ctl(*words)
        assert done.returncode == 0, done.stderr

    def _ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [_BIN / "rabbitmqctl", "-n", self._node, *words],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )

    def close_connections(self) -> None:
        self.ctl("close_all_connections", "--vhost", "/", "a test does this")

    def close_channels(self) -> None:
        """Have every channel do what a client must not, so that the broker closes it; the connections stay."""
        ack = f"{{'basic.ack', {_NO_SUCH_TAG}, false}}"
        self.ctl("eval", f"[rabbit_channel:do(Channel, {ack}) || Channel <- rabbit_channel:list()].")

    def set(self, **settings: int) -> None:
        """Change settings of the node; some hold for new channels only."""
        calls = [f"application:set_env(rabbit, {name}, {value})" for name, value in settings.items()]
        self.ctl("eval", f"{', '.join(calls)}.")

    def kill(self) -> None:
        """kill -9: it does not say goodbye, and what it has written is with the kernel."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def forget(self) -> None:
        """Remove what it has stored; it must not run."""
        shutil.rmtree(self._folder / "data")


def start_server(folder: Path) -> RabbitServer:
    """Return a node that runs; skips where RabbitMQ is not installed."""
    if not (_BIN / "rabbitmq-server").exists():
        pytest.skip(f"there is no RabbitMQ to start in {_BIN}")
    return RabbitServer(folder)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
