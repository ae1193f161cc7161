"""The parts of the redis driver that need no server."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from redis import exceptions

from tests.support import DEADLINE, eventually, message
from wippy_queue.drivers import DRIVER_KINDS
from wippy_queue.drivers.redis import KIND, trouble, wire
from wippy_queue.drivers.redis.leases import Owner, Receipt
from wippy_queue.drivers.redis.line import Line
from wippy_queue.drivers.redis.options import RedisConfig, SentinelConfig, TlsConfig
from wippy_queue.drivers.redis.trouble import Trouble
from wippy_queue.errors import Internal, Invalid, PermissionDenied, Unavailable, WippyQueueError
from wippy_queue.ids import EntryId
from wippy_queue.queues import Queue


class TestConfig:
    def test_the_kind_is_known(self) -> None:
        assert DRIVER_KINDS["queue.driver.redis"] is KIND
        assert KIND.short_name == "redis"

    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            ({"url": "http://localhost"}, "redis://host:port/db"),
            ({"url": "redis://localhost:port"}, "redis://host:port/db"),
            ({"key_prefix": "{wq}:"}, "braces"),
            ({"cluster": "host:1"}, "true, false or a list"),
            ({"cluster": ["a:b:c"]}, "true, false or a list"),
            ({"lease": 0.0}, "0.1s"),
        ],
    )
    def test_what_cannot_work_is_refused(self, fields: dict[str, Any], problem: str) -> None:
        with pytest.raises(ValueError, match=problem):
            RedisConfig(**fields)

    def test_sentinels_need_hosts_and_the_name_of_the_master(self) -> None:
        SentinelConfig(hosts=("a", "b:26380", "[::1]:26379"), master="main")
        for fields in ({"hosts": (), "master": "main"}, {"hosts": ("a",), "master": ""}):
            with pytest.raises(ValueError, match="must"):
                SentinelConfig(**fields)  # type: ignore[arg-type]

    def test_an_option_of_the_url_that_there_is_not_is_invalid(self) -> None:
        driver = KIND.create(EntryId("app:redis"), RedisConfig(url="redis://:secret@localhost/0?colour=blue"))
        with pytest.raises(Invalid, match="app:redis") as caught:
            driver.start()
        assert "secret" not in str(caught.value)

    def test_no_secret_is_shown_in_a_repr(self) -> None:
        config = RedisConfig(
            url="redis://user:secret@host/0",
            tls=TlsConfig(key="secret"),
            sentinel=SentinelConfig(hosts=("a",), master="m", password="secret"),
        )
        assert "secret" not in repr(config)

    def test_braces_in_the_name_of_a_queue_are_refused(self) -> None:
        driver = KIND.create(EntryId("app:redis"), RedisConfig())
        with pytest.raises(Invalid, match="braces"):
            driver.declare(Queue(id=EntryId("app:tasks"), name="a{b}", driver=EntryId("app:redis")))

    def test_without_the_library_the_error_names_the_extra(self) -> None:
        """The package, its options and its kind are there all the same: the loader needs them."""
        program = """
import sys
sys.modules["redis"] = None
from wippy_queue.drivers.redis import KIND
from wippy_queue.errors import Invalid
try:
    KIND.create("app:redis", KIND.config())
except Invalid as error:
    print(error)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert "pip install 'wippy_queue[redis]'" in done.stdout

    def test_importing_the_drivers_does_not_import_the_library(self) -> None:
        program = "import sys, wippy_queue.drivers; sys.exit('redis' in sys.modules or 'hiredis' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


class TestWire:
    def test_a_message_comes_back(self) -> None:
        original = message("ü:1", headers={"a": 1, "b": "x:y"}, priority=9, attempts=12, expires_at=1_700_000_000.123)
        meta = wire.encode_meta(original, wire.expiry(original, None))
        assert wire.decode(original.id.encode(), meta, original.body) == original

    def test_the_sooner_of_two_ends_counts(self) -> None:
        assert wire.expiry(message(timestamp=100.0), None) == b""
        ends = int(wire.expiry(message(timestamp=100.0), 5.0)) / 1000  # from now on, not from the first publish
        assert 4.0 < ends - time.time() <= 5.0
        assert wire.expiry(message(timestamp=100.0, expires_at=101.0), 5.0) == b"101000"

    def test_a_delay_is_never_rounded_down(self) -> None:
        assert wire.milliseconds(0.0) == 0
        assert wire.milliseconds(0.0001) == 1
        assert wire.milliseconds(1.5) == 1500

    @pytest.mark.parametrize("place", [1, 7, -1, -9 * 2**44 + 5])
    def test_a_mark_is_half_a_place_more(self, place: int) -> None:
        """The scripts round down to get the place back."""
        receipt = Receipt(Owner(b"wq:{q}:", 1.0), b"a", place)
        assert float(receipt.mark()) == place
        receipt.begun = True
        assert float(receipt.mark()) == place + 0.5


