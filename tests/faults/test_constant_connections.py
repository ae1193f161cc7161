"""A hundred queues and a thousand workers on one driver: the same few connections, and no work while nothing comes."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.moto_sqs import MotoSqs
from tests.redis_servers import redis_server
from tests.support import DEADLINE, eventually
from wippy_queue import Engine

QUEUES = 100
WORKERS = 10  # of each queue
STOP = 8.0  # seconds; far less but for SQS, where long polls may still bring something
IDLE = 1.0  # seconds for which nothing happens
# Connections at most. SQS answers a long poll on a connection of its own, and the pool of pollers bounds them.
MOST = {"amqp": 2, "redis": 4, "sqs": 20}


@pytest.fixture(params=MOST)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The name of a driver, its entry, and the url of its server."""
    if request.param == "amqp":
        url = request.getfixturevalue("amqp_url")
        yield "amqp", {"kind": "queue.driver.amqp", "url": url, "default_queue_expiry": "5m"}, url
    elif request.param == "redis":
        with redis_server(tmp_path) as server:
            yield "redis", {"kind": "queue.driver.redis", "url": server.url}, server.url
    else:
        moto = MotoSqs()
        yield "sqs", {"kind": "queue.driver.sqs", "config": "aws", "endpoint": moto.url, "wait_time": "10s"}, moto.url
        moto.stop()


class Crowd:
    """An application of many queues; each of its workers can be made to hold a message."""

    def __init__(self, driver: dict[str, Any]) -> None:
        run = uuid.uuid4().hex[:12]
        self.handled: set[str] = set()
        entries: list[dict[str, Any]] = [
            {
                "name": "aws",
                "kind": "config.aws",
                "region": "eu-west-1",
                "access_key_id": "testing",
                "secret_access_key": "testing",
            },
            {**driver, "name": "driver"},
        ]
        for number in range(QUEUES):
            queue = f"q{number}"
            entries += [
                {"name": queue, "kind": "queue.queue", "driver": "driver", "queue_name": f"{run}-{queue}"},
                {
                    "name": f"w{number}",
                    "kind": "queue.consumer",
                    "queue": queue,
                    "func": "handler",
                    "concurrency": WORKERS,
                    "lifecycle": {"auto_start": True, "start_timeout": "60s"},
                },
            ]
        if driver["kind"] != "queue.driver.sqs":
            del entries[0]
        self.engine = Engine.from_entries(entries)
        self.engine.function("app:handler")(self.handled.add)

    def work(self) -> None:
        """Have every queue deliver; from several threads, as publishers are."""
        self.handled.clear()

        def publish(first: int) -> None:
            for number in range(first, QUEUES, 4):
                self.engine.publish(f"app:q{number}", f"m{number}", timeout=DEADLINE)

        threads = [threading.Thread(target=publish, args=(first,), daemon=True) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        eventually(lambda: len(self.handled) == QUEUES, "each queue has delivered")


def test_many_queues_and_workers_share_a_few_connections_and_idle_at_no_cost(
    backend: tuple[str, dict[str, Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, driver, url = backend
    before = set(threading.enumerate())
    crowd = Crowd(driver)
    crowd.engine.start()
    try:
        crowd.work()
        port = urlsplit(url).port or 5672
        assert 1 <= connections(port) <= MOST[name]
        ours = [thread for thread in set(threading.enumerate()) - before if "process_request" not in thread.name]
        assert len(ours) >= QUEUES * WORKERS, "every worker is there"
        with monkeypatch.context() as patch:
            patch.setattr("tests.moto_sqs.SECOND", 1.0)  # each long poll costs something
            used = processor_time(ours)
            threading.Event().wait(IDLE)
            assert processor_time(ours) - used < 0.1 * IDLE
        assert 1 <= connections(port) <= MOST[name]
    finally:
        since = time.monotonic()
        crowd.engine.stop(timeout=DEADLINE)
        took = time.monotonic() - since
    assert took < STOP
    eventually(lambda: connections(port) == 0, "nothing stays open")


def connections(port: int) -> int:
    """Return how many TCP connections this process has open to a port of this machine."""
    inodes = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            inodes.add(str(entry.readlink()))
        except OSError:
            pass  # closed meanwhile
    count = 0
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            words = line.split()
            remote, state, inode = words[2], words[3], words[9]
            count += remote.endswith(f":{port:04X}") and state == "01" and f"socket:[{inode}]" in inodes
    return count


def processor_time(threads: list[threading.Thread]) -> float:
    """Return the seconds of processor time that these threads have used."""
    used = 0
    for thread in threads:
        try:
            used += int(Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[0])
        except OSError:
            pass  # it has ended
    return used / 1e9
