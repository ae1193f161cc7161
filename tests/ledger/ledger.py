"""The ledger, in the style of Jepsen's total-queue: what was confirmed must come out, whatever happens in between."""

from __future__ import annotations

import collections
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from tests.ledger.child import MAX_ATTEMPTS, WINDOW, entries
from tests.support import eventually
from wippy_queue import Engine

CHILD = Path(__file__).with_name("child.py")
PATIENCE = 60.0  # seconds until what must happen has happened


@attrs.define
class Account:
    """What the journals say at the end."""

    confirmed: set[str]
    starts: collections.Counter[str]
    successes: collections.Counter[str]
    dead: set[str]
    refused: collections.Counter[str]
    highest_attempt: int

    @property
    def lost(self) -> set[str]:
        return self.confirmed - set(self.successes) - self.dead

    @property
    def repeated(self) -> int:
        """How often a message was handled again after a success."""
        return sum(count - 1 for count in self.successes.values())


class Run:
    """One run: child processes on the same queues, and faults that a seed chooses."""

    def __init__(self, folder: Path, driver: dict[str, Any], seed: int) -> None:
        self.folder = folder
        self.driver = driver
        self.seed = seed
        self.chance = random.Random(seed)
        self.faults: collections.Counter[str] = collections.Counter()
        self.allowed = 0  # how many messages may have been handled twice
        self.doomed: set[str] = set()  # what the server had, and has lost by itself
        self.children: list[subprocess.Popen[str]] = []

    def spawn(
        self,
        count: int = 1,
        *,
        publishers: int = 3,
        pause: float = 0.05,
        filler: int = 10,
        limit: Callable[[], None] | None = None,
    ) -> None:
        """Start children at the same time, and wait until they work."""
        started = [self._start(publishers, pause, filler, limit) for _ in range(count)]
        self.children += started
        for child in started:
            assert child.stdout is not None
            assert child.stdout.readline() == "started\n"

    def _start(
        self, publishers: int, pause: float, filler: int, limit: Callable[[], None] | None
    ) -> subprocess.Popen[str]:
        spec = {
            "driver": self.driver,
            "folder": str(self.folder),
            "seed": self.chance.randrange(2**32),
            "publishers": publishers,
            "pause": pause,
            "filler": filler,
        }
        return subprocess.Popen(
            [sys.executable, str(CHILD), json.dumps(spec)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(CHILD.parents[2])},
            preexec_fn=limit,  # noqa: PLW1509 - the test's process has no threads that it could hurt
        )

    def let_work(self, least: float = 0.1, most: float = 0.6) -> None:
        time.sleep(self.chance.uniform(least, most))

    # faults

    def kill(self) -> None:
        """kill -9 at any instant; what was in flight may repeat."""
        child = self.children.pop(self.chance.randrange(len(self.children)))
        child.kill()
        self._reap(child)
        self.allowed += WINDOW
        self.faults["kill -9"] += 1

    def stop(self) -> None:
        """A graceful stop, with a full buffer; nothing may repeat."""
        child = self.children.pop(self.chance.randrange(len(self.children)))
        child.terminate()
        assert self._reap(child) == 0
        self.faults["graceful stop"] += 1

    def stop_during_start(self) -> None:
        self.spawn()
        child = self.children.pop()
        child.terminate()
        assert self._reap(child) == 0
        self.faults["stop during start"] += 1

    def suspend(self, lease: float) -> None:
        """A process that sleeps longer than its lease and goes on, not knowing that others have its messages."""
        child = self.chance.choice(self.children)
        child.send_signal(signal.SIGSTOP)
        time.sleep(lease * 1.5)
        child.send_signal(signal.SIGCONT)
        self.allowed += WINDOW
        self.faults["lease ran out"] += 1

    def fill_disk(self) -> None:
        """A process for which the disk ends a little behind where the largest file ends now."""
        journals = [path.stat().st_size for path in self.folder.iterdir() if path.is_file()]
        size = max(journals) + 1_000_000

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        self.spawn(publishers=3, pause=0.001, filler=20_000, limit=limit)
        self.let_work(0.5, 1.0)
        child = self.children.pop()
        child.kill()
        self._reap(child)
        self.allowed += WINDOW
        self.faults["disk full"] += 1

    def more(self, count: int = 1) -> None:
        """Wait until so many more messages have been confirmed."""
        wanted = len(self.confirmed()) + count
        eventually(lambda: len(self.confirmed()) >= wanted, "publishers go on")

    def confirmed(self) -> set[str]:
        """Return the ids of what was confirmed so far."""
        return set((self.folder / "confirmed").read_text().split())

    def _reap(self, child: subprocess.Popen[str]) -> int:
        code = child.wait(PATIENCE)
        assert child.stdout is not None
        child.stdout.close()
        return code

    # the end

    def settle(self) -> Account:
        """Stop all children, let one more handle what is left, and read the journals."""
        while self.children:
            self.stop()
        self.spawn(publishers=0)
        engine = Engine.from_entries(entries(self.driver))
        engine.module("ledger", {"handle": lambda *_: None})
        engine.start(consumers=False)
        engine.join("app:tasks", timeout=PATIENCE)
        while self.children:
            self.stop()
        box = engine.dead_letters("app:dead")
        dead = box.list(limit=1_000_000)
        engine.stop()
        assert {letter.reason for letter in dead} <= {"attempts", "not_retryable"}
        return self._account(dead)

    def _account(self, dead: Sequence[Any]) -> Account:
        starts: collections.Counter[str] = collections.Counter()
        successes: collections.Counter[str] = collections.Counter()
        refused: collections.Counter[str] = collections.Counter()
        highest = 0
        for line in (self.folder / "effects").read_text().splitlines():
            what, subject, *rest = line.split()
            if what == "start":
                starts[subject] += 1
                highest = max(highest, int(rest[0]))
            elif what == "ok":
                successes[subject] += 1
            elif what == "refused":
                refused[subject] += 1
        return Account(self.confirmed(), starts, successes, {letter.id for letter in dead}, refused, highest)

    def check(self, account: Account, *, exact_attempts: bool) -> str:
        """Compare, and return the figures in one line."""
        lost = account.lost - self.doomed
        figures = (
            f"seed {self.seed}: {len(account.confirmed)} confirmed, {len(account.successes)} handled,"
            f" {len(account.dead)} dead-lettered, {len(lost)} lost, {len(account.lost - lost)} lost by the server,"
            f" {account.repeated} repeated"
            f" (at most {self.allowed}), refused {dict(account.refused)}, faults {dict(self.faults)}"
        )
        print(figures)
        assert account.confirmed, figures
        assert not lost, figures
        assert account.repeated <= self.allowed, figures
        assert account.highest_attempt < MAX_ATTEMPTS, (account.highest_attempt, figures)
        if exact_attempts:
            many = {i: n for i, n in account.starts.items() if n > MAX_ATTEMPTS}
            assert len(many) <= self.allowed, (figures, many)
        return figures