class TestTrouble:
    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (exceptions.OutOfMemoryError("command not allowed"), Unavailable),
            (exceptions.ReadOnlyError("READONLY"), Trouble),
            (exceptions.ClusterDownError("CLUSTERDOWN"), Trouble),
            (exceptions.MovedError("1 127.0.0.1:1"), Trouble),
            (exceptions.ResponseError("MISCONF Redis is configured to save"), Trouble),
            (exceptions.ResponseError("UNBLOCKED force unblock from blocking operation"), Trouble),
            (exceptions.NoPermissionError("no"), PermissionDenied),
            (exceptions.ResponseError("WRONGTYPE"), Internal),
        ],
    )
    def test_replies_are_sorted_by_what_helps(self, error: Exception, kind: type[Exception]) -> None:
        assert type(trouble.of_reply(error)) is kind

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (exceptions.ConnectionError("refused"), Trouble),
            (exceptions.TimeoutError("late"), Trouble),
            (exceptions.BusyLoadingError("LOADING"), Trouble),
            (exceptions.AuthenticationError("WRONGPASS"), PermissionDenied),
        ],
    )
    def test_failed_connections_may_pass_but_for_a_wrong_password(self, error: Exception, kind: type) -> None:
        assert type(trouble.of_connection(error, unknown=True)) is kind

    def test_a_password_is_never_shown(self) -> None:
        error = trouble.of_connection(exceptions.ConnectionError("redis://u:secret@h/0 is away"), unknown=False)
        assert "secret" not in str(error)


class FakeConnection:
    """Answers every command with the command, and can be told to fail or to hold its answers back."""

    def __init__(self, script: FakeServer) -> None:
        self._server = script
        self._commands: list[Any] = []
        self.socket_timeout = self.socket_connect_timeout = 0.0

    def connect(self) -> None:
        self._server.tries.append(time.monotonic())
        if self._server.away:
            raise exceptions.ConnectionError("refused")

    def pack_commands(self, commands: Sequence[Any]) -> Sequence[Any]:
        return commands

    def send_packed_command(self, commands: Sequence[Any], check_health: bool) -> None:
        self._server.trips.append(len(commands))
        self._commands += commands

    def read_response(self, **_: object) -> Any:
        self._server.go_on.wait(DEADLINE)
        if self._server.away:
            raise exceptions.ConnectionError("gone")
        return self._commands.pop(0)

    def disconnect(self) -> None:
        self._commands.clear()


@attrs.define(eq=False)
class FakeServer:
    away: bool = False
    trips: list[int] = attrs.field(factory=list)  # how many commands each round trip had
    tries: list[float] = attrs.field(factory=list)  # when each was made to connect
    go_on: threading.Event = attrs.field(factory=threading.Event)

    def line(self, **options: Any) -> Line:
        self.go_on.set()
        options = {"patience": DEADLINE, "delay": 0.01, "max_delay": 0.02, "on_trouble": lambda: None, **options}
        return Line(lambda: FakeConnection(self), **options)


