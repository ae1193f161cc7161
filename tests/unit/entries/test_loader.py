"""What a correct application becomes."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.entries.samples import (
    APPLICATION,
    DRIVERS,
    MODULES,
    MemoryOptions,
    NoFields,
    QueueType,
    RabbitConfig,
    RabbitConsumer,
    RabbitQueue,
    load,
    write,
)
from wippy_queue import entries
from wippy_queue.errors import ConfigurationError, Invalid
from wippy_queue.ids import EntryId
from wippy_queue.queues import DeadLetter, RetryPolicy

HEAD = 'version: "1.0"\nnamespace: app.queue\nentries:\n'

# The blocks of spec/seed.ko.md, character for character.
SEED = """\
- name: memory_driver
  kind: queue.driver.memory
  lifecycle:
    auto_start: true
- name: tasks
  kind: queue.queue
  driver: app.queue:memory_driver
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
- name: task_handler
  kind: function.lua
  source: file://task_handler.lua
  modules:
    - json
    - logger
"""


def _id(name: str) -> EntryId:
    return EntryId.parse(name, "app.queue")


def _get(app: entries.Application, name: str) -> Any:
    return app.entries[_id(name)]


def _from_python(*declared: dict[str, Any], **options: Any) -> entries.Application:
    return entries.from_entries(
        declared, **{"namespace": "app.queue", "driver_kinds": DRIVERS, "known_modules": MODULES, **options}
    )


def test_the_seed_loads_unchanged(tmp_path: Path) -> None:
    (tmp_path / "task_handler.lua").write_text("return handler\n", encoding="utf-8")
    app = load(tmp_path, HEAD + SEED)
    assert list(app.entries) == [_id(name) for name in ("memory_driver", "tasks", "task_consumer", "task_handler")]
    consumer = _get(app, "task_consumer")
    assert (consumer.queue, consumer.func) == (_id("tasks"), _id("task_handler"))
    assert (consumer.concurrency, consumer.prefetch, consumer.auto_ack) == (4, 20, False)
    assert consumer.lifecycle.auto_start
    assert consumer.lifecycle.depends_on == (_id("tasks"),)
    handler = _get(app, "task_handler")
    assert handler.source == "return handler\n"
    assert handler.source_name == "task_handler.lua"
    assert handler.modules == ("json", "logger")
    assert not app.warnings
    assert not app.unresolved


def test_the_example_applications_load() -> None:
    for name in ("tasks", "orders"):
        assert load(Path(__file__).parents[3] / "docs" / "examples" / name).entries


def test_what_is_not_said_has_the_defaults_of_the_specification(tmp_path: Path) -> None:
    text = "- {name: d, kind: queue.driver.memory}\n- {name: q, kind: queue.queue, driver: d}\n"
    text += "- {name: c, kind: queue.consumer, queue: q, func: f}\n- {name: f, kind: function.lua, source: return f}\n"
    app = load(tmp_path, HEAD + text)
    consumer = _get(app, "c")
    assert (consumer.concurrency, consumer.prefetch, consumer.timeout) == (1, 10, None)
    assert consumer.memory_limit == 64 * 1024**2
    assert consumer.retry == RetryPolicy(
        initial_delay=0.1, max_delay=60.0, backoff_factor=2.0, jitter=0.1, max_attempts=0
    )
    lifecycle = consumer.lifecycle
    assert (lifecycle.auto_start, lifecycle.start_timeout, lifecycle.stop_timeout) == (False, 10.0, 10.0)
    assert lifecycle.stable_threshold == 5.0
    assert lifecycle.restart == entries.Restart(
        initial_delay=1.0, max_delay=90.0, backoff_factor=2.0, jitter=0.1, max_attempts=0
    )
    queue = _get(app, "q")
    assert (queue.queue_name, queue.codec, queue.dead_letter) == ("q", "json", None)
    assert queue.options == MemoryOptions()
    assert _get(app, "f").source_name == "app.queue:f"


def test_every_entry_knows_its_place_and_keeps_its_meta(tmp_path: Path) -> None:
    app = load(tmp_path, APPLICATION.replace("max_size: 10", "meta: {a: {b: [1, yes]}, env: '${env:NOT_READ}'}"))
    assert _get(app, "cache").place == entries.Place(str(tmp_path / "_index.yaml"), 51, 5)
    assert _get(app, "cache").meta == {"a": {"b": [1, "yes"]}, "env": "${env:NOT_READ}"}


def test_a_tree_of_folders_is_one_application(tmp_path: Path) -> None:
    write(tmp_path)
    more = "namespace: app.more\nentries:\n- {name: q, kind: queue.queue, driver: 'app.queue:memory'}\n"
    more += "- {name: f, kind: function.lua, source: 'file://../../handler.lua'}\n"
    write(tmp_path / "deep" / "er", more)
    app = load(tmp_path)
    assert app.entries[EntryId("app.more:q")].place.file == str(tmp_path / "deep" / "er" / "_index.yaml")
    assert "app.more:f" in app.entries


def test_a_file_that_is_reached_twice_is_read_once(tmp_path: Path) -> None:
    """So do mounted Kubernetes config maps look: the index is a link to a folder beside it."""
    file = write(tmp_path / "..2024")
    (tmp_path / "_index.yaml").symlink_to(file)
    (tmp_path / "handler.lua").symlink_to(file.parent / "handler.lua")
    app = entries.load([tmp_path, tmp_path / "_index.yaml"], driver_kinds=DRIVERS, known_modules=MODULES)
    assert len(app.entries) == 9


def test_one_file_is_an_application_too(tmp_path: Path) -> None:
    file = write(tmp_path, name="app.yml")
    assert len(entries.load([str(file)], driver_kinds=DRIVERS, known_modules=MODULES).entries) == 9


def test_load_wants_a_list_of_paths() -> None:
    wrong: Any
    for wrong in ("app", []):
        with pytest.raises(Invalid, match="expected a list with at least one folder or file"):
            entries.load(wrong, driver_kinds=DRIVERS, known_modules=MODULES)


# Fields


def test_driver_fields_are_read_by_the_annotations_of_the_drivers_class(tmp_path: Path) -> None:
    fields = "heartbeat: 1m30s\n    frame_size: 64KiB\n    channel_max: 2\n    password: x\n"
    fields += "    tls: {enabled: true, ca: file}\n    labels: {a: 1, b: [x]}\n"
    app = load(tmp_path, APPLICATION.replace("url: amqp://localhost/\n", f"url: amqp://h/\n    {fields}"))
    config = _get(app, "rabbit").config
    assert isinstance(config, RabbitConfig)
    assert (config.heartbeat, config.frame_size, config.channel_max, config.password) == (90.0, 65536, 2, "x")
    assert (config.tls.enabled, config.tls.ca, config.labels) == (True, "file", {"a": 1, "b": ["x"]})
    assert _get(app, "rabbit").kind is DRIVERS["queue.driver.amqp"]


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10),
        ("1h30m", 5400),
        ("3", 3),
        ("0.25", 0.25),
        ("1.5s", 1.5),
        ("250us", 0.00025),
        ("~", None),
    ],
)
def test_durations(written: str, seconds: float | None) -> None:
    app = _from_python(
        {"name": "d", "kind": "queue.driver.memory"},
        {"name": "q", "kind": "queue.queue", "driver": "d"},
        overrides={"app.queue:q": {"options.message_ttl": None if written == "~" else written}},
    )
    assert _get(app, "q").options.message_ttl == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("written", "size"),
    [("64MiB", 2**26), ("1 kB", None), ("100kB", 10**5), ("1.5GiB", 3 * 2**29), ("1048576", 2**20), (2**20, 2**20)],
)
def test_sizes(written: Any, size: int | None, tmp_path: Path) -> None:
    text = APPLICATION.replace("concurrency: 4", f"memory_limit: {written}")
    if size is None:
        with pytest.raises(ConfigurationError, match="must be 65536 bytes or more"):
            load(tmp_path, text)
    else:
        assert _get(load(tmp_path, text), "worker").memory_limit == size


@pytest.mark.parametrize(
    ("written", "codec"),
    [("json/plain", "json"), ("json", "json"), ("application/msgpack", "msgpack"), ("msgpack", "msgpack")],
)
def test_codecs(written: str, codec: str, tmp_path: Path) -> None:
    app = load(tmp_path, APPLICATION.replace("driver: memory", f"driver: memory\n    codec: {written}"))
    assert _get(app, "tasks").codec == codec


def test_yes_and_no_are_booleans_only_where_a_boolean_is_due(tmp_path: Path) -> None:
    text = APPLICATION.replace("concurrency: 4", "auto_ack: yes").replace("name: failed", "name: no")
    app = load(tmp_path, text.replace("queue: failed", "queue: no"))
    assert _get(app, "worker").auto_ack is True
    assert _get(app, "tasks").dead_letter == DeadLetter(queue=_id("no"), max_attempts=3)


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    text = APPLICATION.replace("lifecycle:\n      auto_start: true\n", "lifecycle: &life\n      auto_start: true\n", 1)
    text += "    lifecycle: *life\n  - <<: {kind: store.memory, max_size: 3}\n    name: other\n    max_size: 4\n"
    app = load(tmp_path, text, overrides={"app.queue:cache": {"lifecycle.auto_start": False}})
    assert _get(app, "other").max_size == 4
    assert not _get(app, "cache").lifecycle.auto_start
    assert _get(app, "memory").lifecycle.auto_start, "an override of one entry must not change the anchor of another"


def test_null_is_the_same_as_not_written(tmp_path: Path) -> None:
    app = load(tmp_path, APPLICATION.replace("concurrency: 4", "concurrency:\n    options: ~\n    driver_options:"))
    assert _get(app, "worker").concurrency == 1


# Options


def test_only_the_bound_drivers_options_are_read(tmp_path: Path) -> None:
    text = APPLICATION.replace("durable: true", "queue_type: quorum\n      redis: {anything: goes}")
    app = load(tmp_path, text)
    assert _get(app, "tasks").options == MemoryOptions(max_length=100)
    assert _get(app, "failed").options == RabbitQueue(queue_type=QueueType.QUORUM)
    moved = load(tmp_path, text, overrides={"app.queue:failed": {"driver": "memory"}})
    assert _get(moved, "failed").options == MemoryOptions(max_length=5)


def test_consumer_options_are_those_of_its_queues_driver(tmp_path: Path) -> None:
    text = APPLICATION.replace("queue: tasks", "queue: failed\n    options: {exclusive: true}")
    text = text.replace("concurrency: 4", "driver_options: {amqp: {consumer_tag: w}}")
    assert _get(load(tmp_path, text), "worker").options == RabbitConsumer(consumer_tag="w", exclusive=True)
    assert _get(load(tmp_path, APPLICATION), "worker").options == NoFields()


def test_a_consumers_retry_overrides_its_queues_field_by_field(tmp_path: Path) -> None:
    text = APPLICATION.replace("concurrency: 4", "retry: {max_delay: 2m, jitter: 0}")
    app = load(tmp_path, text)
    assert _get(app, "tasks").retry == RetryPolicy(initial_delay=0.1)
    assert _get(app, "worker").retry == RetryPolicy(initial_delay=0.1, max_delay=120.0, jitter=0.0)


def test_a_python_function_has_no_memory_limit(tmp_path: Path) -> None:
    assert _get(load(tmp_path, APPLICATION.replace("func: handler", "func: resize")), "worker").memory_limit is None


def test_a_queue_without_dead_letter_may_limit_its_attempts(tmp_path: Path) -> None:
    text = APPLICATION.replace("    dead_letter:\n      queue: failed\n", "").replace(
        "initial_delay: 100ms", "max_attempts: 5"
    )
    app = load(tmp_path, text)
    assert _get(app, "worker").retry.max_attempts == 5


# Links


def test_dependencies_are_services_alone(tmp_path: Path) -> None:
    text = APPLICATION.replace("- app.queue:tasks", "- app.queue:tasks\n      requires: [cache, cache, rabbit]")
    assert entries.dependencies(load(tmp_path, text)) == {
        "app.queue:memory": (),
        "app.queue:rabbit": (),
        "app.queue:worker": ("app.queue:memory", "app.queue:rabbit", "app.queue:cache"),
        "app.queue:cache": (),
    }


def test_a_cycle_is_printed(tmp_path: Path) -> None:
    text = APPLICATION.replace("max_size: 10", "lifecycle: {depends_on: [worker]}")
    text = text.replace("    lifecycle:\n      auto_start: true\n", "    lifecycle: {requires: [cache]}\n", 1)
    message = r"a cycle, app\.queue:cache -> app\.queue:worker -> app\.queue:memory -> app\.queue:cache"
    with pytest.raises(ConfigurationError, match=message) as caught:
        load(tmp_path, text)
    assert [problem.entry for problem in caught.value.problems] == ["app.queue:cache"]


def test_every_cycle_is_printed() -> None:
    pairs = [("a", "b"), ("b", "a"), ("c", "d"), ("d", "c"), ("e", "a")]
    with pytest.raises(ConfigurationError) as caught:
        _from_python(
            *({"name": one, "kind": "store.memory", "lifecycle": {"depends_on": [other]}} for one, other in pairs)
        )
    assert [problem.entry for problem in caught.value.problems] == ["app.queue:a", "app.queue:c"]


def test_a_long_chain_of_services_needs_no_deep_recursion() -> None:
    chain: list[dict[str, Any]] = [
        {"name": f"s{n}", "kind": "store.memory", "lifecycle": {"depends_on": [f"s{n + 1}"]}} for n in range(3000)
    ]
    app = _from_python(*chain, {"name": "s3000", "kind": "store.memory"})
    assert len(entries.dependencies(app)) == 3001


def test_libraries_that_need_each_other_are_a_cycle() -> None:
    libraries: list[dict[str, Any]] = [
        {"name": "a", "kind": "library.lua", "source": "return 1", "imports": {"b": "b"}},
        {"name": "b", "kind": "library.lua", "source": "return 1", "imports": ["a"]},
    ]
    with pytest.raises(ConfigurationError, match=r"app\.queue:a -> app\.queue:b -> app\.queue:a: these libraries"):
        _from_python(*libraries)


def test_imports_may_be_a_list_or_a_mapping(tmp_path: Path) -> None:
    for written in (
        "imports:\n      helpers: app.queue:helpers",
        "imports: [helpers]",
        "imports:\n      - app.queue:helpers",
    ):
        app = load(tmp_path, APPLICATION.replace("imports:\n      helpers: app.queue:helpers", written))
        assert _get(app, "handler").imports == {"helpers": "app.queue:helpers"}


def test_names_that_python_may_still_register_are_left_to_the_engine(tmp_path: Path) -> None:
    text = APPLICATION.replace("- json\n", "- jason\n").replace("func: handler", "func: handle")
    app = load(tmp_path, text)
    function, module = sorted(app.unresolved, key=lambda item: item.what)
    assert (function.name, function.entry, function.path) == ("app.queue:handle", "app.queue:worker", "func")
    assert function.suggestion == "; did you mean 'app.queue:handler'?"
    assert function.place.line == text[: text.index("func: handle")].count("\n") + 1
    assert (module.name, module.entry, module.path) == ("jason", "app.queue:handler", "modules[0]")
    assert module.suggestion == "; did you mean 'json'?"
    assert load(tmp_path, text, python_names={"jason", "app.queue:handle"}).unresolved == ()


# What exists in Wippy and not here

WIPPY = """\
  - name: gateway
    kind: http.service
    addr: ":8080"
  - name: page
    kind: function.wasm
    source: file://page.wasm
  - name: page_consumer
    kind: queue.consumer
    queue: tasks
    func: page
    lifecycle: {depends_on: [gateway]}
  - name: bus
    kind: queue.driver.sqs
  - name: events
    kind: queue.queue
    driver: bus
  - name: event_consumer
    kind: queue.consumer
    queue: events
    func: handler
