"""What handlers can reach, and what they cannot."""

from __future__ import annotations

import pytest

from tests.unit.lua.support import call, make_function
from wippy_queue.errors import WippyQueueError


@pytest.mark.parametrize(
    "name",
    [
        "io", "debug", "package", "load", "loadfile", "dofile", "loadstring", "collectgarbage", "python", "warn",
        "os.execute", "os.getenv", "os.exit", "os.remove", "string.dump",
    ],
)  # fmt: skip
def test_what_is_dangerous_is_not_there(name: str) -> None:
    assert call(f"return {name} == nil") is True


@pytest.mark.parametrize(
    "name",
    [
        "assert", "error", "pcall", "xpcall", "select", "type", "tonumber", "tostring", "pairs", "ipairs", "next",
        "rawget", "rawset", "rawequal", "rawlen", "setmetatable", "getmetatable", "unpack", "print", "require",
        "os.time", "os.date", "os.clock", "os.difftime", "string.format", "table.sort", "math.floor", "utf8.char",
        "coroutine.wrap",
    ],
)  # fmt: skip
def test_the_standard_globals_are_there(name: str) -> None:
    assert call(f"return type({name})") == "function"


def test_g_is_the_functions_own_environment() -> None:
    assert call("x = 1 return _G.x == 1 and _G._G == _G and _VERSION") == "Lua 5.4"


@pytest.mark.parametrize("table", ["string", "table", "math", "utf8", "coroutine", "os", "errors"])
@pytest.mark.parametrize("write", ["{0}.new_thing = 1", "rawset({0}, 'new_thing', 1)"])
def test_the_shared_tables_are_read_only(table: str, write: str) -> None:
    body = f"local ok, why = pcall(function() {write.format(table)} end) return {{ok, why, {table}.new_thing == nil}}"
    ok, why, unchanged = call(body)
    assert not ok
    assert f"{table} is read-only" in why
    assert unchanged


def test_table_insert_cannot_write_to_a_shared_table() -> None:
    with pytest.raises(WippyQueueError, match="read-only"):
        call("table.insert(string, 1)")


def test_modules_are_read_only() -> None:
    with pytest.raises(WippyQueueError, match="queue is read-only"):
        call("queue.publish = nil", modules=("queue",))


def test_pairs_and_next_and_rawget_see_through_shared_tables() -> None:
    body = """
    local n = 0
    for name, f in pairs(string) do assert(string[name] == f) n = n + 1 end
    return n > 10 and next(string) ~= nil and rawget(string, 'format') == string.format and setmetatable
      and not pcall(setmetatable, string, {}) and getmetatable(string) == false
    """
    assert call(body) is True


def test_pairs_never_hands_out_the_table_behind_a_shared_one() -> None:
    with pytest.raises(WippyQueueError, match="read-only"):
        call("local _, t = pairs(string) t.format = nil")


def test_the_metatable_of_strings_is_closed() -> None:
    assert call("return getmetatable('') == false and ('x'):rep(3)") == "xxx"


def test_values_of_our_types_cannot_be_looked_into() -> None:
    body = """
    local err = errors.new('text')
    local step = pairs({})
    for _, attack in ipairs {
      function() return next(err) end, function() return pairs(err) end, function() return rawget(err, 1) end,
      function() return rawset(err, 1, 2) end, function() err.x = 1 end, function() return setmetatable(err, {}) end,
      function() return #err end, function() return table.insert(err, 1) end,
    } do
      local ok, why = pcall(attack)
      if ok then return 'attack ' .. _ .. ' went through' end
    end
    return tostring(step(err)) .. tostring(getmetatable(err))
    """
    assert call(body) == "nilfalse"


def test_finalizers_and_weak_tables_are_refused() -> None:
    for field in ("__gc", "__mode"):
        with pytest.raises(WippyQueueError, match="__gc and __mode are not allowed"):
            call(f"setmetatable({{}}, {{ {field} = 'k' }})")


def test_bytecode_cannot_be_loaded() -> None:
    with pytest.raises(WippyQueueError, match="text chunk|binary chunk|expected"):
        make_function("\x1bLua").call([])


def test_functions_do_not_see_each_others_globals() -> None:
    function = make_function("shared = (shared or 0) + 1 return function() shared = shared + 1 return shared end")
    other = make_function("return function() return shared == nil end")
    assert function.call([]) == 2
    assert other.call([]) is True


def test_repeating_nothing_for_ever_ends_at_once() -> None:
    assert call("return string.rep('', 2^50 // 1 | 0) .. ('x'):rep(-1)") == ""


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("return ('x'):rep(1e9 // 1 | 0)", "longer than"),
        ("return ('x'):rep(2^62 | 0, 'yy')", "longer than"),
        ("return table.move({}, 1, 2^40 | 0, 2)", "more than"),
        ("return table.insert(setmetatable({}, {__len = function() return 2^40 | 0 end}), 1, 1)", "__len"),
        ("return table.concat(setmetatable({}, {__len = function() return 2^40 | 0 end}))", "__len"),
        ("return table.unpack(setmetatable({}, {__len = function() return 2^40 | 0 end}))", "__len"),
    ],
)
def test_calls_that_would_keep_c_busy_are_refused(code: str, why: str) -> None:
    with pytest.raises(WippyQueueError, match=why):
        call(code)


def test_errors_in_arguments_name_the_line_of_the_handler() -> None:
    for mistake in (
        "table.concat(nil)",
        "table.concat({{}})",
        "string.rep('x', {})",
        "table.insert({}, 1, 2, 3)",
        "('x'):find('[')",
    ):
        with pytest.raises(WippyQueueError, match=r"^handler\.lua:2: "):
            call(f"local x = {mistake} return x")
        assert call(f"local ok, why = pcall(function() local x = {mistake} end) return why").startswith(
            "handler.lua:2: "
        )


def test_errors_in_arguments_name_the_function() -> None:
    with pytest.raises(WippyQueueError, match=r"bad argument #1 to 'concat' \(table expected, got nil\)"):
        call("local x = table.concat(nil)")


def test_an_error_without_a_position_keeps_none() -> None:
    with pytest.raises(WippyQueueError, match=r"^bare\b"):
        call("error('bare', 0)")
    assert call("local _, why = pcall(error, 'bare', 0) return why") == "bare"


def test_tables_in_the_state_of_a_decoded_array_work_with_the_table_functions() -> None:
    body = """
    local t = ...
    table.insert(t, 'x')
    local first = table.remove(t, 1)
    return {first, #t, t, getmetatable(t) == nil}
    """
    assert call(body, [1, None, None]) == [1, 3, [None, None, "x"], True]


def test_coroutines_work() -> None:
    body = """
    local co = coroutine.wrap(function(a) local b = coroutine.yield(a + 1) return b * 2 end)
    local resumed = coroutine.create(function() error('inside') end)
    local ok, why = coroutine.resume(resumed)
    return {co(1), co(10), ok, why, coroutine.status(resumed), coroutine.isyieldable()}
    """
    assert call(body) == [2, 20, False, "handler.lua:4: inside", "dead", False]


def test_pcall_and_xpcall_give_what_lua_gives() -> None:
    body = """
    local a, b = pcall(error, {code = 7})
    local c, d = xpcall(function(x) error(x, 0) end, function(e) return e .. '!' end, 'no')
    local e, f, g = pcall(function(...) return ... end, 1, nil)
    return {a, b.code, c, d, e, f, select('#', pcall(function() return nil, nil end))}
    """
    assert call(body) == [False, 7, False, "no!", True, 1, 3]