class TestLine:
    def test_callers_that_come_meanwhile_share_the_next_round_trip(self) -> None:
        server = FakeServer()
        line = server.line()
        server.go_on.clear()
        results: dict[int, Any] = {}

        def call(number: int) -> None:
            results[number] = line.run([("ECHO", number)], time.monotonic() + DEADLINE)

        threads = [threading.Thread(target=call, args=(0,), daemon=True)]
        threads[0].start()
        eventually(lambda: server.trips, "the first one has sent")
        for number in range(1, 6):
            threads.append(threading.Thread(target=call, args=(number,), daemon=True))
            threads[-1].start()
        eventually(lambda: len(line._waiting) == 5, "the others wait")
        server.go_on.set()
        for thread in threads:
            thread.join(DEADLINE)
        assert results == {number: [("ECHO", number)] for number in range(6)}
        assert server.trips == [1, 5]

    @pytest.mark.parametrize(
        ("mebibytes", "trips"),
        [(1, [1, 4, 4, 4]), (3, [1] * 13), (5, [1] * 13)],
        ids=["four fit", "two do not fit", "not even one does"],
    )
    def test_large_calls_share_a_round_trip_of_a_bounded_size(self, mebibytes: int, trips: list[int]) -> None:
        """It has one time limit, whatever its size: too much in one would fail together, again and again."""
        server = FakeServer()
        line = server.line()
        server.go_on.clear()
        body = bytes(mebibytes * 2**20)
        answered: list[int] = []

        def call(number: int) -> None:
            assert line.run([("SET", number, body)], time.monotonic() + DEADLINE) == [("SET", number, body)]
            answered.append(number)

        threads = [threading.Thread(target=call, args=(number,), daemon=True) for number in range(13)]
        threads[0].start()
        eventually(lambda: server.trips, "the first one has sent")
        for thread in threads[1:]:
            thread.start()
        eventually(lambda: len(line._waiting) == 12, "the others wait")
        server.go_on.set()
        for thread in threads:
            thread.join(DEADLINE)
        assert sorted(answered) == list(range(13))
        assert server.trips == trips

    def test_many_callers_each_get_their_own_answers(self) -> None:
        line = FakeServer().line()
        wrong: list[Any] = []

        def call(number: int) -> None:
            for turn in range(200):
                wanted = [("ECHO", number, turn), ("ECHO", number, -turn)]
                if line.run(wanted, time.monotonic() + DEADLINE) != wanted:
                    wrong.append(wanted)

        threads = [threading.Thread(target=call, args=(number,), daemon=True) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()
        assert wrong == []

    def test_a_failure_reaches_everybody_in_the_batch_and_nobody_else(self) -> None:
        server = FakeServer()
        troubles: list[int] = []
        line = server.line(on_trouble=lambda: troubles.append(1))
        server.away = True
        with pytest.raises(Trouble) as caught:
            line.run([("PING",)], time.monotonic() + 1)
        assert not caught.value.unknown, "it was never sent"
        assert line.troubled
        assert troubles
        server.away = False
        assert line.run([("PING",)], time.monotonic() + DEADLINE) == [("PING",)]
        assert not line.troubled

    def test_an_answer_that_never_came_leaves_the_outcome_unknown(self) -> None:
        server = FakeServer()
        line = server.line()
        server.go_on.clear()
        failed: list[BaseException] = []

        def call() -> None:
            try:
                line.run([("PING",)], time.monotonic() + DEADLINE)
            except Trouble as error:
                failed.append(error)

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        eventually(lambda: server.trips, "it was sent")
        server.away = True
        server.go_on.set()
        thread.join(DEADLINE)
        (error,) = failed
        assert isinstance(error, Trouble)
        assert error.unknown

    def test_tries_to_connect_come_later_and_later(self) -> None:
        server = FakeServer()
        line = server.line(delay=0.05, max_delay=10.0)
        server.away = True
        for _ in range(4):
            with pytest.raises(Trouble):
                line.run([("PING",)], time.monotonic() + DEADLINE)
        waits = [later - sooner for sooner, later in itertools.pairwise(server.tries)]
        assert len(waits) == 3
        assert waits[1] >= 0.03
        assert waits[2] >= 0.06

    def test_the_first_try_after_a_failure_comes_at_once(self) -> None:
        """For a connection that was cut is back at once."""
        server = FakeServer()
        line = server.line(delay=100.0, max_delay=100.0)
        server.away = True
        for _ in range(3):
            with pytest.raises(Trouble):
                line.run([("PING",)], time.monotonic() + 0.05)
        assert len(server.tries) == 2

    def test_closing_lets_everybody_go(self) -> None:
        server = FakeServer()
        line = server.line(delay=100.0, max_delay=100.0)
        server.away = True
        for _ in range(2):
            with pytest.raises(Trouble):
                line.run([("PING",)], time.monotonic() + 1)
        ended: list[BaseException] = []

        def call() -> None:
            try:
                line.run([("PING",)], time.monotonic() + 100)
            except WippyQueueError as error:
                ended.append(error)

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        line.close()
        thread.join(DEADLINE)
        assert isinstance(ended[0], Unavailable)
