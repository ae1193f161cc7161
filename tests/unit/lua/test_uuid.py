"""The Lua module `uuid`."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest

from wippy_queue.errors import Kind, WippyQueueError

from .support import call

URL = str(uuid.NAMESPACE_URL)


def run(code: str, *args: Any) -> Any:
    return call(code, *args, modules=("uuid",))


@pytest.mark.parametrize("version", [1, 4, 7])
def test_made_uuids_are_of_their_version_and_differ(version: int) -> None:
    made = [uuid.UUID(text) for text in run(f"local t = {{}} for i = 1, 50 do t[i] = uuid.v{version}() end return t")]
    assert len(set(made)) == 50
    assert {(u.version, u.variant) for u in made} == {(version, uuid.RFC_4122)}


def test_version_7_grows_and_holds_the_time() -> None:
    before = time.time()
    made = run("local t = {} for i = 1, 200 do t[i] = uuid.v7() end return t")
    assert made == sorted(made)
    milliseconds = [uuid.UUID(text).int >> 80 for text in made]
    assert before * 1000 - 1 <= milliseconds[0] <= milliseconds[-1] <= time.time() * 1000 + 1


def test_version_7_grows_when_the_clock_stands_still_or_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10**18] * 50 + [10**18 - 10**9] * 50)
    monkeypatch.setattr("time.time_ns", lambda: next(times))
    made = run("local t = {} for i = 1, 100 do t[i] = uuid.v7() end return t")
    assert made == sorted(made)
    assert len({text[:18] for text in made}) == 100  # in what stands before the random part


def test_version_1_does_not_tell_the_address_of_the_machine() -> None:
    nodes = [uuid.UUID(run("return uuid.v1()")).node for _ in range(16)]
    assert all(node >> 40 & 1 for node in nodes)  # the mark of a made-up address
    assert len(set(nodes)) > 1


@pytest.mark.parametrize("name", ["https://example.com/x", "", "한국어"])
def test_named_uuids_are_those_of_every_other_implementation(name: str) -> None:
    assert run("return uuid.v3(...)", URL, name) == str(uuid.uuid3(uuid.NAMESPACE_URL, name))
    assert run("return uuid.v5(...)", URL, name) == str(uuid.uuid5(uuid.NAMESPACE_URL, name))


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (URL, True),
        (URL.upper(), True),
        (f"urn:uuid:{URL}", True),
        (URL.replace("-", ""), True),
        (URL[:-1], False),
        (f"{URL}0", False),
        (URL.replace("-", "_"), False),
        ("g" + URL[1:], False),
        ("urn:uuid:" + URL.replace("-", ""), False),
        ("", False),
        (5, False),
        (None, False),
        ({}, False),
    ],
)
def test_validate_takes_every_form_that_format_gives(text: Any, valid: bool) -> None:
    assert run("return {uuid.validate((...))}", text) == [valid]


def test_version_and_variant() -> None:
    for version in (1, 3, 4, 5, 7):
        text = str(uuid.UUID(int=uuid.uuid4().int, version=version)) if version < 6 else run("return uuid.v7()")
        assert run("return {uuid.version(...), uuid.variant(...)}", text) == [version, "RFC4122"]
    for digit, variant in (("0", "Reserved"), ("7", "Reserved"), ("8", "RFC4122"), ("c", "Microsoft"), ("e", "Future")):
        assert run("return uuid.variant(...)", f"6ba7b811-9dad-41d1-{digit}0b4-00c04fd430c8") == variant


def test_parse_tells_what_is_inside() -> None:
    now = time.time()
    first = run("return uuid.parse(uuid.v1())")
    assert first["version"] == 1
    assert len(first["node"]) == 12
    assert abs(first["timestamp"] - now) <= 2
    seventh = run("return uuid.parse(uuid.v7())")
    assert abs(seventh["timestamp"] - now) <= 2
    assert "node" not in seventh
    assert run("return uuid.parse('6BA7B811-9DAD-11D1-80B4-00C04FD430C8')") == {
        "version": 1,
        "variant": "RFC4122",
        "timestamp": (uuid.UUID(URL).time - 0x01B21DD213814000) // 10_000_000,
        "node": "00c04fd430c8",
    }
    assert run("return uuid.parse(...)", str(uuid.uuid4())) == {"version": 4, "variant": "RFC4122"}


def test_format_gives_each_form_in_lower_case() -> None:
    simple = URL.replace("-", "")
    for source in (URL.upper(), simple, f"URN:UUID:{URL}"):
        forms = ("", ", 'standard'", ", 'simple'", ", 'urn'")
        assert [run(f"return uuid.format((...){form})", source) for form in forms] == [
            URL,
            URL,
            simple,
            f"urn:uuid:{URL}",
        ]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("uuid.v5('no', 'x')", 'uuid.v5: namespace: expected a UUID, found "no"'),
        ("uuid.v3(nil, 'x')", "uuid.v3: namespace: expected a string, found nil"),
        (f"uuid.v5('{URL}', 5)", "uuid.v5: expected a name, found number"),
        ("uuid.version('')", 'uuid.version: expected a UUID, found ""'),
        ("uuid.variant({})", "uuid.variant: expected a string, found table"),
        ("uuid.parse(('x'):rep(100))", "uuid.parse: expected a UUID"),
        ("uuid.format('x')", 'uuid.format: expected a UUID, found "x"'),
        (f"uuid.format('{URL}', 'braced')", 'expected "standard", "simple" or "urn", found "braced"'),
    ],
)
def test_mistakes_are_invalid(code: str, message: str) -> None:
    with pytest.raises(WippyQueueError) as caught:
        run(f"return {code}")
    assert caught.value.kind is Kind.INVALID
    assert message in caught.value.message
