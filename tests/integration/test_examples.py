"""The example applications are what the seed says, and run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import wippy_queue.cli

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

# Character for character from the text that the product implements.
SEED_YAML = (
    """\
- name: memory_driver
  kind: queue.driver.memory
  lifecycle:
    auto_start: true
""",
    """\
- name: tasks
  kind: queue.queue
  driver: app.queue:memory_driver
""",
    """\
- name: task_consumer
  kind: queue.consumer
  queue: app.queue:tasks
  func: app.queue:task_handler
  concurrency: 4
  prefetch: 20
  lifecycle:
    auto_start: true
    depends_on:
      - app.queue:tasks
""",
    """\
- name: task_handler
  kind: function.lua
  source: file://task_handler.lua
  modules:
    - json
    - logger
""",
)
SEED_HANDLER = """\
local json = require("json")
local logger = require("logger")

local function handler(body)
    local data = json.decode(body)

    logger.info("Processing", {task_id = data.id})

    local result, err = process_task(data)
    if err then
        return nil, err  -- Nack: 메시지 재큐잉
    end

    return result  -- Ack: 큐에서 제거
end

return handler
"""


def test_the_tasks_application_holds_the_seeds_entries_word_for_word() -> None:
    text = (EXAMPLES / "tasks" / "_index.yaml").read_text(encoding="utf-8")
    assert [block for block in SEED_YAML if block not in text] == []


def test_the_tasks_handler_is_the_seeds_with_one_line_in_front() -> None:
    text = (EXAMPLES / "tasks" / "task_handler.lua").read_text(encoding="utf-8")
    assert text == 'local process_task = require("process_task")\n' + SEED_HANDLER


def test_the_demo_runs_the_tasks_application_as_it_is() -> None:
    demo_app = Path(wippy_queue.cli.__file__).parent / "demo_app"
    example = {
        path.name: path.read_bytes() for path in (EXAMPLES / "tasks").iterdir() if path.suffix in {".yaml", ".lua"}
    }
    assert {path.name: path.read_bytes() for path in demo_app.iterdir()} == example


def test_the_shop_takes_good_orders_refuses_the_bad_one_and_sends_its_mails() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "orders" / "main.py")], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("39 mails sent, the first: customer-01@example.com: Order order-01: Thank you.")
    (refused,) = (line for line in done.stderr.splitlines() if "order refused" in line)
    assert "order=order-40" in refused
    assert "reason=not_retryable" in refused