"""


def test_skip_unsupported_leaves_out_what_is_not_here_and_what_needs_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = APPLICATION.replace("- json", "- http\n      - json").replace(
        "- app.queue:tasks", "- tasks\n        - gateway"
    )
    text = text.replace("imports:", "pool: {size: 4}\n    imports:") + WIPPY
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert len(caught.value.problems) == 5, str(caught.value)
    with caplog.at_level(logging.WARNING, logger="wippy_queue.entries"):
        app = load(tmp_path, text, skip_unsupported=True)
    assert len(app.entries) == 9
    assert _get(app, "handler").modules == ("json", "logger")
    assert _get(app, "worker").lifecycle.depends_on == (_id("tasks"),)
    told = {(warning.entry, warning.path) for warning in app.warnings}
    assert told == {
        ("app.queue:gateway", "kind"),
        ("app.queue:page", "kind"),
        ("app.queue:bus", "kind"),
        ("app.queue:page_consumer", "func"),
        ("app.queue:events", "driver"),
        ("app.queue:event_consumer", "queue"),
        ("app.queue:worker", "lifecycle.depends_on[1]"),
        ("app.queue:handler", "modules[0]"),
        ("app.queue:handler", "pool"),
    }
    assert len(app.warnings) == len(told), "one warning each"
    assert [record.getMessage() for record in caplog.records] == [str(warning) for warning in app.warnings]


def test_skip_unsupported_drops_a_dead_letter_queue_that_is_left_out(tmp_path: Path) -> None:
    app = load(tmp_path, APPLICATION.replace("queue: failed", "queue: events") + WIPPY, skip_unsupported=True)
    assert _get(app, "tasks").dead_letter is None
    assert ("app.queue:tasks", "dead_letter.queue") in {(warning.entry, warning.path) for warning in app.warnings}


def test_lifting_a_mark_is_all_that_a_kind_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wippy_queue.entries.links.NOT_YET_KINDS", frozenset())
    monkeypatch.setattr("wippy_queue.entries.build.NOT_YET_FIELDS", {})
    monkeypatch.setenv("REAL_NAME", "7")
    text = APPLICATION.replace("concurrency: 4", "concurrency: ${env:SIZE}").replace(
        "auto_start: true\n      depends_on",
        "security: {actor: {id: w, meta: {role: admin}}, policies: [allow]}\n      depends_on",
    )
    text += """\
  - {name: os, kind: env.storage.os}
  - {name: SIZE, kind: env.variable, storage: os, variable: REAL_NAME, default: "2"}
  - name: allow
    kind: security.policy
    policy:
      actions: [queue.publish]
      resources: ["*"]
      effect: allow
      conditions: [{field: actor.id, operator: eq, value: w}]
  - {name: aws, kind: config.aws, access_key_id: eu, secret_access_key: "${env:app.queue:SIZE}"}
