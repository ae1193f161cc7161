"""Publish and consume rates of the sqlite driver, at both durabilities, beside huey, persist-queue and bare sqlite3.

    python tests/benchmarks/sqlite_peers.py [MESSAGES] [ROUNDS]      needs: pip install huey persist-queue

All in one run, in rotation; bodies of 200 bytes; medians, and ratios to `full`. «consume» is claim and acknowledge, in
batches where the library has them, from one thread. huey's SQLite storage removes a message when it hands it out, and
syncs nothing; «bare» is what the bench command measures against, which syncs everything.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wippy_queue.bench.client_sqlite import Sqlite
from wippy_queue.delivery import Settlement
from wippy_queue.drivers.sqlite.driver import SqliteDriver
from wippy_queue.drivers.sqlite.options import SqliteConfig
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import Queue

BODY = b"x" * 200
TASKS = Queue(id=EntryId("bench:tasks"), name="tasks", driver=EntryId("bench:disk"))
Rates = dict[str, float]


def rate(count: int, work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return count / (time.perf_counter() - begin)


def ours(folder: Path, count: int, durability: Any) -> Rates:
    driver = SqliteDriver(TASKS.driver, SqliteConfig(file=str(folder / "queue.db"), durability=durability))
    driver.start()
    driver.declare(TASKS)
    messages = [Message(id=f"m-{n}", body=BODY, encoding="binary", timestamp=time.time()) for n in range(count)]

    def publish() -> None:
        for message in messages:
            driver.publish(TASKS, [message], 10)

    def publish_batches() -> None:
        for start in range(0, count, 100):
            driver.publish(TASKS, messages[start : start + 100], 10)

    def consume() -> None:
        subscription = driver.subscribe(TASKS, 200)
        left = 2 * count
        while left:
            deliveries = subscription.receive(100, 5)
            for delivery in deliveries:
                subscription.begin([delivery])
                delivery.claim()
            subscription.settle([Settlement(delivery) for delivery in deliveries])
            left -= len(deliveries)
        subscription.close(5.0)

    rates = {
        "publish": rate(count, publish),
        "publish, 100 a call": rate(count, publish_batches),
        "consume": rate(2 * count, consume),
    }
    driver.stop(5.0)
    return rates


def bare(folder: Path, count: int) -> Rates:
    client = Sqlite(str(folder / "bare.db"), 200)

    def publish() -> None:
        for _ in range(count):
            client.send(client.tasks, BODY)

    def publish_batches() -> None:
        for start in range(0, count, 100):
            client.send_many(client.tasks, [BODY] * min(100, count - start))

    def consume() -> None:
        left = 2 * count
        while left:
            fetched = client.fetch(100)
            client.ack([receipt for receipt, _ in fetched])
            left -= len(fetched)

    rates = {
        "publish": rate(count, publish),
        "publish, 100 a call": rate(count, publish_batches),
        "consume": rate(2 * count, consume),
    }
    client.close()
    return rates


def huey(folder: Path, count: int) -> Rates:
    from huey.storage import SqliteStorage

    storage = SqliteStorage("bench", filename=str(folder / "huey.db"))
    return {
        "publish": rate(count, lambda: [storage.enqueue(BODY) for _ in range(count)]),
        "consume": rate(count, lambda: [storage.dequeue() for _ in range(count)]),
    }


def persist_queue(folder: Path, count: int) -> Rates:
    from persistqueue import SQLiteAckQueue

    queue = SQLiteAckQueue(str(folder / "persist"), multithreading=True)
    return {
        "publish": rate(count, lambda: [queue.put(BODY) for _ in range(count)]),
        "consume": rate(count, lambda: [queue.ack(queue.get()) for _ in range(count)]),
    }


def main() -> None:
    if not all(map(importlib.util.find_spec, ("huey", "persistqueue"))):
        sys.exit("the others are not all installed: pip install huey persist-queue")
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    contestants: dict[str, Callable[[Path, int], Rates]] = {
        "full": lambda folder, n: ours(folder, n, "full"),
        "normal": lambda folder, n: ours(folder, n, "normal"),
        "bare": bare,
        "huey": huey,
        "persist-queue": persist_queue,
    }
    found: dict[str, list[Rates]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(contestant(Path(folder), count))
    for what in ("publish", "publish, 100 a call", "consume"):
        medians = {
            name: statistics.median(rates[what] for rates in runs) for name, runs in found.items() if what in runs[0]
        }
        for name, median in medians.items():
            print(f"{what:<20} {name:<14} {median:>10,.0f}/s   {median / medians['full']:.2f}")


if __name__ == "__main__":
    main()
