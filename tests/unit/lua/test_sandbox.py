"""What handlers can reach, and what they cannot."""

from __future__ import annotations

import math

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


# What Lua 5.1 has and Lua 5.4 lacks.

_OLD_MATH = ["atan2", "cosh", "frexp", "ldexp", "log10", "mod", "pow", "sinh", "tanh"]


@pytest.mark.parametrize("name", [*(f"math.{name}" for name in _OLD_MATH), "table.getn", "table.maxn"])
def test_functions_of_lua_5_1_are_there_and_read_only(name: str) -> None:
    body = f"local old = {name} return {{type(old), {name} == old, pcall(function() {name} = 1 end)}}"
    kind, same, written, why = call(body)
    assert (kind, same, written) == ("function", True, False)
    assert "is read-only" in why


def test_names_that_no_lua_has_are_nil() -> None:
    assert call("return math.nope == nil and table.nope == nil and getmetatable(math) == false") is True


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("math.pow(2, 10)", 1024.0),
        ("math.pow('2', -1)", 0.5),
        ("math.log10(1000)", 3.0),
        ("math.mod(-7, 3)", -1),
        ("math.atan2(1, -1)", math.atan2(1, -1)),
        ("math.ldexp(0.5, 1024)", math.ldexp(0.5, 1024)),
        ("math.ldexp(1, -1074)", 5e-324),
        ("math.ldexp(5e-324, 2000)", math.ldexp(5e-324, 2000)),
        ("math.ldexp(1.5, 2.9)", 6.0),
        ("math.ldexp(1, -5000)", 0.0),
        ("math.ldexp(0x1.fffffffffffffp0, -1040)", math.ldexp(float.fromhex("0x1.fffffffffffffp0"), -1040)),
        ("math.cosh(710.4)", math.cosh(710.4)),
        ("math.sinh(-710.4)", math.sinh(-710.4)),
        ("math.sinh(1e-12)", math.sinh(1e-12)),
        ("math.tanh(1e-12)", math.tanh(1e-12)),
        ("math.tanh(-50)", -1.0),
    ],
)
def test_old_functions_of_math_give_what_c_gives(expression: str, value: float) -> None:
    assert call(f"return {expression}") == pytest.approx(value, rel=1e-15, abs=0)


def test_hyperbolic_functions_are_exact_to_the_last_digits() -> None:
    points = [x / 16 for x in range(-400, 401)]
    found = call(
        "local r = {} for i, x in ipairs(...) do r[i] = {math.cosh(x), math.sinh(x), math.tanh(x)} end return r", points
    )
    for x, values in zip(points, found, strict=True):
        assert values == pytest.approx([math.cosh(x), math.sinh(x), math.tanh(x)], rel=1e-15, abs=0)


def test_frexp_takes_apart_what_ldexp_puts_together() -> None:
    points = [1.0, -3.75, 0.1, 5e-324, -2.2e-308, 1.7e308, 0.0, 2.0**-1022, 2.0**-1023]
    body = """
    local r = {}
    for i, x in ipairs(...) do
      local m, e = math.frexp(x)
      r[i] = {m, e, math.ldexp(m, e) == x}
    end
    return r
    """
    assert call(body, points) == [[*math.frexp(x), True] for x in points]


def test_old_functions_of_math_know_infinity() -> None:
    body = """
    local inf = math.huge
    local m, e = math.frexp(-inf)
    local nan = math.frexp(0/0)
    return m == -inf and e == 0 and nan ~= nan and math.ldexp(1, 5000) == inf and math.ldexp(-inf, -9) == -inf
      and math.sinh(-inf) == -inf and math.cosh(-inf) == inf and math.tanh(-inf) == -1
      and math.sinh(0/0) ~= math.sinh(0/0) and math.tanh(0/0) ~= math.tanh(0/0) and 1 / math.sinh(-0.0) == -inf
    """
    assert call(body) is True


@pytest.mark.parametrize(
    ("mistake", "why"),
    [
        ("math.pow(nil, 1)", r"bad argument #1 to 'pow' \(number expected, got nil\)"),
        ("math.pow(1, {})", r"bad argument #2 to 'pow' \(number expected, got table\)"),
        ("math.cosh('x')", r"bad argument #1 to 'cosh' \(number expected, got string\)"),
        ("math.ldexp(1, 0/0)", r"bad argument #2 to 'ldexp' \(number has no integer representation\)"),
        ("math.mod({}, 1)", r"bad argument #1 to 'mod' \(number expected, got table\)"),
        ("table.getn(5)", r"bad argument #1 to 'getn' \(table expected, got number\)"),
        ("table.maxn(errors.new('x'))", r"bad argument #1 to 'maxn' \(table expected, got userdata\)"),
        ("string.format('%d', 'x')", r"bad argument #2 to 'format' \(number expected, got string\)"),
        ("string.format('%d')", r"bad argument #2 to 'format' \(no value\)"),
        ("string.format('%d', 1e300)", r"bad argument #2 to 'format' \(number has no integer representation\)"),
        ("string.format('%d', 0/0)", r"bad argument #2 to 'format' \(number has no integer representation\)"),
        ("string.format('%d', 1/0)", r"bad argument #2 to 'format' \(number has no integer representation\)"),
        ("string.format('%d %d', 1.5)", r"bad argument #3 to 'format' \(no value\)"),
    ],
)
def test_mistakes_in_calls_of_old_functions_name_the_line_of_the_handler(mistake: str, why: str) -> None:
    with pytest.raises(WippyQueueError, match=rf"^handler\.lua:2: {why}"):
        call(f"local x = {mistake} return x")


def test_getn_and_maxn_count_what_is_there_whatever_a_metatable_says() -> None:
    body = """
    local fake = setmetatable({1, 2}, {__len = function() return 2^40 | 0 end, __index = function() return 1 end})
    local decoded = ...
    return {table.getn(fake), table.maxn(fake), table.getn(decoded), table.maxn(decoded), table.getn(string),
      table.maxn({[1] = 1, [7.5] = 1, [-9] = 1, x = 1}), table.maxn({}), table.getn({})}
    """
    assert call(body, [1, None, None]) == [2, 2, 3, 1, 0, 7.5, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("'%d', 3.5", "3"),
        ("'%5d|%-4i|%%|%x', -3.9, 2.5, 255.7", "   -3|2   |%|ff"),
        ("'%s %.1f %d %s', 1.5, 2.25, 9.99, nil", "1.5 2.2 9 nil"),
        ("'%d', 3.0", "3"),
        ("'%%%d%%', 1.5", "%1%"),
        ("'%c%g', 65.5, 0.5", "A0.5"),
        ("'%d', 0.5, nil", "0"),
    ],
)
def test_format_cuts_the_fraction_off_where_an_integer_is_wanted(arguments: str, text: str) -> None:
    assert call(f"return string.format({arguments})") == text
    template, _, values = arguments.partition(", ")
    assert call(f"return ({template}):format({values})") == text
