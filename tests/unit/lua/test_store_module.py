"""The `store` module: what handlers do with a key-value store, on the real one in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.lua.module_bench import ModuleBench
from wippy_queue.errors import NotFound
from wippy_queue.stores.memory import MemoryStore


@pytest.fixture
def cache() -> Iterator[MemoryStore]:
    store = MemoryStore("app:cache", max_size=4)
    store.start()
    yield store
    store.stop()


@pytest.fixture
def lua(cache: MemoryStore) -> ModuleBench:
    def find(store_id: str) -> MemoryStore:
        if store_id != "app:cache":
            raise NotFound(f"there is no store {store_id!r}")
        return cache

    return ModuleBench("store", store=find)


S = 'store.get("app:cache")'


def test_values_of_every_kind_come_back(lua: ModuleBench) -> None:
    code = (
        f'local s = {S} local out = {{}} for i, v in ipairs{{ 1, 1.5, "text", false, {{ a = {{ 1, 2 }} }}, {{}} }} do '
        's:set("k", v) out[i] = s:get("k") end return out'
    )
    assert lua.run(code) == [1, 1.5, "text", False, {"a": [1, 2]}, []]


def test_bytes_come_back_as_they_were(lua: ModuleBench) -> None:
    assert lua.value(f'(function() local s = {S} s:set("k", "\\0\\255") return s:get("k") == "\\0\\255" end)()') is True


def test_values_are_copied_in_and_out(lua: ModuleBench) -> None:
    code = (
        f'local s = {S} local v = {{ n = 1 }} s:set("k", v) v.n = 2 '
        'local a = s:get("k") a.n = 3 local b = s:put("k2", v).value b.n = 4 '
        'return { s:get("k").n, v.n, s:get("k2").n }'
    )
    assert lua.run(code) == [1, 2, 2]


def test_two_runtimes_share_a_store(lua: ModuleBench) -> None:
    lua.run(f'return {S}:set("k", {{ "from one" }})')
    assert lua.value(f'{S}:get("k")') == ["from one"]


def test_a_missing_key(lua: ModuleBench) -> None:
    kind, message = lua.error(f'{S}:get("nope")')
    assert kind == "NotFound"
    assert "'nope'" in message
    assert lua.error(f'{S}:entry("nope")')[0] == "NotFound"
    assert lua.run(f'local d, err = {S}:delete("nope") return {{ d, err == nil, {S}:has("nope") }}') == [
        False,
        True,
        False,
    ]


def test_delete_and_has(lua: ModuleBench) -> None:
    code = f'local s = {S} s:set("k", 1) local before = s:has("k") return {{ before, s:delete("k"), s:has("k") }}'
    assert lua.run(code) == [True, True, False]


def test_a_ttl_is_in_seconds(lua: ModuleBench, cache: MemoryStore) -> None:
    lua.run(f'return {S}:set("k", 1, 60)')
    entry = lua.value(f'{S}:entry("k")')
    assert entry["expires_at"] == cache.get("k").expires_at
    assert cache._slots["k"].deadline - cache._soonest == 0
    lua.run(f'return {S}:set("k", 1, 0)')
    assert "expires_at" not in lua.value(f'{S}:entry("k")')


def test_an_entry_has_a_version_that_a_later_put_can_ask_for(lua: ModuleBench) -> None:
    code = (
        f'local s = {S} local first = s:put("k", "a") local second = s:put("k", "b", {{ if_version = first.version }}) '
        'local _, err = s:put("k", "c", { if_version = first.version }) '
        "return { first.version ~= second.version, type(second.version), second.value, second.key, "
        's:entry("k").version == second.version, err:kind(), err:retryable(), s:get("k") }'
    )
    assert lua.run(code) == [True, "string", "b", "k", True, "Conflict", True, "b"]


def test_a_version_may_be_given_as_a_number(lua: ModuleBench, cache: MemoryStore) -> None:
    version = cache.put("k", b"\x01").version
    assert lua.value(f'{S}:put("k", 2, {{ if_version = ... }}).value', version) == 2


def test_only_if_absent(lua: ModuleBench) -> None:
    code = f'{S}:put("lock", "me", {{ only_if_absent = true, ttl = 5 }})'
    assert lua.value(code)["value"] == "me"
    assert lua.error(code)[0] == "AlreadyExists"


def test_a_listing_in_pages(lua: ModuleBench) -> None:
    code = (
        f'local s = {S} for _, k in ipairs{{ "b:2", "a:1", "b:1", "b:3" }} do s:set(k, k) end '
        'local first = s:list({ prefix = "b:", limit = 2 }) '
        'local rest = s:list({ prefix = "b:", limit = 2, after = first.cursor }) '
        "local seen = {} for _, page in ipairs{ first, rest } do "
        "  for _, e in ipairs(page.items) do seen[#seen + 1] = e.key .. '=' .. e.value end end "
        "return { seen, first.has_more, rest.has_more, #s:list().items }"
    )
    assert lua.run(code) == [["b:1=b:1", "b:2=b:2", "b:3=b:3"], True, False, 4]


def test_info_says_what_the_store_can_do(lua: ModuleBench) -> None:
    info = lua.value(f"{S}:info()")
    assert info["id"] == "app:cache"
    assert info["backend"] == lua.value("store.backend.MEMORY")
    assert info["consistency"] == lua.value("store.consistency.LINEARIZABLE")
    assert (info["durable"], info["conditional_put"], info["entries"], info["max_size"]) == (False, True, 0, 4)


def test_a_full_store_is_unavailable(lua: ModuleBench) -> None:
    code = f'local s, ok, err = {S} for i = 1, 5 do ok, err = s:set("k" .. i, i) end return {{ ok == nil, err:kind() }}'
    assert lua.run(code) == [True, "Unavailable"]


@pytest.mark.parametrize(
    "call",
    ['get("k")', 'set("k", 1)', 'has("k")', 'delete("k")', 'put("k", 1)', 'entry("k")', "list()", "info()"],
)
def test_after_release_every_method_is_invalid(lua: ModuleBench, call: str) -> None:
    kind, message = lua.run(
        f"local s = {S} s:release() s:release() local v, err = s:{call} return {{ err:kind(), err:message() }}"
    )
    assert kind == "Invalid"
    assert "released" in message


def test_a_release_concerns_that_handle_alone(lua: ModuleBench) -> None:
    assert lua.value(f'(function() local a, b = {S}, {S} a:release() return b:set("k", 1) end)()') is True


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ('store.get("app:nope")', "NotFound"),
        ('store.get("")', "Invalid"),
        ("store.get(5)", "Invalid"),
        (f'{S}:set("k", nil)', "Invalid"),
        (f'{S}:set("", 1)', "Invalid"),
        (f"{S}:set(nil, 1)", "Invalid"),
        (f'{S}:set("\\255", 1)', "Invalid"),
        (f'{S}:set("k", print)', "Invalid"),
        (f'{S}:set("k", 1, -1)', "Invalid"),
        (f'{S}:set("k", 1, "5s")', "Invalid"),
        (f'{S}:set("k", 1, 0/0)', "Invalid"),
        (f'{S}:put("k", 1, 5)', "Invalid"),
        (f'{S}:put("k", 1, {{ tll = 5 }})', "Invalid"),
        (f'{S}:put("k", 1, {{ only_if_absent = "yes" }})', "Invalid"),
        (f'{S}:put("k", 1, {{ if_version = "x" }})', "Invalid"),
        (f'{S}:put("k", 1, {{ if_version = ("9"):rep(30) }})', "Invalid"),
        (f'{S}:put("k", 1, {{ if_version = 1, only_if_absent = true }})', "Invalid"),
        (f"{S}:list({{ limit = 0 }})", "Invalid"),
        (f"{S}:list({{ limit = 1.5 }})", "Invalid"),
        (f"{S}:list({{ limit = 100000 }})", "Invalid"),
        (f"{S}:list({{ cursor = 'x' }})", "Invalid"),
        (f'{S}.get("k")', "Invalid"),
        ("store.get('app:cache').release()", "Invalid"),
    ],
)
def test_what_cannot_work_is_said(lua: ModuleBench, expression: str, kind: str) -> None:
    found, message = lua.error(expression)
    assert found == kind, message


def test_a_store_is_closed_to_handlers(lua: ModuleBench) -> None:
    assert lua.value(f"type({S})") == "userdata"
    assert "read-only" in lua.raised(f"local s = {S} s.get = nil")
    assert "read-only" in lua.raised('store.backend.MEMORY = "x"')


def test_a_store_that_does_not_run_is_unavailable(lua: ModuleBench, cache: MemoryStore) -> None:
    cache.stop()
    kind, message = lua.error(f'{S}:get("k")')
    assert kind == "Unavailable"
    assert "auto_start" in message
