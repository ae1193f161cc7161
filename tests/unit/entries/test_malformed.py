"""A hundred ways to write an application wrong: each is told in one line, with its place and its cure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.entries.samples import APPLICATION, DRIVERS, MODULES, load, write
from wippy_queue import entries
from wippy_queue.errors import ConfigurationError, Problem

# What is replaced, by what, and what the error says; § stands where the error must point.
CASES = [
    # the file
    ('version: "1.0"', 'version: §"2.0"', "expected the version \"1.0\", found '2.0'"),
    ('version: "1.0"', "version: §[1]", "found a list"),
    ('version: "1.0"', "§verzion: 1.0", "unknown field 'verzion'; did you mean 'version'?"),
    ('version: "1.0"', "§colour: red", "known are version, namespace, entries, meta"),
    ("namespace: app.queue\n", "", "the field 'namespace' is required"),
    ("namespace: app.queue", "namespace: §app queue", "expected a namespace like app.queue, found 'app queue'"),
    ("namespace: app.queue", "namespace: §7", "found the number 7"),
    ("namespace: app.queue", "namespace: §a:b", "expected a namespace"),
    ("namespace: app.queue", "namespace:§", "found nothing"),
    ("entries:", "§entrys:", "did you mean 'entries'?"),
    ("entries:\n", "entries:\n  §queue:\n", "expected a list of entries, found a mapping"),
    # names and kinds
    ("name: tasks", "name: §my tasks", "expected a name of letters"),
    ("name: tasks", "name: §12", "found the number 12"),
    ("name: tasks", "name: §app.queue:tasks", "expected a name"),
    ("name: tasks\n", "§nam: tasks\n", "the field 'name' is required"),
    ("name: failed", "name: memory", "there is an entry of this id already at"),
    ("kind: queue.queue", "kind: §queue.queu", "unknown kind 'queue.queu'; did you mean 'queue.queue'?"),
    ("kind: queue.queue", "kind: §Queue", "unknown kind 'Queue'"),
    ("kind: queue.queue", "kind: §[a]", "expected text, found a list"),
    ("    kind: store.memory\n", "", "the field 'kind' is required"),
    ("kind: store.memory", "kind: §http.service", "exists in Wippy but not here; remove it, or load with skip_unsupp"),
    ("kind: store.memory", "kind: §process.lua", "exists in Wippy but not here"),
    ("kind: store.memory", "kind: §db.sql.sqlite", "exists in Wippy but not here"),
    ("kind: store.memory", "kind: §queue.driver.redis", "not supported yet"),
    # fields
    ("concurrency: 4", "§concurency: 4", "unknown field 'concurency'; did you mean 'concurrency'?"),
    ("concurrency: 4", "§zzz: 4", "known are lifecycle, queue, func"),
    ("concurrency: 4", "concurrency: §0", "must be from 1 to 1000, found the number 0"),
    ("concurrency: 4", "concurrency: §1001", "must be from 1 to 1000"),
    ("concurrency: 4", "concurrency: §true", "expected a whole number, found the boolean true"),
    ("concurrency: 4", "concurrency: §4.5", "expected a whole number, found the number 4.5"),
    ("concurrency: 4", 'concurrency: §"4"', "expected a whole number, found '4'"),
    ("concurrency: 4", "concurrency: §[4]", "expected a whole number, found a list"),
    ("concurrency: 4", "concurrency: §{a: 4}", "expected a whole number, found a mapping"),
    ("concurrency: 4", "concurrency: §99999999999999999999999", "it must fit into 64 bits"),
    ("concurrency: 4", "prefetch: §0", "must be from 1 to 10000"),
    ("concurrency: 4", "prefetch: §10001", "must be from 1 to 10000"),
    ("concurrency: 4", "prefetch: §.inf", "expected a whole number"),
    ("concurrency: 4", "auto_ack: §1", "expected true or false, found the number 1"),
    ("concurrency: 4", "auto_ack: §maybe", "expected true or false, found 'maybe'"),
    ("concurrency: 4", "timeout: §10 seconds", "units are ns, us, ms, s, m and h"),
    ("concurrency: 4", "timeout: §1d", "units are ns, us, ms, s, m and h"),
    ("concurrency: 4", "timeout: §-1s", "it must not be negative"),
    ("concurrency: 4", "timeout: §-1", "it must not be negative"),
    ("concurrency: 4", "timeout: §.nan", "expected a duration like 500ms, 10s or 1h30m, or a number of seconds"),
    ("concurrency: 4", "timeout: §0", "must be from 0.001s"),
    ("concurrency: 4", "timeout: §1e300", "must be from 0.001s to 1000000000s"),
    ("concurrency: 4", 'timeout: §"10"', "leave the quotes out for seconds, or add a unit"),
    ("concurrency: 4", "timeout: §yes", "expected a duration"),
    ("concurrency: 4", "memory_limit: §64 parsecs", "units are B, KiB, MiB, GiB, kB, MB and GB"),
    ("concurrency: 4", "memory_limit: §1", "bytes or more, found the number 1"),
    ("concurrency: 4", "retry: §3", "expected a mapping of fields, found the number 3"),
    ("concurrency: 4", "retry: {§backof_factor: 2}", "did you mean 'backoff_factor'?"),
    ("concurrency: 4", "retry: {backoff_factor: §0.5}", "must be >= 1.0, found the number 0.5"),
    ("concurrency: 4", "retry: {jitter: §2}", "must be <= 1.0, found the number 2"),
    ("concurrency: 4", "retry: {max_attempts: §-1}", "must be 0 or more"),
    ("concurrency: 4", "retry: §{initial_delay: 2m}", "initial_delay is longer than max_delay"),
    ("concurrency: 4", "retry: {max_attempts: §4}", "the queue has dead_letter, whose max_attempts decides"),
    ("concurrency: 4", "meta: §text", "expected a mapping, found 'text'"),
    ("auto_start: true\n      depends_on", "§auto_strat: true\n      depends_on", "did you mean 'auto_start'?"),
    ("      depends_on:\n        - app.queue:tasks\n", "      depends_on: §tasks\n", "found 'tasks'; write [tasks]"),
    ("- app.queue:tasks", "- §app.queue:task", "there is no entry app.queue:task; did you mean 'app.queue:tasks'?"),
    ("- app.queue:tasks", "- §not an id", "expected the id of an entry, like app.queue:tasks, found 'not an id'"),
    ("- app.queue:tasks", "- §7", "expected text, found the number 7; put it in quotes"),
    ("- app.queue:tasks", "- worker", "a cycle, app.queue:worker -> app.queue:worker"),
    ("concurrency: 4\n    lifecycle:\n", "lifecycle:\n      restart: {max_delay: §soon}\n", "expected a duration"),
    ("concurrency: 4\n    lifecycle:\n", "lifecycle:\n      restart: §{initial_delay: 2h}\n", "longer than max_delay"),
    # references
    ("    queue: tasks\n", "", "the field 'queue' is required"),
    ("queue: tasks", "§queue:", "the field 'queue' is required"),
    ("queue: tasks", "queue: §taks", "there is no entry app.queue:taks; did you mean 'app.queue:tasks'?"),
    ("queue: tasks", "queue: §app:tasks", "there is no entry app:tasks; did you mean 'app.queue:tasks'?"),
    ("queue: tasks", "queue: §memory", "expected the id of a queue.queue, but app.queue:memory is a queue.driver"),
    ("driver: memory", "driver: §failed", "expected the id of a queue.driver.*, but app.queue:failed is a queue.queue"),
    ("func: handler", "func: §helpers", "expected the id of a function.lua or function.python"),
    ("queue: failed", "queue: §tasks", "a queue cannot be its own dead-letter queue"),
    ("queue: failed", "queue: §gone", "there is no entry app.queue:gone"),
    ("queue: failed", "queue: failed\n      max_attempts: §0", "must be 1 or more"),
    ("initial_delay: 100ms", "max_attempts: §5", "the queue has dead_letter"),
    ("helpers: app.queue:helpers", "helpers: §app.queue:handler", "expected the id of a library.lua"),
    ("helpers: app.queue:helpers", "§json: helpers", "'json' is under `modules:` too"),
    ("imports:\n      helpers: app.queue:helpers", "imports: §helpers", "expected a mapping of aliases to ids"),
    ("- json\n", "- §http\n", "the module 'http' exists in Wippy but not here"),
    ("- json\n", "- §\n", "expected text, found nothing"),
    ("func: handler", "func: resize\n    §memory_limit: 1MiB", "memory_limit is for Lua functions"),
    # options
    ("max_length: 100", "§max_lenght: 100", "driver has no queue option 'max_lenght'; it has max_length, overflow"),
    ("max_length: 100", "max_length: §-1", "must be 0 or more, found the number -1"),
    ("max_length: 100", "overflow: §drop", "expected one of block, reject, drop_oldest, found 'drop'"),
    ("max_length: 100", "§durable: true", "the memory driver has no queue option 'durable'"),
    ("max_length: 100", "§queue_name: a", "'queue_name' is a field of the queue itself"),
    ("options:\n      max_length: 100", "options: §[a]", "expected a mapping of options, found a list"),
    ("concurrency: 4", "options: {§consumer_tag: a}", "driver has no consumer option 'consumer_tag'; it has none"),
    ("amqp:\n        durable: true", "§amqb:\n        durable: true", "unknown driver 'amqb'; did you mean 'amqp'?"),
    ("amqp:\n        durable: true", "amqp: §5", "expected a mapping of options, found the number 5"),
    ("memory:\n        max_length: 5", "memory: §5", "expected a mapping of options, found the number 5"),
    ("durable: true", "queue_type: §quorm", "did you mean 'quorum'?"),
    ("durable: true", "bindings: [a, §1]", "expected text, found the number 1; put it in quotes"),
    ("driver_options:\n", "options: {durable: true}\n    driver_options:\n", "stands in options.durable already"),
    # drivers
    ("    url: amqp://localhost/\n", "", "the field 'url' is required"),
    ("url: amqp://localhost/", "url: §http://x/", "must match regex"),
    ("url: amqp://localhost/", "url: amqp://h/\n    heartbeat: §1ms", "must be from 1s to 3600s, found '1ms'"),
    ("url: amqp://localhost/", "url: amqp://h/\n    tls: {enabled: §2}", "expected true or false"),
    ("url: amqp://localhost/", "url: amqp://h/\n    channel_max: §9", "must be in (0, 1, 2), found the number 9"),
    ("url: amqp://localhost/", "url: amqp://h/\n    reconnect_delay: 60", "must not be longer than reconnect_max"),
    ("url: amqp://localhost/", "url: amqp://h/\n    §heartbeet: 1", "did you mean 'heartbeat'?"),
    # sources
    ("file://handler.lua", "§file://handlr.lua", "there is no such file; did you mean 'handler.lua'?"),
    ("file://handler.lua", "§file://../handler.lua", "lies outside the application's folder"),
    ("file://handler.lua", "§file:///etc/passwd", "lies outside the application's folder"),
    ("file://handler.lua", "§file://.", "expected a file, found a folder"),
    ("file://handler.lua", "§handler.lua", "did you mean 'file://handler.lua'?"),
    ("file://handler.lua", '§""', "the source is empty"),
    ("file://handler.lua", "§42", "expected text, found the number 42"),
    ("images.tools:resize", "§images.tools.resize", "must be like package.module:callable"),
    # the environment
    ("concurrency: 4", "concurrency: §${env:NO_SUCH_VARIABLE}", "the environment variable NO_SUCH_VARIABLE is not set"),
    ("concurrency: 4", "concurrency: §${env:}", "names no variable"),
    ("concurrency: 4", "concurrency: §${env:X", "is not closed"),
    ("concurrency: 4", "concurrency: §${env:NO_SUCH|many}", "expected a whole number, found '${env:NO_SUCH|many}'"),
    # YAML
    ("concurrency: 4", "concurrency: 4\n    §concurrency: 5", "stands here twice, first in line 32"),
    ("concurrency: 4", "§7: 4", "expected text as a key, found 7; put it in quotes"),
    ("concurrency: 4", "? §[a, b]\n    : 1", "expected plain text as a key"),
    ("concurrency: 4", "concurrency:§\t4\n\tx: 1", "YAML"),
    ("    concurrency: 4", "§\tconcurrency: 4", "YAML allows no tab here; indent with spaces"),
    ("concurrency: 4", "concurrency: a§: b", "needs quotes"),
    ("concurrency: 4", "concurrency: §@4", "needs quotes"),
    ("concurrency: 4", "meta: §*nothing", "there is no anchor &nothing above"),
    ("concurrency: 4", "meta: &a {b: §*a}", "stands inside what it stands for"),
    ("concurrency: 4", "meta: {a: §!!python/object/apply:os.system [ls]}", "leave it out"),
    ("concurrency: 4", "meta: §!custom {a: 1}", "the tag !custom has no meaning here"),
    ("concurrency: 4", "<<: §5", "takes a mapping"),
]  # fmt: skip


def _case_id(case: tuple[str, str, str]) -> str:
    return case[1].strip().replace("§", "").replace("\n", " ")[:40] or f"without {case[0].strip()}"


def _problems(folder: Path, text: str | bytes) -> tuple[Problem, ...]:
    write(folder, text)
    with pytest.raises(ConfigurationError) as caught:
        load(folder)
    return caught.value.problems


def test_there_are_more_than_a_hundred_cases() -> None:
    assert len(CASES) > 100


@pytest.mark.parametrize("case", CASES, ids=_case_id)
def test_a_mistake_is_told_with_its_place_and_its_cure(case: tuple[str, str, str], tmp_path: Path) -> None:
    old, new, message = case
    assert old in APPLICATION
    text = APPLICATION.replace(old, new, 1)
    problems = _problems(tmp_path, text.replace("§", ""))
    told = [problem for problem in problems if message in problem.message]
    assert told, "\n".join(map(str, problems))
    assert told[0].file == str(tmp_path / "_index.yaml")
    assert told[0].line
    assert told[0].column
    if "§" in text and "YAML" not in told[0].message:
        before = text[: text.index("§")]
        assert told[0].line == before.count("\n") + 1
    if "§" in text and not told[0].message.startswith(("the field", "YAML")):
        column = len(text[: text.index("§")].rpartition("\n")[2]) + 1
        assert told[0].column == column or "found nothing" in told[0].message


@pytest.mark.parametrize("case", CASES, ids=_case_id)
def test_one_mistake_is_one_problem(case: tuple[str, str, str], tmp_path: Path) -> None:
    """A mistake does not drag others behind it, but where an entry vanishes with its name."""
    problems = _problems(tmp_path, APPLICATION.replace(case[0], case[1], 1).replace("§", ""))
    vanishes = any(word in case[1] for word in ("nam", "entrys")) or case[2] == "takes a mapping"
    assert len(problems) == 1 or vanishes or "namespace" in case[0], "\n".join(map(str, problems))


def _problems_if_any(folder: Path, text: str) -> tuple[Problem, ...]:
    write(folder, text)
    try:
        load(folder)
    except ConfigurationError as error:
        return error.problems
    return ()


def test_what_has_no_behaviour_yet_is_refused_even_where_much_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wippy_queue.entries.build.NOT_YET_FIELDS", {entries.Lifecycle: frozenset({"stop_timeout"})})
    write(tmp_path, APPLICATION.replace("max_size: 10", "lifecycle: {stop_timeout: 1s}"))
    for skip in (False, True):
        with pytest.raises(ConfigurationError, match=r"lifecycle\.stop_timeout: not supported yet; remove it"):
            load(tmp_path, skip_unsupported=skip)


def test_a_kind_that_has_no_behaviour_yet_is_an_error_or_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wippy_queue.entries.links.NOT_YET_KINDS", frozenset({"store.memory"}))
    problems = _problems(tmp_path, APPLICATION)
    assert "the kind store.memory is not supported yet" in problems[0].message
    assert "app.queue:cache" not in load(tmp_path, skip_unsupported=True).entries


BYTES = {
    "an empty file": (b"", "the file is empty"),
    "comments alone": (b"# nothing\n", "the file is empty"),
    "Latin-1": (APPLICATION.replace("tasks", "t\xe4sks").encode("latin-1"), "expected UTF-8, found the byte 0xe4"),
    "UTF-16": (APPLICATION.encode("utf-16"), "expected UTF-8, found the byte 0xff"),
    "a control character": (b"version: \x01\n", "the control character U+0001"),
    "a NUL": (b"version: \x00\n", "the control character U+0000"),
    "a list": (b"- a\n- b\n", "expected a mapping with namespace and entries, found a list"),
    "a word": (b"hello\n", "expected a mapping with namespace and entries, found 'hello'"),
    "two documents": (APPLICATION.encode() + b"---\na: 1\n", "expected one document"),
    "an open quote": (b"namespace: 'app\n", "a quote that was opened is not closed"),
    "an open bracket": (b"entries: [a,\n", "a bracket or brace that was opened is not closed"),
    "an open brace": (b"entries: {a: 1\n", "a bracket or brace that was opened is not closed"),
    "deep nesting": (b"entries: " + b"[" * 100_000, "nested deeper than 64 levels"),
    "deep aliases": (
        b"a0: &a0 [1]\n" + b"".join(b"a%d: &a%d [*a%d]\n" % (n, n, n - 1) for n in range(1, 5000)),
        "nested deeper than 64 levels",
    ),
    "a billion laughs": (
        b"a0: &a0 [x]\n" + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b"*a%d, " % (n - 1) * 9) for n in range(1, 20)),
        "the aliases of this file stand for more than 10,000 values",
    ),
    "no entries": (b"namespace: app\n", "the field 'entries' is required"),
    "entries that are a mapping": (b"namespace: app\nentries: {a: 1}\n", "expected a list of entries, found a mapping"),
    "an entry that is a word": (b"namespace: app\nentries: [a]\n", "expected a mapping with name and kind, found 'a'"),
    "a number of five thousand digits": (b"namespace: app\nentries: " + b"9" * 5000, "expected a list of entries"),
    "a strange directive": (b"%FOO\n---\na: 1\n", ""),
    "a newer YAML": (b"%YAML 3.0\n---\na: 1\n", "YAML"),
    "wrong indentation": (b"namespace: app\nentries:\n   - name: a\n  - name: b\n", "check the indentation"),
}  # fmt: skip


@pytest.mark.parametrize("name", BYTES)
def test_a_broken_file_is_told_with_its_place(name: str, tmp_path: Path) -> None:
    data, message = BYTES[name]
    problems = _problems(tmp_path, data)
    assert any(message in problem.message for problem in problems), "\n".join(map(str, problems))
    assert all(problem.file and problem.line and problem.column for problem in problems)


@pytest.mark.parametrize("name", BYTES)
def test_the_parser_without_c_tells_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("yaml.CSafeLoader")
    problems = _problems(tmp_path, BYTES[name][0])
    assert any(BYTES[name][1] in problem.message for problem in problems), "\n".join(map(str, problems))


def test_a_cut_at_any_byte_is_a_problem_or_an_application(tmp_path: Path) -> None:
    """A file that was written halfway never ends in a traceback."""
    for end in range(0, len(APPLICATION), 7):
        assert all(problem.file for problem in _problems_if_any(tmp_path, APPLICATION[:end]))


def test_any_line_may_be_missing(tmp_path: Path) -> None:
    lines = APPLICATION.splitlines(keepends=True)
    for index in range(len(lines)):
        problems = _problems_if_any(tmp_path, "".join(lines[:index] + lines[index + 1 :]))
        assert all(problem.file and problem.line for problem in problems)


def test_any_value_may_be_of_another_type(tmp_path: Path) -> None:
    """Every scalar is replaced by each other type of value: a problem or an application comes out, nothing else."""
    lines = APPLICATION.splitlines()
    for index, line in enumerate(lines):
        key, colon, value = line.partition(": ")
        if not colon:
            continue
        for other in (
            "~",
            "true",
            "-1",
            "1.5",
            ".nan",
            "[]",
            "{}",
            "[1, {a: b}]",
            "{a: [1]}",
            "''",
            "'\\u0000'",
            value + "x",
        ):
            text = "\n".join([*lines[:index], f"{key}: {other}", *lines[index + 1 :]])
            assert all(found.file and found.line and found.message for found in _problems_if_any(tmp_path, text))


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = APPLICATION.replace("driver: memory", "driver: memoryy").replace("concurrency: 4", "concurrency: x")
    text = text.replace("max_size: 10", "maxsize: 10")
    problems = _problems(tmp_path, text)
    assert [problem.path for problem in problems] == ["driver", "concurrency", "maxsize"]
    assert [problem.entry for problem in problems] == ["app.queue:tasks", "app.queue:worker", "app.queue:cache"]


def test_the_error_reads_like_a_report(tmp_path: Path) -> None:
    write(tmp_path, APPLICATION.replace("concurrency: 4", "concurrency: 0"))
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path)
    place = tmp_path / "_index.yaml"
    said = f"{place}:32:18: app.queue:worker concurrency: must be from 1 to 1000, found the number 0"
    assert str(caught.value) == f"1 mistake in the application:\n  {said}"


def test_a_missing_application_is_told_with_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "orders")
    for name, message in (("order", "did you mean 'orders'?"), ("orders/_indx.yaml", "did you mean '_index.yaml'?")):
        with pytest.raises(ConfigurationError, match="there is no such file or folder") as caught:
            entries.load([tmp_path / name], driver_kinds=DRIVERS, known_modules=MODULES)
        assert message in str(caught.value)


def test_a_folder_without_an_index_says_what_an_application_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no _index\.yaml in this folder, nor below it"):
        load(tmp_path)
    write(tmp_path, name="_index.yml")
    with pytest.raises(ConfigurationError, match=r"_index\.yml is not read, name it so"):
        load(tmp_path)


def test_a_pipe_in_the_place_of_an_index_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "_index.yaml")
    with pytest.raises(ConfigurationError, match=r"_index\.yaml: is no file"):
        load(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_problem(tmp_path: Path) -> None:
    write(tmp_path).chmod(0)
    with pytest.raises(ConfigurationError, match="cannot be read: Permission denied"):
        load(tmp_path)


def test_a_source_may_not_leave_through_a_link(tmp_path: Path) -> None:
    secret = tmp_path / "secret.lua"
    secret.write_text("return 1", encoding="utf-8")
    app = tmp_path / "app"
    write(app)
    (app / "handler.lua").unlink()
    (app / "handler.lua").symlink_to(secret)
    with pytest.raises(ConfigurationError, match="lies outside the application's folder"):
        load(app)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "the file is empty"), (b"return '\xff'", "expected UTF-8, found the byte 0xff")],
)
def test_a_source_that_is_no_text_is_a_problem(content: bytes, message: str, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "handler.lua").write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        load(tmp_path)


def test_links_in_a_circle_are_a_problem(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "handler.lua").unlink()
    (tmp_path / "handler.lua").symlink_to("handler.lua")
    with pytest.raises(ConfigurationError, match=r"handler\.lua"):
        load(tmp_path)


def test_a_thousand_misspelt_references_are_told_in_no_time(tmp_path: Path) -> None:
    """Did-you-mean compares every wrong name with every known one, so it has a budget."""
    queues = "".join(f"  - {{name: queue_{n}, kind: queue.queue, driver: memry_{n}}}\n" for n in range(1000))
    drivers = "".join(f"  - {{name: memory_{n}, kind: queue.driver.memory}}\n" for n in range(1000))
    problems = _problems(tmp_path, f"namespace: app\nentries:\n{drivers}{queues}")
    assert len(problems) == 1000
    assert "did you mean" in problems[0].message
    assert "did you mean" not in problems[-1].message
