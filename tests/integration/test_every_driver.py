"""The example applications on every driver: the driver's entry is changed, and nothing else."""

from __future__ import annotations

import importlib.util
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import eventually
from wippy_queue import Engine

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PATIENCE = 60.0

Overrides = dict[str, dict[str, Any]]


@pytest.fixture
def unique() -> str:
    return f"examples-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def memory() -> dict[str, Any]:
    return {"kind": "queue.driver.memory"}


@pytest.fixture
def sqlite(tmp_path: Path) -> dict[str, Any]:
    return {"kind": "queue.driver.sqlite", "file": str(tmp_path / "queues.db")}


@pytest.fixture
def amqp(amqp_url: str) -> dict[str, Any]:
    return {"kind": "queue.driver.amqp", "url": amqp_url, "default_queue_expiry": "5m"}


@pytest.fixture
def redis(redis_url: str, unique: str) -> Iterator[dict[str, Any]]:
    from redis import Redis

    yield {"kind": "queue.driver.redis", "url": redis_url, "key_prefix": f"{unique}:"}
    client = Redis.from_url(redis_url)
    for key in client.scan_iter(f"{unique}:*"):
        client.delete(key)
    client.close()


@pytest.fixture
def sqs(sqs_endpoint: str) -> dict[str, Any]:
    return {"kind": "queue.driver.sqs", "config": "aws", "endpoint": sqs_endpoint, "wait_time": "1s"}


@pytest.fixture(params=["memory", "sqlite", "amqp", "redis", "sqs"])
def driver(request: pytest.FixtureRequest) -> Mapping[str, Any]:
    found: Mapping[str, Any] = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def load(driver: Mapping[str, Any], unique: str, tmp_path: Path) -> Callable[..., Engine]:
    """Load an example with its driver replaced; the names of its queues keep it apart from other tests' on a server."""

    def load(example: str, driver_id: str, *queues: str) -> Engine:
        overrides: Overrides = {driver_id: dict(driver)}
        for queue in queues:
            overrides[queue] = {"queue_name": f"{unique}-{queue.partition(':')[2]}"}
        folders = [EXAMPLES / example]
        if driver["kind"] == "queue.driver.sqs":
            namespace = driver_id.partition(":")[0]
            aws = tmp_path / "aws.yaml"
            aws.write_text(
                f"version: '1.0'\nnamespace: {namespace}\nentries:\n- name: aws\n  kind: config.aws\n"
                "  region: us-east-1\n  access_key_id: test\n  secret_access_key: test\n",
                encoding="utf-8",
            )
            folders.append(aws)
        return Engine.load(*folders, overrides=overrides)

    return load


def test_the_tasks_are_processed(load: Callable[..., Engine], caplog: pytest.LogCaptureFixture) -> None:
    engine = load("tasks", "app.queue:memory_driver", "app.queue:tasks")
    caplog.set_level(logging.INFO, "wippy_queue.app")
    with engine:
        engine.publish("app.queue:tasks", {"id": "task-123", "action": "process", "data": "an invoice"})
        engine.publish("app.queue:tasks", {"id": "task-124", "action": "fail_once", "data": "a letter"})
        engine.join("app.queue:tasks", timeout=PATIENCE)
    done = {record.__dict__["fields"]["task_id"] for record in caplog.records if record.getMessage() == "Done"}
    assert done == {"task-123", "task-124"}


def test_the_shop_takes_good_orders_and_refuses_the_bad_one(load: Callable[..., Engine]) -> None:
    spec = importlib.util.spec_from_file_location("shop", EXAMPLES / "orders" / "main.py")
    assert spec is not None
    assert spec.loader is not None
    shop = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shop)
    server = shop.MailServer()
    engine = load("orders", "shop:broker", "shop:orders", "shop:mails", "shop:refused")
    engine.module("mail", {"send": server.send})
    with engine:
        engine.publish_many("shop:orders", [shop.order(number) for number in range(1, 10)])
        engine.publish("shop:orders", shop.order(10, cents="free"))
        eventually(lambda: len(server.sent) >= 9, "nine mails are sent")
        engine.join("shop:orders", "shop:mails", "shop:refused", timeout=PATIENCE)
        assert engine.counters("shop:orders")["dead_lettered"] == 1
    assert len(server.sent) == 9
