"""An application under load, whatever its driver: publishers, a consumer, and what each of them saw."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any

from tests.support import DEADLINE, eventually
from wippy_queue import Engine, Timeout, Unavailable, WippyQueueError, current_message

SLACK = 3.0  # seconds by which a deadline may be missed on a slow machine
PATIENCE = 1.0  # seconds that a publisher of the load gives one call, where the test says nothing else
RESUMES = 10.0  # seconds after a server's return in which a message must have been published and handled

REDIS = {"kind": "queue.driver.redis", "lease": "10s", "connection_timeout": "1s", "reconnect_max_delay": "500ms"}
AMQP = {
    "kind": "queue.driver.amqp",
    "connection_timeout": "1s",
    "reconnect_delay": "100ms",
    "reconnect_max_delay": "500ms",
    "heartbeat": "1s",
    "default_queue_expiry": "5m",
}
SQS = {"kind": "queue.driver.sqs", "config": "aws", "wait_time": "1s", "visibility_timeout": "2s"}


def driver_entry(name: str, url: str) -> dict[str, Any]:
    """Return the entry of a driver of that name that finds its server at the url."""
    if name == "sqs":
        return {**SQS, "endpoint": url}
    return {**{"amqp": AMQP, "redis": REDIS}[name], "url": url}


class Application:
    """A queue with a consumer of four workers, and publishers for whom refusals are no reason to stop."""

    def __init__(self, driver: dict[str, Any], **queue: Any) -> None:
        aws = {"region": "eu-west-1", "access_key_id": "testing", "secret_access_key": "testing-secret"}
        entries: list[dict[str, Any]] = [
            {**driver, "name": "driver"},
            {
                "name": "tasks",
                "kind": "queue.queue",
                "driver": "driver",
                "queue_name": f"faults-{uuid.uuid4().hex[:12]}",
                **queue,
            },
            {
                "name": "worker",
                "kind": "queue.consumer",
                "queue": "tasks",
                "func": "handler",
                "concurrency": 4,
                "lifecycle": {"auto_start": True, "restart": {"initial_delay": "50ms"}},
            },
        ]
        if driver.get("config") == "aws":
            entries.append({"name": "aws", "kind": "config.aws", **aws})
        self.confirmed: set[str] = set()
        self.handled: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.patience = PATIENCE
        self.longest = 0.0  # seconds that a publish took
        self.release = threading.Event()
        self.release.set()
        self.running = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._troubles: list[BaseException] = []
        self.engine = Engine.from_entries(entries)
        self.engine.function("app:handler")(self._handle)
        self.engine.start()

    def _handle(self, _: object) -> None:
        self.running.set()
        self.release.wait(DEADLINE)
        with self._lock:
            self.handled[current_message().id] += 1

    def load(self, publishers: int = 2) -> list[threading.Thread]:
        """Begin to publish."""
        self._stop.clear()
        threads = [threading.Thread(target=self._publish, daemon=True) for _ in range(publishers)]
        for thread in threads:
            thread.start()
        return threads

    def _publish(self) -> None:
        while not self._stop.is_set():
            since = time.monotonic()
            try:
                sent = self.engine.publish_many("app:tasks", [{"n": n} for n in range(5)], timeout=self.patience)
            except (Unavailable, Timeout) as error:
                sent = error.details["accepted"]
                with self._lock:
                    self.refused[type(error).__name__] += 1
                    if not error.retryable:
                        self._troubles.append(error)
            except BaseException as error:
                self._troubles.append(error)
                return
            with self._lock:
                self.confirmed.update(sent)
                self.longest = max(self.longest, time.monotonic() - since)
            self._stop.wait(0.01)

    def more(self, count: int = 20) -> None:
        """Wait until so many more messages have been confirmed."""
        wanted = len(self.confirmed) + count
        eventually(lambda: len(self.confirmed) >= wanted or self._troubles, "publishers go on")

    def until_refused(self, count: int) -> None:
        """Wait until so many publishes have been refused in all."""
        eventually(lambda: self.refused.total() >= count or self._troubles, "publishers hear that nothing can be sent")

    def goes_on(self, within: float = DEADLINE) -> None:
        """The proof that everything works again: a message that is published now, and handled."""
        end = time.monotonic() + within
        while True:
            with suppress(Unavailable, Timeout):
                proof = self.engine.publish("app:tasks", "proof", timeout=self.patience)
                break
            assert time.monotonic() < end, "nothing can be published any more"
        while proof not in self.handled:
            assert time.monotonic() < end, "nothing is handled any more"
            threading.Event().wait(0.01)

    def end(self, threads: list[threading.Thread]) -> None:
        """End the load; publishers have kept their deadlines, whatever happened."""
        self._stop.set()
        for thread in threads:
            thread.join(self.patience + 2 * SLACK)
            assert not thread.is_alive(), "a publisher hangs"
        assert not self._troubles, self._troubles
        assert self.longest < self.patience + SLACK

    def balance(self, threads: list[threading.Thread], name: str, gone: AbstractSet[str] = frozenset()) -> None:
        """End the load and compare: all that was confirmed is handled, but for what the server itself lost."""
        self.end(threads)
        with suppress(AssertionError):
            eventually(lambda: self.confirmed - gone <= set(self.handled), "all is handled")
        missing = self.confirmed - set(self.handled)
        lost = missing - gone
        repeated = self.handled.total() - len(self.handled)
        figures = (
            f"{name}: {len(self.confirmed)} confirmed, {len(lost)} lost, {len(missing & gone)} lost by the server,"
            f" {repeated} repeated, refused {dict(self.refused)}, longest publish {self.longest:.2f} s"
        )
        print(figures)
        assert self.confirmed, figures
        assert not lost, figures

    def stop(self) -> None:
        self._stop.set()
        self.release.set()
        with suppress(WippyQueueError):
            self.engine.stop(timeout=5.0)
