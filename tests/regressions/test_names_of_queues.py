"""Two queues of one name, in two namespaces, were one: each one's handler got the messages of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import DEADLINE
from wippy_queue import ConfigurationError, Engine

AUTO = {"auto_start": True}


def application(folder: Path, driver: str) -> Path:
    """Write an application of two namespaces, each with a queue that is called jobs."""
    (folder / "_index.yaml").write_text(f"version: '1.0'\nnamespace: app\nentries:\n  - {{name: queues, {driver}}}\n")
    for namespace in ("mail", "orders"):
        (folder / namespace).mkdir()
        (folder / namespace / "_index.yaml").write_text(
            f"""
version: "1.0"
namespace: app.{namespace}
entries:
  - {{name: jobs, kind: queue.queue, driver: "app:queues"}}
  - {{name: worker, kind: queue.consumer, queue: jobs, func: handler, lifecycle: {{auto_start: true}}}}
"""
        )
    return folder


def test_in_memory_each_namespace_has_its_own(tmp_path: Path) -> None:
    seen: dict[str, list[Any]] = {"mail": [], "orders": []}
    engine = Engine.load(application(tmp_path, "kind: queue.driver.memory"))
    for namespace, bodies in seen.items():
        engine.function(f"app.{namespace}:handler")(bodies.append)
    with engine:
        engine.publish_many("app.mail:jobs", ["mail"] * 10)
        engine.publish_many("app.orders:jobs", ["order"] * 10)
        engine.join(timeout=DEADLINE)
    assert seen == {"mail": ["mail"] * 10, "orders": ["order"] * 10}


@pytest.mark.parametrize(
    "driver", ["kind: queue.driver.sqlite, file: q.db", "kind: queue.driver.redis", "kind: queue.driver.amqp"]
)
def test_where_others_see_the_name_it_has_to_be_told_apart(tmp_path: Path, driver: str) -> None:
    with pytest.raises(ConfigurationError, match="is 'jobs' on app:queues already; set another queue_name"):
        Engine.load(application(tmp_path, driver))
