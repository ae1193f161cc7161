"""The process under test of the ledger: publishers and consumers of one application, which write down what they did.

    python child.py SPEC    SPEC: JSON with `driver` (an entry), `folder`, `seed`, `publishers`, `pause` and `filler`

It ends gracefully on SIGTERM. Every line of the journals is one write of O_APPEND: a kill -9 loses none that was made.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from wippy_queue import Engine, ShutdownTimeout, WippyQueueError

CONCURRENCY = 4
PREFETCH = 16
MAX_ATTEMPTS = 3
WINDOW = CONCURRENCY + PREFETCH
DYING = ("poison", "hopeless")  # moods of messages that end as dead letters

# In Lua, so that workers take several messages at a time while they are fast.
HANDLER = """
local queue, handle = require("queue"), require("ledger").handle
return function()
    local message = queue.message()
    return handle(message:id(), message:header("attempts"))
end
"""


def entries(driver: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the application; `driver` is all that differs between backends. Its meta says what its queues are like."""
    prefix, options = driver["meta"]["prefix"], driver["meta"].get("options", {})
    queue = {"kind": "queue.queue", "driver": "driver", "options": options}
    return [
        {**driver, "name": "driver"},
        {**queue, "name": "dead", "queue_name": f"{prefix}dead"},
        {
            **queue,
            "name": "tasks",
            "queue_name": f"{prefix}tasks",
            "retry": {"initial_delay": "5ms", "max_delay": "50ms"},
            "dead_letter": {"queue": "dead", "max_attempts": MAX_ATTEMPTS},
        },
        {"name": "handler", "kind": "function.lua", "source": HANDLER, "modules": ["queue", "ledger"]},
        {
            "name": "worker",
            "kind": "queue.consumer",
            "queue": "tasks",
            "func": "handler",
            "concurrency": CONCURRENCY,
            "prefetch": PREFETCH,
            "lifecycle": {"auto_start": True, "start_timeout": "60s", "restart": {"initial_delay": "50ms"}},
        },
    ]


class Journal:
    """A file of lines, each written at once."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def write(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


def mood(message_id: str) -> str:
    """Return how the handler takes to a message: the same in every process and at every attempt."""
    return random.Random(message_id).choices(
        ["fine", "slow", "fails once", "raises once", "poison", "hopeless"], [60, 20, 8, 6, 4, 2]
    )[0]


def main() -> None:
    spec = json.loads(sys.argv[1])
    folder = Path(spec["folder"])
    confirmed, effects = Journal(folder / "confirmed"), Journal(folder / "effects")
    logging.disable(logging.CRITICAL)
    engine = Engine.from_entries(entries(spec["driver"]))
    stop = threading.Event()
    slow = threading.Event()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for all threads: the main one waits for it below

    def handle(message_id: str, attempts: int) -> None:
        effects.write("start", message_id, attempts, os.getpid())
        how = mood(message_id)
        if how == "slow":
            slow.wait(random.random() / 20)
        if how == "poison":
            raise RuntimeError("poison")
        if how == "hopeless":
            raise WippyQueueError("hopeless", retryable=False)
        if how == "fails once" and attempts == 0:
            raise WippyQueueError("not yet")
        if how == "raises once" and attempts == 0:
            raise KeyError("not yet")
        effects.write("ok", message_id)

    engine.module("ledger", {"handle": handle})

    def publish(number: int) -> None:
        chance = random.Random(f"{spec['seed']} {number} {os.getpid()}")
        filler = "x" * spec["filler"]
        while not stop.is_set():
            try:
                if chance.random() < 0.5:
                    ids = [engine.publish("app:tasks", {"n": number, "filler": filler}, timeout=5)]
                else:
                    bodies = [{"n": number, "filler": filler}] * chance.randint(1, 20)
                    ids = engine.publish_many("app:tasks", bodies, timeout=5)
            except WippyQueueError as error:
                ids = error.details.get("accepted", [])
                effects.write("refused", type(error).__name__)
            for message_id in ids:
                confirmed.write(message_id)
            stop.wait(chance.random() * spec["pause"])

    engine.start(wait=False)
    publishers = [threading.Thread(target=publish, args=(n,), daemon=True) for n in range(spec["publishers"])]
    for thread in publishers:
        thread.start()
    print("started", flush=True)
    signal.sigwait({signal.SIGTERM})
    stop.set()
    for thread in publishers:
        thread.join()
    try:
        engine.stop(timeout=10)
    except ShutdownTimeout as late:
        effects.write("abandoned", *late.report.abandoned)


if __name__ == "__main__":
    main()
