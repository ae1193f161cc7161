"""What each driver finds out about its backend without creating anything there."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from wippy_queue.driver import Driver
from wippy_queue.drivers.sqlite.driver import SqliteDriver
from wippy_queue.drivers.sqlite.options import SqliteConfig
from wippy_queue.errors import Unavailable, WippyQueueError
from wippy_queue.ids import EntryId
from wippy_queue.queues import Queue

ID = EntryId("test:driver")


@pytest.fixture
def queue() -> Queue:
    """A queue with a name that no other test has."""
    return Queue(id=EntryId("test:tasks"), name=f"wq-verify-{uuid.uuid4().hex[:12]}", driver=ID)


def declare(driver: Driver, queue: Queue) -> None:
    driver.start()
    driver.declare(queue)
    driver.stop(5.0)


def test_sqlite_wants_a_folder_that_it_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, _mode: Path(path) != tmp_path)  # root may do everything
    with pytest.raises(Unavailable, match="right to write in the folder"):
        SqliteDriver(ID, SqliteConfig(file=str(tmp_path / "queues.db"))).verify([])


def test_sqlite_wants_a_file_that_it_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "queues.db"
    file.touch()
    monkeypatch.setattr("os.access", lambda path, _mode: Path(path) != file)
    with pytest.raises(Unavailable, match="right to read and write the file"):
        SqliteDriver(ID, SqliteConfig(file=str(file))).verify([])


class TestRabbitMQ:
    @pytest.fixture
    def make(self, amqp_url: str, queue: Queue) -> Iterator[Callable[..., Driver]]:
        pika = pytest.importorskip("pika")
        from wippy_queue.drivers.amqp.driver import AmqpDriver
        from wippy_queue.drivers.amqp.options import AmqpConfig

        yield lambda **config: AmqpDriver(ID, AmqpConfig(**{"url": amqp_url, **config}))
        with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
            for suffix in ("", ".due", ".dropped"):
                connection.channel().queue_delete(queue.name + suffix)

    def test_a_queue_that_is_not_there_is_no_problem_and_is_not_made(
        self, make: Callable[..., Driver], queue: Queue, amqp_url: str
    ) -> None:
        import pika

        assert make().verify([queue]) == []
        with (
            pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection,
            pytest.raises(pika.exceptions.ChannelClosedByBroker, match="404"),
        ):
            connection.channel().queue_declare(queue.name, passive=True)

    def test_a_queue_that_differs_is_told_in_the_words_of_the_options(
        self, make: Callable[..., Driver], queue: Queue
    ) -> None:
        from wippy_queue.drivers.amqp.options import AmqpQueueOptions

        def with_options(**options: Any) -> Queue:
            return attrs.evolve(queue, options=AmqpQueueOptions(**options))

        declare(make(), with_options(max_length=5))
        assert make().verify([with_options(max_length=5)]) == []
        (problem,) = make().verify([with_options(max_length=6)])
        assert problem.entry == queue.id
        assert "(option max_length)" in problem.message
        assert make().verify([with_options(max_length=6, on_mismatch="use_existing")]) == []

    def test_a_broker_that_refuses_us_is_told_without_the_password(self, make: Callable[..., Driver]) -> None:
        with pytest.raises(WippyQueueError, match="refuses the connection") as refused:
            make(url="amqp://nobody:hunter2@127.0.0.1:5672/").verify([])
        assert "hunter2" not in str(refused.value)


class TestRedis:
    @pytest.fixture
    def make(self, redis_url: str) -> Callable[..., Driver]:
        pytest.importorskip("redis")
        from wippy_queue.drivers.redis.driver import RedisDriver
        from wippy_queue.drivers.redis.options import RedisConfig

        return lambda **config: RedisDriver(ID, RedisConfig(**{"url": redis_url, **config}))

    def test_a_fit_server_is_no_problem_and_holds_no_more_than_before(
        self, make: Callable[..., Driver], queue: Queue, redis_url: str
    ) -> None:
        import redis

        assert make().verify([queue]) == []
        with redis.Redis.from_url(redis_url) as client:
            assert list(client.scan_iter(f"*{queue.name}*")) == []

    def test_a_name_that_cannot_be_is_told(self, make: Callable[..., Driver], queue: Queue) -> None:
        (problem,) = make().verify([attrs.evolve(queue, name="a{b}")])
        assert (problem.entry, "braces" in problem.message) == (queue.id, True)

    def test_a_user_that_may_not_use_the_keys_is_told_queue_by_queue(
        self, make: Callable[..., Driver], queue: Queue, redis_url: str
    ) -> None:
        import redis

        with redis.Redis.from_url(redis_url) as client:
            user: str = queue.name
            client.execute_command("ACL", "SETUSER", user, "on", ">hunter2", "+@all", f"~*{queue.name}*")
            try:
                other = attrs.evolve(queue, id=EntryId("test:other"), name="other")
                found = make(url=redis_url.replace("://", f"://{user}:hunter2@")).verify([queue, other])
            finally:
                client.execute_command("ACL", "DELUSER", user)
        assert [problem.entry for problem in found] == [other.id]
        assert "hunter2" not in str(found)


class TestSqs:
    @pytest.fixture
    def make(self, sqs_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Driver]:
        from wippy_queue.drivers.sqs.driver import SqsDriver
        from wippy_queue.drivers.sqs.options import SqsConfig

        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        return lambda: SqsDriver(ID, SqsConfig(endpoint=sqs_endpoint, wait_time=0.0))

    def test_a_queue_that_is_not_there_is_no_problem_and_is_not_made(
        self, make: Callable[[], Driver], queue: Queue
    ) -> None:
        from wippy_queue.drivers.sqs.options import SqsQueueOptions

        wanted = attrs.evolve(queue, options=SqsQueueOptions(visibility_timeout=20))
        assert make().verify([wanted]) == []
        assert make().verify([attrs.evolve(queue, options=SqsQueueOptions(visibility_timeout=30))]) == []
        declare(make(), wanted)
        assert make().verify([wanted]) == []
        (problem,) = make().verify([attrs.evolve(queue, options=SqsQueueOptions(visibility_timeout=30))])
        assert (problem.entry, "VisibilityTimeout is 20" in problem.message) == (queue.id, True)

    def test_two_queues_that_would_be_one_there_are_told(self, make: Callable[[], Driver], queue: Queue) -> None:
        dotted = attrs.evolve(queue, id=EntryId("test:dotted"), name=f"{queue.name}.x")
        (problem,) = make().verify([dotted, attrs.evolve(queue, name=f"{queue.name}-x")])
        assert (problem.entry, "so is test:dotted" in problem.message) == (queue.id, True)