"""
    app = load(tmp_path, text)
    assert _get(app, "worker").concurrency == 7
    assert _get(app, "worker").lifecycle.security.policies == (_id("allow"),)
    assert _get(app, "allow").policy.conditions[0].value == "w"
    assert _get(app, "aws").secret_access_key == "7"
    assert "7'" not in repr(_get(app, "aws"))
    assert _get(app, "os").kind == "env.storage.os"


# Overrides and Python


def test_overrides_are_applied_before_anything_is_checked(tmp_path: Path) -> None:
    app = load(
        tmp_path,
        overrides={
            "app.queue:memory": {"kind": "queue.driver.amqp", "url": "amqps://h/"},
            "app.queue:tasks": {"options": None, "queue_name": "jobs"},
            "app.queue:worker": {"concurrency": "8", "auto_ack": "true", "lifecycle.stop_timeout": "3"},
        },
        text=APPLICATION,
    )
    assert _get(app, "memory").config.url == "amqps://h/"
    worker = _get(app, "worker")
    assert (worker.concurrency, worker.auto_ack, worker.lifecycle.stop_timeout) == (8, True, 3.0)
    assert worker.lifecycle.depends_on == (_id("tasks"),)
    assert _get(app, "tasks").queue_name == "jobs"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"app.queue:task": {"driver": "x"}},
            "<overrides>: app.queue:task: there is no entry app.queue:task; did you mean",
        ),
        ({"app.queue:tasks": {"drivr": "x"}}, "unknown field 'drivr'; did you mean 'driver'?"),
        (
            {"app.queue:worker": {"concurrency": "many"}},
            "<overrides>: app.queue:worker concurrency: expected a whole number",
        ),
        ({"app.queue:worker": {"name": "x"}}, "the name of an entry cannot be overridden"),
        ({"app.queue:worker": {"": "x"}}, "expected a field like driver or lifecycle.auto_start"),
        ({"app.queue:worker": 5}, "expected a mapping of fields, found the number 5"),
        ({"app.queue:worker": {1: 5}}, "expected text as a key, found 1"),
    ],
)
def test_a_wrong_override_is_a_problem(overrides: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, APPLICATION, overrides=overrides)
    assert message in str(caught.value)


def test_entries_may_be_declared_in_python(tmp_path: Path) -> None:
    (tmp_path / "h.lua").write_text("return 1", encoding="utf-8")
    app = _from_python(
        {"name": "d", "kind": "queue.driver.amqp", "url": "amqp://h/", "labels": {"a": (1, 2)}},
        {"name": "q", "kind": "queue.queue", "driver": "d", "options": {"queue_type": QueueType.QUORUM}},
        {"name": "c", "kind": "queue.consumer", "queue": "q", "func": "f", "timeout": 1.5},
        {"name": "f", "kind": "function.lua", "source": "file://h.lua"},
        base_dir=tmp_path,
    )
    assert _get(app, "c").timeout == 1.5
    assert _get(app, "q").options == RabbitQueue(queue_type=QueueType.QUORUM)
    assert _get(app, "f").source == "return 1"
    assert _get(app, "d").place == entries.Place()


def test_mistakes_in_python_entries_name_the_entry_and_its_index() -> None:
    loop: dict[str, Any] = {}
    loop["a"] = loop
    declared: list[Any] = [
        {"name": "d", "kind": "queue.driver.memory", "lifecycle": {"depends_on": timedelta(seconds=1)}},
        {"kind": "queue.queue"},
        "text",
        {"name": "l", "kind": "store.memory", "meta": loop},
        {"name": "q", "kind": "queue.queue", "driver": "d", 5: 6},
    ]
    with pytest.raises(ConfigurationError) as caught:
        _from_python(*declared)
    assert [str(problem) for problem in caught.value.problems] == [
        "entries[1].name: the field 'name' is required",
        "entries[2]: expected a mapping with name and kind, found 'text'",
        "entries[3]: nested deeper than 64 levels",
        "entries[4]: expected text as a key, found 5",
        "app.queue:d entries[0].lifecycle.depends_on: expected a list, found a Python timedelta",
    ]


def test_a_wrong_namespace_in_python_is_a_problem() -> None:
    with pytest.raises(ConfigurationError, match="expected a namespace like app.queue, found 'a b'"):
        _from_python({"name": "d", "kind": "queue.driver.memory"}, namespace="a b")
