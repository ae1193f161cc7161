"""The sqlite driver when processes are killed, and when several share a file."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wippy_queue.delivery import Settlement
from wippy_queue.drivers.sqlite.driver import SqliteDriver
from wippy_queue.drivers.sqlite.options import SqliteConfig
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import Queue

QUEUE = Queue(id=EntryId("app:tasks"), name="tasks", driver=EntryId("app:disk"))

# What every child begins with; it is told the file, and says what it has done line by line.
PRELUDE = """
import msgspec, sys, threading, time
from wippy_queue.delivery import Settlement
from wippy_queue.drivers.sqlite.driver import SqliteDriver
from wippy_queue.drivers.sqlite.options import SqliteConfig
from wippy_queue.errors import Unavailable
from wippy_queue.ids import EntryId
from wippy_queue.message import Message
from wippy_queue.queues import Queue

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")  # one write: threads must not mix their lines
    sys.stdout.flush()
def message(name, body=b"x"): return Message(id=name, body=body, timestamp=time.time())

queue = Queue(id=EntryId("app:tasks"), name="tasks", driver=EntryId("app:disk"))
driver = SqliteDriver(EntryId("app:disk"), SqliteConfig(file=sys.argv[1]))
driver.start()
driver.declare(queue)
"""


class Child:
    """A process of ours that runs ``program`` after the prelude."""

    def __init__(self, file: Path, program: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + program, str(file)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout

    def hear(self) -> str:
        line = self.said.readline().strip()
        assert line, "the child ended early"
        return line

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def wait_for(self, word: str) -> None:
        while self.hear() != word:
            pass

    def kill(self) -> list[str]:
        """Kill it as `kill -9` does, and return what it had still said."""
        self.process.kill()
        rest = self.said.read().splitlines()
        self.process.wait()
        return rest

    def end(self) -> list[str]:
        rest = self.said.read().splitlines()
        assert self.process.wait(30) == 0
        return rest


@pytest.fixture
def child(file: Path) -> Iterator[Callable[[str], Child]]:
    """Start children; none outlives the test."""
    with contextlib.ExitStack() as stack:

        def start(program: str) -> Child:
            made = Child(file, program)
            stack.enter_context(made.process)
            stack.callback(made.process.kill)
            return made

        yield start


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@contextlib.contextmanager
def opened(file: Path) -> Iterator[SqliteDriver]:
    driver = SqliteDriver(EntryId("app:disk"), SqliteConfig(file=str(file)))
    driver.start()
    driver.declare(QUEUE)
    try:
        yield driver
    finally:
        driver.stop(5.0)


def publish(driver: SqliteDriver, *names: str) -> None:
    driver.publish(QUEUE, [Message(id=name, body=b"x", timestamp=time.time()) for name in names], 5)


def attempts(driver: SqliteDriver) -> dict[str, int]:
    return {message.id: message.attempts for message in driver.peek(QUEUE, 10_000)}


def boards(file: Path) -> list[Path]:
    return list(Path(f"{file}-owners").glob("*"))


def test_whatever_a_killed_publisher_had_confirmed_is_there(file: Path, child: Callable[[str], Child]) -> None:
    killed = child(
        """
def publish(thread):
    for number in range(10**9):
        names = [f"{thread}-{number}-{part}" for part in "ab"]
        driver.publish(queue, [message(name) for name in names], 10)
        say(*names)
for thread in range(4):
    threading.Thread(target=publish, args=(thread,)).start()
""",
    )
    confirmed = [killed.hear() for _ in range(200)]
    confirmed += killed.kill()
    with opened(file) as driver:
        stored = attempts(driver)
        # The last line may be cut: the kill came while it was written.
        assert [name for line in confirmed[:-1] for name in line.split() if name not in stored] == []
        for name in stored:  # a call is all or nothing
            assert name[:-1] + "a" in stored
            assert name[:-1] + "b" in stored
    with sqlite3.connect(file) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


HANDLES = """
subscription = driver.subscribe(queue, 10)
held = {one.message.id: one for one in subscription.receive(10, 5)}
def settle(*settlements):
    flushed = threading.Event()
    subscription.settle(list(settlements[:-1]) + [Settlement(*settlements[-1], done=lambda error: flushed.set())])
    flushed.wait()
for name in ("acked", "begun", "released", "requeued"):
    assert subscription.begin([held[name]])
settle((held["acked"],))
settle((held["released"], "release"))
again = {one.message.id: one for one in subscription.receive(10, 5)}  # buffered now, in whatever slot
assert list(again) == ["released"]
settle((held["requeued"], "requeue", msgspec.structs.replace(held["requeued"].message, attempts=7), 0.0))
assert [one.message.id for one in subscription.receive(10, 5)] == ["requeued"]
say("handling")
sys.stdin.read()
"""


def test_a_kill_counts_an_attempt_for_what_had_begun_and_for_nothing_else(
    file: Path, child: Callable[[str], Child]
) -> None:
    with opened(file) as driver:
        publish(driver, "acked", "begun", "buffered", "released", "requeued")
    killed = child(HANDLES)
    killed.wait_for("handling")
    assert len(boards(file)) == 1
    killed.kill()
    with opened(file) as driver:  # the lease would last 30 s, but its owner is dead for all to see
        assert attempts(driver) == {"begun": 1, "buffered": 0, "released": 0, "requeued": 7}
        assert list(attempts(driver)) == ["begun", "buffered", "released", "requeued"]
        assert driver.info(QUEUE).in_flight == 0
    assert boards(file) == []


def test_each_kill_counts_so_a_message_that_kills_its_process_ends_somewhere(
    file: Path, child: Callable[[str], Child]
) -> None:
    with opened(file) as driver:
        publish(driver, "poison")
    for kills in (1, 2, 3):
        killed = child(
            """
