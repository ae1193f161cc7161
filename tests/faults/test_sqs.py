"""The endpoint goes away, comes back, comes back empty, or says nothing any more."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults.application import SQS
from tests.faults.conftest import Start
from tests.faults.proxy import Proxy
from tests.moto_sqs import MotoSqs, sqs_config
from tests.support import DEADLINE, eventually
from wippy_queue import Engine, Timeout, Unavailable
from wippy_queue.drivers.sqs import driver as driver_module
from wippy_queue.drivers.sqs.client import connect
from wippy_queue.ids import EntryId


@pytest.fixture
def server() -> Iterator[MotoSqs]:
    server = MotoSqs()
    yield server
    server.stop()


class Application:
    """A consumer on that server; what it handled is in `handled`."""

    def __init__(self, server: MotoSqs) -> None:
        self.handled: queue.Queue[Any] = queue.Queue()
        aws = {"region": "eu-west-1", "access_key_id": "testing", "secret_access_key": "testing-secret"}
        self.engine = Engine.from_entries(
            [
                {"name": "aws", "kind": "config.aws", **aws},
                {"name": "sqs", "kind": "queue.driver.sqs", "config": "aws", "endpoint": server.url, "wait_time": 0},
                {"name": "tasks", "kind": "queue.queue", "driver": "sqs", "queue_name": f"faults-{id(self)}"},
                {
                    "name": "worker",
                    "kind": "queue.consumer",
                    "queue": "tasks",
                    "func": "handler",
                    "lifecycle": {"auto_start": True, "restart": {"initial_delay": "50ms"}},
                },
            ]
        )
        self.work: Callable[[Any], None] = self.handled.put

        @self.engine.function("app:handler")
        def handler(body: Any) -> None:
            self.work(body)

        self.engine.start()
        self.handles("first")

    def handles(self, body: str) -> None:
        """Publish, and see it handled."""
        self.engine.publish("app:tasks", body, timeout=DEADLINE)
        deadline = time.monotonic() + DEADLINE
        while self.handled.get(timeout=max(0.1, deadline - time.monotonic())) != body:
            pass


@pytest.fixture
def application(server: MotoSqs) -> Iterator[Application]:
    application = Application(server)
    yield application
    application.engine.stop()


def within(seconds: float, call: Callable[[], object]) -> None:
    since = time.monotonic()
    call()
    assert time.monotonic() - since < seconds


def test_connections_that_end_in_the_middle_of_a_request_lose_nothing(server: MotoSqs, start: Start) -> None:
    """Before SQS has got it, and when it has done it: then only its answer is lost."""
    with Proxy.to(server.url, 80) as proxy:
        application = start({**SQS, "endpoint": proxy.url(server.url), "visibility_timeout": "1s"})
        load = application.load()
        for action, answer in (
            ("ReceiveMessage", b"ReceiptHandle"),
            ("SendMessageBatch", b"MD5OfMessageBody"),
            ("DeleteMessageBatch", b"Successful"),
        ):
            for instead_of in (None, answer):
                cut = proxy.cut(f"AmazonSQS.{action}".encode(), instead_of)
                assert cut.wait(DEADLINE), f"no {action} came"
        application.goes_on()
        application.balance(load, "sqs, cut requests")
        application.stop()


def test_consumption_resumes_when_the_endpoint_is_back(server: MotoSqs, application: Application) -> None:
    for body in ("second", "third"):
        server.stop()
        with pytest.raises(Unavailable, match=r"1 of 1 messages were not published within 0.5 s") as caught:
            within(3.0, lambda: application.engine.publish("app:tasks", "nowhere", timeout=0.5))
        assert caught.value.retryable
        assert caught.value.details["accepted"] == []
        server.start()
        application.handles(body)


def test_a_publish_that_waits_goes_on_when_the_endpoint_is_back(server: MotoSqs, application: Application) -> None:
    server.stop()
    back = threading.Timer(0.5, server.start)
    back.start()
    application.handles("patient")
    back.join()


def test_queues_that_vanished_are_made_again(server: MotoSqs, application: Application) -> None:
    """As after a restart of a server that keeps nothing, or when somebody deletes a queue; what was in it is lost."""
    server.forget()
    application.handles("second")
    application.engine.join("app:tasks", timeout=DEADLINE)


def test_a_message_in_hand_when_its_queue_vanished_is_told_as_lost(server: MotoSqs, application: Application) -> None:
    started, release = threading.Event(), threading.Event()
    lost: queue.Queue[Any] = queue.Queue()

    def work(_: Any) -> None:
        started.set()
        release.wait(DEADLINE)

    application.work = work
    application.engine.subscribe(lambda event: lost.put(event) if type(event).__name__ == "SettleLost" else None)
    application.engine.publish("app:tasks", "in hand", timeout=DEADLINE)
    assert started.wait(DEADLINE)
    server.forget()
    release.set()
    assert "not settled" in lost.get(timeout=DEADLINE).error


def test_a_deleted_queue_is_made_again_under_its_consumer(server: MotoSqs, application: Application) -> None:
    client = connect(sqs_config(server.url), "test", 1)._client
    for url in client.list_queues()["QueueUrls"]:
        client.delete_queue(QueueUrl=url)
    application.handles("second")


def test_a_publisher_keeps_its_deadline_when_nobody_answers(server: MotoSqs) -> None:
    application = Application(server)
    application.engine.join("app:tasks", timeout=DEADLINE)
    server.stop()
    hole = black_hole(server)
    with pytest.raises(Timeout, match="SQS has not answered; it may have it all the same"):
        within(3.0, lambda: application.engine.publish("app:tasks", "nowhere", timeout=0.5))
    hole.close()
    application.engine.stop()


def test_a_start_tells_that_nobody_answers(server: MotoSqs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "_WAIT", 0.5)
    server.stop()
    hole = black_hole(server)
    with pytest.raises(Unavailable, match=r"has not answered within 0.5 s"):
        driver_module.SqsDriver(EntryId("app:sqs"), sqs_config(server.url)).start()
    hole.close()


def test_the_consumer_fails_when_nothing_can_be_received_for_long(
    server: MotoSqs, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alive, but deaf, is the worst that a consumer can be."""
    monkeypatch.setattr("wippy_queue.drivers.sqs.subscription._DEAF_AFTER", 0.3)
    server.stop()
    states: list[str] = []
    application.engine.subscribe(lambda event: states.append(getattr(event, "new", "")))
    eventually(lambda: "failed" in map(str.lower, states), "the consumer has failed")
    server.start()
    application.handles("after")


def black_hole(server: MotoSqs) -> socket.socket:
    """Listen where the server was, and never answer."""
    return socket.create_server(("127.0.0.1", int(server.url.rpartition(":")[2])), backlog=64)