subscription = driver.subscribe(queue, 10)
[one] = subscription.receive(10, 5)
assert subscription.begin([one])
say("attempts", one.message.attempts)
sys.stdin.read()
""",
        )
        assert killed.hear() == f"attempts {kills - 1}"
        killed.kill()
    with opened(file) as driver:
        assert attempts(driver) == {"poison": 3}


def test_a_running_process_takes_over_from_a_killed_one_within_seconds(
    file: Path, child: Callable[[str], Child]
) -> None:
    with opened(file) as driver:
        publish(driver, "begun", "buffered")
        killed = child(
            """
subscription = driver.subscribe(queue, 10)
one, two = subscription.receive(10, 5)
assert subscription.begin([one])
say("handling")
sys.stdin.read()
""",
        )
        killed.wait_for("handling")
        subscription = driver.subscribe(QUEUE, 10)
        assert subscription.receive(10, 0) == []
        killed.kill()
        taken = subscription.receive(10, 10)
        assert {one.message.id: one.message.attempts for one in taken} == {"begun": 1, "buffered": 0}


def test_a_process_that_was_suspended_past_its_lease_can_neither_begin_nor_settle(
    file: Path, child: Callable[[str], Child]
) -> None:
    with opened(file) as driver:
        publish(driver, "begun", "buffered")
        suspended = child(
            """
driver = SqliteDriver(EntryId("app:disk"), SqliteConfig(file=sys.argv[1], lease=0.5))
driver.start()
driver.declare(queue)
subscription = driver.subscribe(queue, 10)
one, two = subscription.receive(10, 5)
assert subscription.begin([one])
say("handling")
sys.stdin.readline()
say("begins", bool(subscription.begin([two])))
subscription.settle([Settlement(one, done=lambda error: say("settled", type(error).__name__))])
say("again", *(again.message.attempts for again in subscription.receive(10, 5)))
driver.stop(5.0)
"""
        )
        suspended.wait_for("handling")
        suspended.process.send_signal(signal.SIGSTOP)
        subscription = driver.subscribe(QUEUE, 10)
        taken = subscription.receive(10, 10)
        assert {one.message.id: one.message.attempts for one in taken} == {"begun": 1, "buffered": 0}
        suspended.process.send_signal(signal.SIGCONT)
        suspended.tell("go on")
        assert suspended.hear() == "begins False"
        assert suspended.hear() == "settled Conflict"
        subscription.close(5.0)
        assert suspended.hear() == "again 1 0"


CONSUMES = """
say("up")
sys.stdin.readline()
subscription = driver.subscribe(queue, 20)
first = True
while True:
    batch = subscription.receive(10, 0.3)
    if not batch and driver.wait_idle(queue, 0):
        break
    if batch and first:
        first = False
        say("has some")
        sys.stdin.readline()
    for one in batch:
        assert subscription.begin([one])
        say(one.message.id)
    subscription.settle([Settlement(one) for one in batch])
driver.stop(5.0)
"""


def test_processes_that_share_a_file_deliver_each_message_once(file: Path, child: Callable[[str], Child]) -> None:
    """They also open the new file at the same moment."""
    children = [child(CONSUMES) for _ in range(3)]
    for each in children:
        each.wait_for("up")
    names = [str(number) for number in range(600)]
    with opened(file) as driver:
        publish(driver, *names[:300])
        for each in children:
            each.tell("go")
        for each in children:
            each.wait_for("has some")
        for each in children:
            each.tell("go on")
        for name in names[300:]:
            publish(driver, name)
        assert driver.wait_idle(QUEUE, 30)
    seen = [each.end() for each in children]
    assert sorted(name for some in seen for name in some) == sorted(names)
    assert boards(file) == []


def test_a_disk_that_takes_no_more_fails_publishers_and_loses_nothing_that_was_confirmed(
    file: Path, child: Callable[[str], Child]
) -> None:
    killed = child(
        """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
for number in range(10**9):
    try:
        driver.publish(queue, [message(f"m{number}", bytes(5000))], 5)
    except Unavailable as error:
        say("refused", error)
        break
    say(f"m{number}")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
driver.publish(queue, [message("after")], 5)
say("after")
driver.stop(5.0)
""",
    )
    said = killed.end()
    refused = [line for line in said if line.startswith("refused")]
    assert len(refused) == 1
    assert str(file) in refused[0]
    with opened(file) as driver:
        assert list(attempts(driver)) == [line for line in said if not line.startswith("refused")]


def test_a_settle_that_was_accepted_but_not_committed_is_an_attempt_unless_it_was_a_release(
    file: Path, child: Callable[[str], Child]
) -> None:
    with opened(file) as driver:
        publish(driver, "acked", "released")
    killed = child(
        """
subscription = driver.subscribe(queue, 10)
one, two = subscription.receive(10, 5)
assert subscription.begin([one])
assert subscription.begin([two])
import sqlite3
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")  # so that the flush has to wait
subscription.settle([Settlement(one), Settlement(two, "release")])
say("settling")
sys.stdin.read()
""",
    )
    killed.wait_for("settling")
    killed.kill()
    with opened(file) as driver:
        assert attempts(driver) == {"acked": 1, "released": 0}
        subscription = driver.subscribe(QUEUE, 10)
        subscription.settle([Settlement(one) for one in subscription.receive(10, 5)])
        assert driver.wait_idle(QUEUE, 5)
