"""What hostile handlers try, by class: the body of a Lua function, and how it must end.

The bodies see every module of the product, ``probe`` (functions of Python: see child.py) and ``spin``, an endless loop.
"""
# ruff: noqa: E501 -- Lua in a text is best read in one piece

from __future__ import annotations

from typing import Final, Literal

Ending = Literal["time", "memory", "limit", "error", "ok"]
"""time: killed at its limit; memory: out of memory; limit: either; error: it fails somehow; ok: it returns, and what it
asserts holds."""

# A table of 80 entries whose length is 2^62: what trusts `#` loops in C until the end of days.
_LONG = """local t = {1, 2, 3, 4} for i = 1, 20 do t['k' .. i] = 1 end for i = 4, 62 do t[1 << i] = 1 end
  t[5], t[8] = 1, 1 assert(#t > 1 << 60)"""
_CLOSE = "setmetatable({}, {__close = spin})"

LOOPS: Final[dict[str, tuple[Ending, str]]] = {
    "while": ("time", "while true do end"),
    "repeat": ("time", "repeat until false"),
    "goto": ("time", "::again:: goto again"),
    "goto continue": ("time", "while true do goto continue ::continue:: end"),
    "for to the largest integer": ("time", "for i = 1, math.maxinteger do end"),
    "for to infinity": ("time", "for i = 1, math.huge do end"),
    "an integer that wraps": ("time", "local i = 1 while i ~= 0 do i = i * 3 end"),
    "calls": ("time", "local function f() end while true do f() end"),
    "tail calls": ("time", "local function f() return f() end f()"),
    "mutual tail calls": ("time", "local g local function f() return g() end function g() return f() end f()"),
    "an iterator": ("time", "for _ in function() return 1 end do end"),
    "ipairs over a metatable": (
        "time",
        "for _ in ipairs(setmetatable({}, {__index = function() return 1 end})) do end",
    ),
    "next over and over": ("time", "local t = {1} while true do for _ in pairs(t) do end end"),
    "C functions": ("time", "while true do math.floor(1.5) end"),
    "strings": ("time", "while true do local s = ('x'):rep(100) .. 1 end"),
    "large strings": ("time", "while true do local s = ('x'):rep(4000000) end"),
    "large strings that are compared": (
        "time",
        "local a, b = ('a'):rep(3000000) .. 'b', ('a'):rep(3000000) .. 'c' while true do local x = a < b end",
    ),
    "tables": ("time", "while true do local t = {1, 2, 3} end"),
    "long argument lists": (
        "time",
        "local t = {} for i = 1, 100000 do t[i] = i end while true do local x = {table.unpack(t)} end",
    ),
    "inserts in front": (
        "time",
        "local t = {} for i = 1, 200000 do t[i] = i end while true do table.insert(t, 1, 1) table.remove(t, 1) end",
    ),
    "moves in a coroutine": (
        "time",
        "coroutine.wrap(function() local t = {} while true do table.move(t, 1, 3000000, 2) end end)()",
    ),
    "moves": ("time", "local t = {} while true do table.move(t, 1, 1000000, 2) end"),
    "the clock": ("time", "while true do os.time() os.clock() os.date() end"),
    "type": ("time", "while true do type(1) tostring({}) end"),
    "select": ("time", "local t = {} for i = 1, 100000 do t[i] = i end while true do select('#', table.unpack(t)) end"),
    "random": ("time", "while true do math.random(math.mininteger, math.maxinteger) end"),
    "_ENV": ("time", "local _ENV = {} while true do x = 1 end"),
    "exponential recursion": ("time", "local function f(n) if n > 0 then f(n - 1) f(n - 1) end end f(100)"),
}

CATCHING: Final[dict[str, tuple[Ending, str]]] = {
    "pcall": ("time", "while true do pcall(spin) end"),
    "pcall of pcall": ("time", "while true do pcall(pcall, spin) end"),
    "pcall of error": ("time", "while true do pcall(error, 'x') end"),
    "pcall with objects": ("time", "while true do pcall(error, {}) pcall(error, errors.new('x')) pcall(error) end"),
    "xpcall": ("time", "while true do xpcall(spin, spin) end"),
    "xpcall's handler": ("time", "while true do xpcall(error, spin) end"),
    "xpcall with the handler error": ("limit", "while true do xpcall(error, error, 'x') end"),
    "an error in the handler of an error": (
        "error",
        "local function h(e) error(e) end while true do xpcall(error, h, 'x') end",
    ),
    "xpcall in a handler": ("error", "local function h() xpcall(error, h) end while true do xpcall(error, h) end"),
    "coroutine": ("time", "while true do coroutine.wrap(spin)() end"),
    "resume": ("time", "while true do coroutine.resume(coroutine.create(spin)) end"),
    "pcall in a coroutine": ("time", "coroutine.wrap(function() while true do pcall(spin) end end)()"),
    "xpcall in a coroutine": ("time", "coroutine.wrap(function() while true do xpcall(spin, spin) end end)()"),
    "coroutines in turn": (
        "time",
        "local co = coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end",
    ),
    "a coroutine that never yields twice": (
        "time",
        "while true do local co = coroutine.create(coroutine.yield) coroutine.resume(co) coroutine.resume(co) end",
    ),
    "coroutines 190 deep": (
        "error",
        "local function f(n) if n == 0 then spin() end coroutine.wrap(f)(n - 1) end while true do pcall(f, 190) end",
    ),
    "coroutines 60 deep": (
        "time",
        "local function f(n) if n == 0 then spin() end pcall(coroutine.wrap(f), n - 1) end while true do f(60) end",
    ),
    "large strings in a coroutine": (
        "time",
        "coroutine.wrap(function() while true do local s = ('x'):rep(4000000) end end)()",
    ),
    "long comparisons in a coroutine": (
        "time",
        """local a, b = ('a'):rep(3000000) .. 'b', ('a'):rep(3000000) .. 'c'
        coroutine.wrap(function() while true do local x = a < b end end)()""",
    ),
    "a coroutine that is kept": (
        "time",
        "kept = coroutine.create(function() while true do coroutine.yield() end end) while true do coroutine.resume(kept) end",
    ),
    "close in a coroutine": (
        "time",
        f"""while true do
          local co = coroutine.create(function() local g <close> = {_CLOSE} coroutine.yield() end)
          coroutine.resume(co) pcall(coroutine.close, co)
        end""",
    ),
    "close": ("time", f"while true do pcall(function() local g <close> = {_CLOSE} end) end"),
    "close while the kill unwinds": ("time", f"local g <close> = {_CLOSE} spin()"),
    "many closes while the kill unwinds": (
        "time",
        f"local function f(n) local g <close> = {_CLOSE} if n == 0 then spin() end f(n - 1) end f(180)",
    ),
    "closes that bring new ones": (
        "time",
        """local mt = {} mt.__close = function() local g <close> = setmetatable({}, mt) spin() end
        local g <close> = setmetatable({}, mt) spin()""",
    ),
    "closes that bring new ones, in a coroutine": (
        "time",
        """local mt = {} mt.__close = function() local g <close> = setmetatable({}, mt) spin() end
        coroutine.wrap(function() pcall(function() local g <close> = setmetatable({}, mt) spin() end) end)()""",
    ),
    "closing a coroutine that the kill has ended": (
        "time",
        f"""local co = coroutine.create(function() local g <close> = {_CLOSE} spin() end)
        coroutine.wrap(function() pcall(function()
          local h <close> = setmetatable({{}}, {{__close = function() coroutine.close(co) end}})
          coroutine.resume(co)
        end) end)()""",
    ),
    "keeping the error of the kill": (
        "time",
        """local g <close> = setmetatable({}, {__close = function(_, e) kept = e error(e) end})
        coroutine.wrap(function() pcall(function()
          local h <close> = setmetatable({}, {__close = function(_, e) kept = e end}) spin()
        end) end)()""",
    ),
    "settling while the kill unwinds": (
        "time",
        """local m = queue.message()
        local g <close> = setmetatable({}, {__close = function() m:ack() end}) coroutine.wrap(spin)()""",
    ),
}

CALLBACKS: Final[dict[str, tuple[Ending, str]]] = {
    "sort": ("time", "while true do pcall(table.sort, {3, 2, 1}, spin) end"),
    "gsub": ("time", "('x'):gsub('.', spin)"),
    "gsub with a table": ("time", "('x'):gsub('.', setmetatable({}, {__index = spin}))"),
    "gsub without end": ("time", "while true do ('x'):rep(100):gsub('.', function() end) end"),
    "the iterator of gmatch": ("time", "while true do for _ in ('xxxx'):gmatch('.') do end end"),
    **{
        name: ("time", f"local t = setmetatable({{}}, {{{name} = spin}}) {use}")
        for name, use in {
            "__index": "return t.x",
            "__newindex": "t.x = 1",
            "__call": "t()",
            "__tostring": "tostring(t)",
            "__len": "return #t",
            "__eq": "return t == setmetatable({}, getmetatable(t))",
            "__lt": "return t < t",
            "__le": "return t <= t",
            "__concat": "return t .. 'x'",
            "__unm": "return -t",
            "__add": "return t + 1",
            "__idiv": "return t // 1",
            "__bnot": "return ~t",
            "__pairs": "for _ in pairs(t) do end",
        }.items()
    },
    "__index of format": ("time", "string.format('%s', setmetatable({}, {__tostring = spin}))"),
    "__index of concat": ("time", "table.concat(setmetatable({}, {__index = spin}), '', 1, 9)"),
    "__index of unpack": ("time", "table.unpack(setmetatable({}, {__index = spin}), 1, 9)"),
    "__newindex of move": ("time", "table.move({1}, 1, 1, 1, setmetatable({}, {__newindex = spin}))"),
    "__tostring of print": ("time", "print(setmetatable({}, {__tostring = spin}))"),
    "__tostring of the logger": ("time", "logger:warn(setmetatable({}, {__tostring = spin}))"),
    "__index of errors.new": ("time", "errors.new(setmetatable({}, {__index = spin}))"),
    "__index of os.time": ("time", "os.time(setmetatable({}, {__index = spin}))"),
    "__tostring of the error": ("time", "error(setmetatable({}, {__tostring = spin}))"),
    "__tostring that raises": (
        "error",
        "error(setmetatable({}, {__tostring = function() error('again') end}))",
    ),
    "__tostring that gives no text": ("error", "error(setmetatable({}, {__tostring = function() return {} end}))"),
    "__name": ("error", "error(setmetatable({}, {__name = ('x'):rep(1000000)}))"),
    "__index that is itself": ("error", "local t = {} setmetatable(t, {__index = t}) t.__index = t return t.x.y"),
    "__gc": ("ok", "assert(not pcall(setmetatable, {}, {__gc = spin}))"),
    "__gc set late": (
        "ok",
        """local mt = {} setmetatable({}, mt) mt.__gc = spin
        for i = 1, 2000 do local t = {{}} end""",
    ),
    "__gc set late and used again": (
        "ok",
        "local mt = {} setmetatable({}, mt) mt.__gc = spin assert(not pcall(setmetatable, {}, mt))",
    ),
}


def _at_depth(depth: int, catch: str) -> str:
    return f"""local function deep(n)
      if n == 0 then while true do for i = 1, 1000000 do end end end
      while true do {catch} end
    end
    deep({depth})"""


_CATCHES = {
    "pcall": "pcall(deep, n - 1)",
    "xpcall": "xpcall(deep, function() return 1 end, n - 1)",
    "endless xpcall": "xpcall(deep, spin, n - 1)",
    "close": "pcall(function() local g <close> = setmetatable({}, {__close = function() error({}) end}) deep(n - 1) end)",
    "gsub": "pcall(string.gsub, 'x', 'x', function() deep(n - 1) end)",
}

STACKS: Final[dict[str, tuple[Ending, str]]] = {
    "recursion": ("error", "local function f() return 1 + f() end while true do pcall(f) end"),
    "pcall recursion": ("error", "local function f() pcall(f) f() end f()"),
    "mutual pcall recursion": ("error", "local function f() return pcall(pcall, f) end while true do f() end"),
    "gsub recursion": ("error", "local function f() return (('x'):gsub('x', f)) end while true do pcall(f) end"),
    "sort recursion": ("error", "local function f() table.sort({2, 1}, f) end while true do pcall(f) end"),
    "tostring recursion": (
        "error",
        "local t = setmetatable({}, {__tostring = function(t) return tostring(t) end}) while true do pcall(tostring, t) end",
    ),
    "__index recursion": (
        "error",
        "local t = setmetatable({}, {__index = function(t, k) return t[k + 1] end}) while true do pcall(function() return t[1] end) end",
    ),
    "close recursion": (
        "error",
        """local function f() local g <close> = setmetatable({}, {__close = f}) end while true do pcall(f) end""",
    ),
    "format recursion": (
        "error",
        "local t = setmetatable({}, {__tostring = function(t) return string.format('%s', t) end}) tostring(t)",
    ),
    "a chain of __index": (
        "ok",
        "local t = {} for i = 1, 3000 do t = setmetatable({}, {__index = t}) end assert(not pcall(function() return t.x end))",
    ),
    **{
        f"{name} at depth {depth}": ("error", _at_depth(depth, catch))
        for name, catch in _CATCHES.items()
        for depth in (60, 92, 94, 95, 96, 97, 98, 99, 186, 192, 195)
    },
    **{
        f"{name} at depth {depth} in a coroutine": (
            "error",
            f"coroutine.wrap(function() {_at_depth(depth, catch)} end)()",
        )
        for name, catch in _CATCHES.items()
        for depth in (92, 95, 97)
    },
}

_LONG_LIVED = "for i = 1, 100000 do end"  # a coroutine that has run this is followed, in hook mode "async"


def _dying_at_depth(depth: int) -> str:
    """Leave a coroutine whose hook itself, at the end of the stack of C, has raised the error that ended it."""
    return f"""kept = coroutine.create(function()
      local g <close> = {_CLOSE}
      local function deep(n) ('x'):gsub('x', function() if n == 0 then {_LONG_LIVED} error('x') end deep(n - 1) end) end
      deep({depth})
    end)
    assert(coroutine.resume(kept))"""


_CLOSE_KEPT = "local co = kept kept = nil if co then coroutine.close(co) end"


def _dying(depth: int) -> dict[str, tuple[Ending, str]]:
    return {
        f"one that dies in its hook at depth {depth}": ("error", _dying_at_depth(depth)),
        f"one that died in its hook at depth {depth}, closed": ("ok", _CLOSE_KEPT),
    }


COROUTINES: Final[dict[str, tuple[Ending, str]]] = {
    "one that was followed": ("time", f"coroutine.wrap(function() {_LONG_LIVED} spin() end)()"),
    "one inside the other": (
        "time",
        f"local function f(n) {_LONG_LIVED} if n == 0 then spin() end coroutine.wrap(f)(n - 1) end f(30)",
    ),
    "one inside the other, caught": (
        "time",
        f"""local function f(n) {_LONG_LIVED} while true do if n > 0 then pcall(coroutine.wrap(f), n - 1) end end end
        f(30)""",
    ),
    "one that resumes another without end": (
        "time",
        f"""coroutine.wrap(function() {_LONG_LIVED}
          local co = coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end
        end)()""",
    ),
    "a chain of generators": (
        "time",
        """local function stage(g) return coroutine.wrap(function() for v in g do coroutine.yield(v) end end) end
        local g = coroutine.wrap(function() while true do coroutine.yield(1) end end)
        for i = 1, 40 do g = stage(g) end for _ in g do end""",
    ),
    "more than are followed": (
        "time",
        f"""local all = {{}} for i = 1, 200 do
          all[i] = coroutine.wrap(function() while true do {_LONG_LIVED} coroutine.yield() end end)
        end
        while true do for i = 1, 200 do all[i]() end end""",
    ),
    "more than are followed, dropped": (
        "time",
        f"while true do coroutine.wrap(function() {_LONG_LIVED} coroutine.yield() end)() end",
    ),
    "pcall in one": ("time", f"coroutine.wrap(function() {_LONG_LIVED} while true do pcall(spin) end end)()"),
    "closing one": (
        "time",
        f"""local co = coroutine.create(function() local g <close> = {_CLOSE} {_LONG_LIVED} coroutine.yield() end)
        coroutine.resume(co) coroutine.close(co)""",
    ),
    "closing while the kill unwinds": (
        "time",
        f"""local function f(n)
          local g <close> = {_CLOSE} {_LONG_LIVED} if n == 0 then spin() end coroutine.wrap(f)(n - 1)
        end
        f(20)""",
    ),
    "long comparisons": (
        "time",
        f"""local a, b = ('a'):rep(3000000) .. 'b', ('a'):rep(3000000) .. 'c'
        coroutine.wrap(function() {_LONG_LIVED} while true do local x = a < b end end)()""",
    ),
    "one that is kept": (
        "ok",
        f"""kept = coroutine.create(function() {_LONG_LIVED} coroutine.yield() spin() end)
        assert(coroutine.resume(kept))""",
    ),
    "one that was kept": ("time", "assert(coroutine.resume(kept))"),
    "one that is kept to be closed": (
        "ok",
        f"""kept = coroutine.create(function() local g <close> = {_CLOSE} {_LONG_LIVED} coroutine.yield() end)
        assert(coroutine.resume(kept))""",
    ),
    "one that was kept to be closed": ("time", "coroutine.close(kept)"),
    **{name: attack for depth in range(190, 200) for name, attack in _dying(depth).items()},
    "one that dies without memory": (
        "ok",
        f"""kept = coroutine.create(function()
          local g <close> = {_CLOSE}
          pcall(function() hoard = {{}} while true do hoard[#hoard + 1] = ('x'):rep(1000) .. #hoard end end)
          pcall(function() while true do hoard = {{hoard}} end end)
          {_LONG_LIVED} error('x')
        end)
        pcall(coroutine.resume, kept) hoard = nil""",
    ),
    "one that died without memory, closed": ("ok", _CLOSE_KEPT),
}

BUSY_C: Final[dict[str, tuple[Ending, str]]] = {
    "rep of nothing": (
        "ok",
        "assert(('').rep('', 1 << 60) == '' and ('x'):rep(0) == '' and string.rep('', 9, '') == '')",
    ),
    "rep with a long separator": ("error", "return ('x'):rep(1 << 40, 'yyy')"),
    "rep with a text as count": ("error", "return ('x'):rep('1e15')"),
    "rep with NaN": ("error", "return ('x'):rep(0/0)"),
    "move": ("error", "return table.move({}, 1, 1 << 50, 2)"),
    "move with floats": ("error", "return table.move({}, 1.0, 2.0 ^ 50, 2)"),
    "move with texts": ("error", "return table.move({}, '1', '1e15', 2)"),
    "move over the whole range": ("error", "return table.move({}, math.mininteger, math.maxinteger, 2)"),
    "a false __len": (
        "ok",
        """local t = setmetatable({}, {__len = function() return 1 << 60 end})
        for _, name in ipairs{'insert', 'remove', 'concat', 'sort', 'unpack'} do assert(not pcall(table[name], t, 1, 1)) end""",
    ),
    "insert into a long table": ("error", f"{_LONG} table.insert(t, 1, 1)"),
    "remove from a long table": ("error", f"{_LONG} table.remove(t, 1)"),
    "concat of a long table": ("error", f"{_LONG} table.concat(setmetatable(t, {{__index = rawlen}}))"),
    "concat with __index in C": (
        "error",
        "table.concat(setmetatable({}, {__index = rawlen}), '', 1, math.maxinteger)",
    ),
    "concat over the whole range": (
        "error",
        "table.concat(setmetatable({}, {__index = rawlen}), '', math.mininteger, math.maxinteger)",
    ),
    "sort of a long table": ("error", f"{_LONG} table.sort(t)"),
    "sort of a long table in C": (
        "limit",
        f"{_LONG.replace('62', '29').replace('60', '20')} table.sort(t, rawequal)",
    ),
    "sort of many": (
        "limit",
        "local t = {} for i = 1, 900000 do t[i] = i * 7919 % 900001 end while true do table.sort(t) end",
    ),
    "sort of long texts": (
        "time",
        """local a, b, t = ('a'):rep(3000000) .. 'b', ('a'):rep(3000000) .. 'c', {}
        for i = 1, 5000 do t[i] = i % 2 == 0 and a or b end table.sort(t)""",
    ),
    "sort that takes things away": (
        "time",
        "local t = {} for i = 1, 500 do t[i] = i end while true do pcall(table.sort, t, function() t[#t] = nil return true end) end",
    ),
    "unpack of a range": ("error", "return table.unpack({}, 1, 1 << 50)"),
    "unpack over the whole range": ("error", "return table.unpack({}, math.mininteger, math.maxinteger)"),
    "unpack of a million": ("error", "return table.unpack({}, 1, 1000000)"),
    "byte of everything": ("error", "return ('x'):rep(3000000):byte(1, -1)"),
    "codepoint of everything": ("error", "return utf8.codepoint(('x'):rep(3000000), 1, -1)"),
    "format with a great width": ("error", "return string.format('%99999d', 1)"),
    "format of many": ("error", "return string.format(('%99d'):rep(1000000), 1)"),
    "format without arguments": ("error", "return string.format(('%s'):rep(1000000))"),
    "pack of much": ("memory", "return string.pack('c100000000', 'x')"),
    "pack of more": ("error", "return string.pack('c9223372036854775807', 'x')"),
    "pack with an odd size": ("error", "return string.pack('!17 i4', 1)"),
    "unpack with a false size": ("error", r"return string.unpack('s8', '\255\255\255\255\255\255\255\127')"),
    "unpack many": ("error", "return string.unpack(('B'):rep(2000000), ('x'):rep(2000000))"),
    "packsize": ("error", "return string.packsize(('c2147483647'):rep(3))"),
    "utf8.char of many": (
        "ok",
        "local t = {} for i = 1, 50000 do t[i] = 65 end assert(#utf8.char(table.unpack(t)) == 50000)",
    ),
    "utf8.len of garbage": ("ok", r"assert(not utf8.len(('\255'):rep(1000000)))"),
    "os.date formats": (
        "ok",
        "assert(not pcall(os.date, '%Ez') and not pcall(os.date, '%') and not pcall(os.date, '%c', 1 << 60)) os.date(('%c'):rep(10000))",
    ),
    "os.time of odd tables": (
        "ok",
        """assert(not pcall(os.time, {year = 1 << 40, month = 1, day = 1}) and not pcall(os.time, {}))
        assert(not pcall(os.time, string) and not pcall(os.time, {year = 'x', month = {}, day = print}))
        os.time({year = 2024, month = -100000, day = 100000})""",
    ),
    "random without a range": (
        "ok",
        "assert(not pcall(math.random, 2, 1) and not pcall(math.random, 1, 2, 3)) math.random(0) math.randomseed(1, 2)",
    ),
    "select": (
        "ok",
        "assert(select('#', table.unpack({}, 1, 50000)) == 50000 and not pcall(select, 0) and select(1 << 62) == nil)",
    ),
}

PATTERNS: Final[dict[str, tuple[Ending, str]]] = {
    "stars": ("time", "return ('a'):rep(40):find(('a*'):rep(25) .. 'b')"),
    "stars in gsub": ("time", "return ('a'):rep(40):gsub(('a*'):rep(25) .. 'b', '')"),
    "stars in gmatch": ("time", "for _ in ('a'):rep(40):gmatch(('a*'):rep(25) .. 'b') do end"),
    "lazy": ("time", "return ('a'):rep(1000):match(('.-'):rep(9) .. 'b')"),
    "question marks": ("time", "return ('a'):rep(90):find(('a?'):rep(70) .. ('a'):rep(70) .. 'b')"),
    "question marks beyond integers": ("time", "return ('a'):rep(200):find(('a?'):rep(130) .. ('a'):rep(130) .. 'b')"),
    "a number as subject": ("time", "return string.find(1111111111111111111, ('[0-9]*'):rep(22) .. 'x')"),
    "a number as subject of gsub": ("time", "return string.gsub(1111111111111111111, ('[0-9]*'):rep(22) .. 'x', '')"),
    "an anchor that is none": ("time", "for _ in ('^'):rep(300000):gmatch('^.-b') do end"),
    "a large class": ("time", "return ('a'):rep(1000000):find('[' .. ('b'):rep(300000) .. ']-c')"),
    "many large classes": ("limit", "return ('a'):rep(100000):find(('[' .. ('b'):rep(1000) .. ']*'):rep(1000) .. 'c')"),
    "balanced": ("time", "return ('('):rep(1000000):find('%b()')"),
    "balanced, many times": ("time", "return ('('):rep(100000):find('%b()%b()')"),
    "back references": ("time", "return ('a'):rep(100000):find('(a+)%1b')"),
    "frontiers": ("time", "return ('a '):rep(200000):find('%f[%a].-%f[%z]b')"),
    "trim": ("time", "return (' '):rep(500000):match('^(.-)%s*$') .. (' '):rep(400000):match('^%s*(.-)%s*x')"),
    "plain search": (
        "limit",
        "while true do local x = ('a'):rep(1500000):find(('a'):rep(700000) .. 'b', 1, true) end",
    ),
    "literal search": ("limit", "return ('a'):rep(1500000):match(('a'):rep(700000) .. 'b')"),
    "too many captures": ("error", "return ('a'):rep(100):find(('(a)'):rep(50))"),
    "malformed": (
        "ok",
        "for _, p in ipairs{'[', '%', '(', 'a*)', '[^', '%b', '%bx', '%f', '[a-', '%1', '(()', '[%'} do assert(not pcall(string.find, 'aaaa', p)) end",
    ),
    "deep": ("error", "return ('a'):rep(100000):find(('(a?)'):rep(31) .. ('a-'):rep(300) .. 'b')"),
    "a replacement that grows": ("memory", "return ('x'):rep(100000):gsub('.', ('y'):rep(1000))"),
    "a bad replacement": ("error", "return ('x'):gsub('.', '%9')"),
}

MEMORY: Final[dict[str, tuple[Ending, str]]] = {
    "rep": ("memory", "return ('x'):rep(60000000)"),
    "doubling": ("memory", "local s = 'x' while true do s = s .. s end"),
    "a table of texts": ("memory", "local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end"),
    "an array": ("memory", "local t = {} for i = 1, 1e9 do t[i] = i end"),
    "a map": ("limit", "local t = {} for i = 1, 1e9 do t['k' .. i] = i end"),
    "tables": ("memory", "local t while true do t = {t} end"),
    "closures": ("memory", "local f while true do local g = f f = function() return g end end"),
    "coroutines": ("memory", "local t = {} while true do t[#t + 1] = coroutine.create(spin) end"),
    "suspended coroutines": (
        "memory",
        "local t = {} while true do local co = coroutine.wrap(function() coroutine.yield() end) co() t[#t + 1] = co end",
    ),
    "values that are closed": (
        "limit",
        "local function f(n) local g <close> = setmetatable({}, {__close = print}) return n + f(n + 1) end f(1)",
    ),
    "a deep stack": ("error", "local function f(...) return f(1, ...) end f()"),
    "format": ("memory", "return string.format('%s%s', ('x'):rep(9000000), ('y'):rep(9000000))"),
    "concat": (
        "memory",
        "local s = ('x'):rep(1000000) local t = {} for i = 1, 1000 do t[i] = s end return table.concat(t)",
    ),
    "utf8": ("memory", "local t = {} while true do t[#t + 1] = utf8.char(0x10FFFF, #t):rep(1000) end"),
    "upper": ("memory", "local s, t = ('x'):rep(3000000), {} while true do t[#t + 1] = s:upper() .. #t end"),
    "globals": ("memory", "local i = 0 while true do i = i + 1 _G['g' .. i] = ('x'):rep(1000) .. i end"),
    "upvalues that stay": ("memory", "kept = kept or {} while true do kept[#kept + 1] = ('x'):rep(1000) .. #kept end"),
    "metatables": ("memory", "local t = {} while true do t[#t + 1] = setmetatable({}, {__index = {}}) end"),
    "metatables that take turns": (
        "limit",
        "local t = setmetatable({}, {}) while true do setmetatable(t, {x = ('x'):rep(100)}) end",
    ),
    "in a coroutine": ("memory", "coroutine.wrap(function() local t = {} while true do t[#t + 1] = {} end end)()"),
    "in a callback": ("memory", "('x'):gsub('.', function() local t = {} while true do t[#t + 1] = {} end end)"),
    "in __close": (
        "memory",
        "local g <close> = setmetatable({}, {__close = function() local t = {} while true do t[#t + 1] = {} end end})",
    ),
    "caught and again": ("time", "while true do pcall(string.rep, 'x', 60000000) end"),
    "caught by xpcall and again": ("time", "while true do xpcall(string.rep, spin, 'x', 60000000) end"),
    "caught in a coroutine and again": (
        "time",
        "while true do coroutine.resume(coroutine.create(function() return ('x'):rep(60000000) end)) end",
    ),
    "an error object at the limit": (
        "error",
        "local t = {} local ok, e = pcall(function() while true do t[#t + 1] = {} end end) error(e)",
    ),
    "host functions": ("limit", "local t = {} while true do t[#t + 1] = probe.text(1000) end"),
    "host functions, caught": (
        "time",
        "local t = {} while true do pcall(function() t[#t + 1] = probe.text(100000) end) end",
    ),
    "host functions at the limit": (
        "time",
        """local t = {} pcall(function() while true do t[#t + 1] = {} end end)
        while true do pcall(probe.text, 10) pcall(uuid.v4) pcall(time.now) pcall(queue.message) pcall(probe.fail) end""",
    ),
    "host functions at the limit, in a coroutine": (
        "limit",
        """local t = {} pcall(function() while true do t[#t + 1] = {} end end)
        coroutine.wrap(function() while true do pcall(probe.text, 1000) pcall(uuid.v4) pcall(probe.fail) end end)()""",
    ),
    "a large result of a host function": ("memory", "return probe.text(60000000)"),
    "a large result of a host function, caught": ("time", "while true do pcall(probe.text, 60000000) end"),
    "an ephemeron chain": (
        "limit",
        """local mt, keys = {}, {} local e = setmetatable({}, mt) mt.__mode = 'k'
        for i = 1, 20000 do keys[i] = {} end for i = 1, #keys - 1 do e[keys[i]] = keys[i + 1] end
        local first = keys[1] keys = nil while true do local t = {} end""",
    ),
    "weak tables whose metatables equal ours": (
        "limit",
        """local always, live = {__eq = function() return true end}, {}
        for i = 1, 400000 do
          local m = setmetatable({}, always) local t = setmetatable({}, m) m.__mode = 'kv' live[i % 5000 + 1] = t
          local u = live[(i * 7) % 5000 + 1]
          if u then setmetatable(u, {__index = function() return i end}) local x = u.foo end
          local v = i % 3 == 0 and live[(i * 13) % 5000 + 1]
          if v then setmetatable(v, nil) setmetatable(v, {__index = {bar = 1}}) end
        end spin()""",
    ),
    "weak tables with new metatables": (
        "limit",
        """local ballast, live = {}, {}
        for i = 1, 40000 do ballast[i] = {{}} end
        for i = 1, 3000 do local mt = {} live[i] = setmetatable({}, mt) mt.__mode = 'kv' end
        while true do
          for i = 1, #live do
            local m = {__index = {foo = i}} setmetatable(live[i], m) m.__mode = 'kv' m = nil
            local junk = {i, {i}}
          end
          for k = 1, 9000 do local j = {{k}} end
          for i = 1, #live do assert(live[i].foo == i) end
        end""",
    ),
}

CODECS: Final[dict[str, tuple[Ending, str]]] = {
    "decode of deep nesting": (
        "ok",
        "assert(not json.decode(('['):rep(1000000))) assert(not json.decode(('{\"a\":'):rep(1000000)))",
    ),
    "decode of a long number": (
        "ok",
        "json.decode(('1'):rep(1000000)) json.decode('1' .. ('0'):rep(100000) .. 'e-100000')",
    ),
    "decode of a huge exponent": ("ok", "assert(not json.decode('1e999999999'))"),
    "decode of many": ("limit", "local s = '[' .. ('1,'):rep(2000000) .. '1]' while true do json.decode(s) end"),
    "decode of a text without an end": (
        "ok",
        r"""assert(not json.decode('"' .. ('x'):rep(1000000)))
        assert(not json.decode('{"' .. ('\\u0041'):rep(100000))) assert(not json.decode('[' .. (' '):rep(1000000)))""",
    ),
    "encode of a cycle": (
        "ok",
        "local t = {} t.t = t assert(not json.encode(t)) t = {} t[1] = t assert(not json.encode(t))",
    ),
    "encode of many": ("limit", "local t = {} for i = 1, 1000000 do t[i] = i end while true do json.encode(t) end"),
    "encode of a billion laughs": ("limit", "local t = {'ha'} for i = 1, 60 do t = {t, t} end return json.encode(t)"),
    "publish of a billion laughs": (
        "limit",
        "local t = {'ha'} for i = 1, 60 do t = {t, t} end return queue.publish('app:sink', t)",
    ),
    "a store's billion laughs": (
        "limit",
        "local t = {'ha'} for i = 1, 60 do t = {t, t} end return store.get('app:cache'):set('k', t)",
    ),
    "a logger's billion laughs": (
        "limit",
        "local t = {'ha'} for i = 1, 60 do t = {t, t} end logger:warn('x', {t = t})",
    ),
    "a schema that refers to itself": (
        "ok",
        """assert(not json.validate({['$ref'] = '#'}, 1))
        assert(not json.validate({['$defs'] = {a = {['$ref'] = '#/$defs/b'}, b = {['$ref'] = '#/$defs/a'}}, ['$ref'] = '#/$defs/a'}, 1))""",
    ),
    "a schema that doubles": ("limit", "return json.validate({anyOf = {{['$ref'] = '#'}, {['$ref'] = '#'}}}, 1)"),
    "a schema with a pattern": (
        "limit",
        "json.validate({type = 'string', pattern = '(a*)*b'}, ('a'):rep(4000)) error('ended', 0)",
    ),
    "unique items": (
        "limit",
        "local t = {} for i = 1, 30000 do t[i] = {i} end return json.validate({uniqueItems = true}, t)",
    ),
    "many schemas": ("time", "local i = 0 while true do i = i + 1 json.validate({minimum = i}, i) end"),
    "errors in errors": (
        "limit",
        "local e = errors.new('x') for i = 1, 100000 do e = errors.wrap(e, 'y') end error(e)",
    ),
    "an error with a cycle": ("error", "local t = {} t.t = t error(errors.new{message = 'x', details = t})"),
    "an error with a long message": ("error", "error(errors.new(('x'):rep(5000000)))"),
    "an error with functions": (
        "error",
        "error(errors.new{message = 'x', details = {f = print, e = errors.new('y')}})",
    ),
    "an error with an odd kind": ("error", r"error(errors.new{message = 'x', kind = '\0\255' .. ('k'):rep(100000)})"),
    "a table as error": ("error", "error({})"),
    "a function as error": ("error", "error(print)"),
    "a coroutine as error": ("error", "error(coroutine.create(print))"),
    "nil as error": ("error", "error()"),
    "a number as error": ("error", "error(0/0)"),
    "true as error": ("error", "error(true)"),
    "bytes as error": ("error", r"error('\255\0\n\27[31m')"),
    "a message as error": ("error", "error(queue.message())"),
}

MODULES: Final[dict[str, tuple[Ending, str]]] = {
    "a long sleep": ("time", "time.sleep('1000h')"),
    "sleeps without end": ("time", "while true do time.sleep('1ms') end"),
    "sleeps, caught": ("time", "while true do pcall(time.sleep, '1h') end"),
    "sleep in a coroutine": ("time", "while true do coroutine.wrap(time.sleep)('1h') end"),
    "sleep of odd numbers": (
        "ok",
        "for _, n in ipairs{0, -1, math.mininteger, 0/0, -1/0, 'x', {}, true} do pcall(time.sleep, n) end",
    ),
    "sleep of the largest numbers": ("time", "time.sleep(math.maxinteger) time.sleep(1/0) spin()"),
    "hashes of much": ("time", "local s = ('x'):rep(3000000) while true do hash.sha512(s) end"),
    "fnv of much": ("time", "while true do hash.fnv64(('x'):rep(3000000)) end"),
    "base64 of much": ("limit", "local s = ('x'):rep(3000000) while true do base64.decode(base64.encode(s)) end"),
    "base64 that grows": ("limit", "local s = ('x'):rep(3000000) while true do s = base64.encode(s) end"),
    "uuids of much": ("time", "while true do uuid.v5('6ba7b810-9dad-11d1-80b4-00c04fd430c8', ('x'):rep(1000000)) end"),
    "uuids of garbage": (
        "ok",
        r"for _, v in ipairs{'', '\0', ('f'):rep(100000), {}, 1, true} do assert(not uuid.parse(v)) end",
    ),
    "a time with a hostile layout": ("limit", "local s = ('2006-'):rep(20000) while true do time.parse(s, s) end"),
    "a hostile duration": (
        "ok",
        "assert(not time.parse_duration(('1h'):rep(3000) .. 'x')) assert(not time.parse_duration('9' .. ('9'):rep(100000) .. 'h'))",
    ),
    "a zone outside": (
        "ok",
        "for _, n in ipairs{'../../etc/passwd', '/etc/passwd', '', 'a\\0b', ('x'):rep(10000)} do assert(not time.load_location(n)) end",
    ),
    "publishing without leave": ("ok", "local ok, err = queue.publish('app:secret', {a = 1}) assert(not ok and err)"),
    "publishing nonsense": (
        "ok",
        "for _, v in ipairs{print, coroutine.create(print), {[1.5] = 1}, {f = print}} do assert(not queue.publish('app:sink', v)) end",
    ),
    "a publish flood": ("limit", "while true do queue.publish('app:sink', {x = 1}) end"),
    "headers without end": (
        "limit",
        "local h = {} for i = 1, 100000 do h['k' .. i] = 'v' end while true do queue.publish('app:sink', 'x', h) end",
    ),
    "reserved headers": (
        "ok",
        "assert(not queue.publish('app:sink', 'x', {attempts = 0})) assert(not queue.publish('app:sink', 'x', {x_original_queue = 'y'}))",
    ),
    "a store flood": (
        "ok",
        "local s = store.get('app:cache') for i = 1, 1000 do s:set('k' .. i, ('x'):rep(100)) end assert(s:info().entries <= 10)",
    ),
    "an undeclared store": ("ok", "assert(not store.get('app:other'))"),
    "undeclared variables": (
        "ok",
        "for _, n in ipairs{'PATH', 'HOME', 'app:PATH', '', '\\0', 'A=B'} do assert(not env.get(n)) end assert(next(env.get_all()) == nil)",
    ),
    "setting a variable": ("ok", "assert(not env.set('LD_PRELOAD', 'x'))"),
    "logs without end": ("time", "while true do logger:warn('x') end"),
    "logs with control characters": (
        "ok",
        r"""logger:warn('fine\n2026-01-01 CRITICAL forged\r\27[2J\0\255', {['a\nb'] = 'c\nd'}) print('x\ny')""",
    ),
    "long logs": ("limit", "local s = ('a.'):rep(500000) .. '://' while true do logger:warn(s, {s = s}) end"),
    "loggers without end": (
        "ok",
        """for i = 1, 300 do logger:named('n' .. i):info('x') end
        local l = logger for i = 1, 100 do l = l:named('abcdefgh') or l end l:info('x') assert(not logger:named(('x.'):rep(5000)))""",
    ),
    "functions that call themselves": ("error", "local v, err = funcs.call('app:recursive', 0) return nil, err"),
    "functions that call themselves twice": ("time", "while true do funcs.call('app:fork', 0) end"),
    "an unknown function": (
        "ok",
        "assert(not funcs.call('app:nobody')) assert(not funcs.call('os:system', 'id')) assert(not funcs.call(('x'):rep(10000)))",
    ),
    "a call that never ends": ("time", "funcs.call('app:endless')"),
    "a call that never ends, with a limit": (
        "time",
        "while true do funcs.new():with_options({timeout = 0.01}):call('app:endless') end",
    ),
    "a call with too much": ("limit", "local s = ('x'):rep(3000000) return funcs.call('app:echo', s, s, s, s, s, s)"),
    "a call with functions": (
        "ok",
        "assert(not funcs.call('app:echo', print)) assert(not funcs.call('app:echo', {f = spin}))",
    ),
    "a call in a call to the end of the stack": ("error", "local v, err = funcs.call('app:deep', 0) return nil, err"),
    "making oneself another actor": (
        "ok",
        """assert(security.actor() == nil and security.can('x', 'y') == false)
        assert(not pcall(setmetatable, security, {}))""",
    ),
    "acting as everybody": (
        "ok",
        "pcall(function() funcs.new():with_actor({id = 'root'}) end) pcall(function() funcs.new():with_scope({}) end)",
    ),
    "channels": ("ok", "assert(not pcall(time.after, 1) and not pcall(time.ticker, 1))"),
    "wrong arguments everywhere": (
        "ok",
        """for _, m in ipairs{json, queue, store, env, hash, base64, uuid, time, ctx, funcs, security, errors} do
          for name, f in pairs(m) do
            if type(f) == 'function' and name ~= 'sleep' then
              for _, v in ipairs{{}, print, true, -1, 0/0, ('x'):rep(100), '\\0', coroutine.create(print), queue.message(), string} do
                pcall(f, v) pcall(f, v, v) pcall(f, v, v, v) pcall(f, m, v) pcall(f, 'app:sink', v, v)
              end
            end
          end
        end""",
    ),
}

# What a handler makes that says of itself that it equals each table it is compared with, and keeps that one.
_EQUAL = "local met local fake = setmetatable({}, setmetatable({}, {__eq = function(_, b) met = b return true end}))"

REACHING_OUT: Final[dict[str, tuple[Ending, str]]] = {
    "a metatable that equals all others": (
        "ok",
        f"""{_EQUAL}
        assert(type(fake) == 'table' and not errors.is(fake, 'x')) pcall(errors.wrap, fake, 'x')
        local actor, refused = funcs.new():with_actor(fake) assert(not actor and refused)
        local scope, refused = funcs.new():with_scope(fake) assert(not scope and refused)
        json.encode(fake) json.encode({{a = fake}}) json.validate('{{"enum": [null]}}', fake) json.validate({{}}, fake)
        pcall(json.validate, fake, 1) pcall(string.format, '%s', fake) pcall(tostring, fake)
        pcall(store.get('app:cache').get, fake, 'k') pcall(queue.message().id, fake) pcall(queue.publish, 'app:sink', fake)
        pcall(time.now().sub, fake, fake) pcall(time.sleep, fake) pcall(logger.info, 'x', fake) pcall(logger.info, fake, 'x')
        pcall(error, fake) xpcall(error, function(e) return e == fake end, fake)
        coroutine.resume(coroutine.create(error), fake)
        assert(met == nil or met == fake, 'a table of ours came out')""",
    ),
    "an error that equals all others": ("error", "error(setmetatable({}, {__eq = function() return true end}))"),
    "what is not there": (
        "ok",
        """for _, name in ipairs{'io', 'debug', 'package', 'load', 'loadfile', 'dofile', 'loadstring', 'collectgarbage', 'python',
          'warn', 'module', 'jit', 'ffi', 'lupa', 'builtins', 'eval'} do assert(_G[name] == nil, name) end
        for name in pairs(os) do assert(name == 'time' or name == 'date' or name == 'clock' or name == 'difftime', name) end
        assert(string.dump == nil and table.foreach == nil)""",
    ),
    "require of what is not declared": (
        "ok",
        """for _, name in ipairs{'io', 'os', 'debug', 'package', '_G', 'python', '../x', '/etc/passwd', '', 'json.lua', 'bootstrap'} do
          assert(not pcall(require, name), name) end
        for _, v in ipairs{{}, 1, true, print, setmetatable({}, {__tostring = function() return 'json' end})} do assert(not pcall(require, v)) end
        assert(not pcall(require))""",
    ),
    "a library table through pairs": (
        "ok",
        "local _, t = pairs(string) assert(not pcall(function() t.format = 1 end) and not pcall(rawset, t, 'format', 1))",
    ),
    "a thread that is no coroutine": (
        "ok",
        """local main = coroutine.running()
        assert(not coroutine.resume(main) and not pcall(coroutine.close, main) and not pcall(coroutine.yield))
        assert(getmetatable(main) == nil and not pcall(function() return main.x end))""",
    ),
    "what host functions give": (
        "ok",
        """for _, v in ipairs{probe.text(1), time.now(), uuid.v4(), queue.message(), logger, errors.new('x'), select(2, probe.fail())} do
          local mt = getmetatable(v)
          assert(mt == false or type(v) == 'string' or mt == nil)
          for _, name in ipairs{'__class__', '__globals__', '__init__', '__dict__', '__subclasses__', '__traceback__', 'args', 'f_back'} do
            local ok, found = pcall(function() return v[name] end) assert(not ok or found == nil, name) end
          assert(not pcall(function() for _ in pairs(v) do end end) or type(v) == 'table')
        end""",
    ),
    "what exceptions of Python show": (
        "ok",
        """local v, err = probe.fail() assert(v == nil and err:kind() == 'Internal')
        local text = tostring(err) .. err:stack() .. tostring(err:details() or '')
        assert(not text:find('Traceback', 1, true) and not text:find('.py', 1, true), text)""",
    ),
    "userdata": (
        "ok",
        """local seen = {}
        local function look(v, depth)
          if depth > 6 or seen[v] then return end
          if type(v) == 'table' then
            seen[v] = true
            assert(not tostring(v):find('POBJECT', 1, true) and not tostring(v):find('<', 1, true))
            for k, x in pairs(v) do look(k, depth + 1) look(x, depth + 1) end
          else assert(type(v) ~= 'userdata' or getmetatable(v) == false) end
        end
        look(_G, 0) for _, m in ipairs{json, queue, store, env, hash, base64, uuid, time, ctx, funcs, security, errors, probe} do look(m, 0) end""",
    ),
    "tables as arguments of host functions": (
        "ok",
        "assert(probe.text({}) == nil or true) assert(not pcall(uuid.v5, {}, {}) or true)",
    ),
    "methods of strings": ("ok", "assert(not pcall(function() return (''):dump() end) and getmetatable('') == false)"),
    "opaque values through the table functions": (
        "ok",
        """local e = errors.new('x')
        for _, f in ipairs{next, pairs, rawget, rawset, setmetatable, table.insert, table.remove, table.sort, table.concat} do
          local ok, r = pcall(f, e, 1, 1) assert(not ok or r == nil or r == '') end
        assert(rawlen(e) == 0 and rawequal(e, e) and tostring(e) == 'x' and next({}) == nil)""",
    ),
}

_POISONS = {
    "string functions": "string.format = spin",
    "string functions, raw": "rawset(string, 'format', spin)",
    "table functions": "table.insert = spin",
    "math": "math.floor = spin",
    "coroutine": "coroutine.wrap = spin",
    "os": "os.time = spin",
    "utf8": "utf8.char = spin",
    "errors": "errors.new = spin",
    "json": "json.encode = spin",
    "queue": "queue.publish = spin",
    "logger": "logger.info = spin",
    "time": "time.now = spin",
    "the metatable of a library": "setmetatable(string, {__index = spin})",
    "the metatable of strings": "getmetatable('').__index = {}",
    "the metatable of strings, replaced": "setmetatable('', {__index = {}})",
    "the metatable of errors": "getmetatable(errors.new('x')).__tostring = spin",
    "the metatable of errors, replaced": "setmetatable(errors.new('x'), {})",
    "an error": "local e = errors.new('x') e.message = spin",
    "a method through an error": "errors.new('x').kind = spin",
    "a message": "queue.message().id = spin",
    "a library through insert": "table.insert(string, 'x')",
    "a library through move": "table.move({spin}, 1, 1, 1, string)",
    "a library through sort": "table.sort(string) string.x = 1",
    "a library through remove": "table.remove(string, 1) string.x = 1",
    "the kinds of stores": "store.backend.MEMORY = 'x'",
}
POISONING: Final[dict[str, tuple[Ending, str]]] = {
    **{name: ("ok", f"assert(not pcall(function() {code} end))") for name, code in _POISONS.items()},
    "json's markers": (
        "ok",
        """local empty, holes = json.decode('{}'), json.decode('[1,null]')
        assert(getmetatable(empty) == nil and getmetatable(holes) == nil)
        setmetatable(empty, {__index = {poison = 1}}) setmetatable(holes, {__len = function() return 99 end})
        assert(json.encode(json.decode('{}')) == '{}' and json.decode('{}').poison == nil and #json.decode('[1,null]') == 2)""",
    ),
    "one's own globals": (
        "ok",
        """local names = {} for name in pairs(_G) do names[#names + 1] = name end
        kept_g = {} for _, name in ipairs(names) do if name ~= '_G' and name ~= 'kept_g' then kept_g[name] = _G[name] end end
        string, table, pcall, type, tostring = nil setmetatable(_G, {__index = function() error('poison') end, __newindex = rawset})
        local ok, err = queue.publish('app:sink', {a = 1}) assert(ok)
        setmetatable(_G, nil) for name, v in next, kept_g do _G[name] = v end kept_g = nil""",
    ),
    "a body that is kept": ("ok", "kept_body = kept_body or ... "),
    "a message that is kept": (
        "ok",
        "if kept_message then local ok, err = kept_message:ack() assert(not ok and tostring(err):find('released')) end kept_message = queue.message()",
    ),
    "a message that was kept": (
        "ok",
        "local m = kept_message if m then assert(not m:ack() and not m:nack() and not m:id() and not m:headers()) end",
    ),
    "a header table": (
        "ok",
        "local m = queue.message() m:headers().attempts = 99 assert(m:headers().attempts == 0 and m:header('attempts') == 0)",
    ),
    "details of an error": ("ok", "local e = select(2, probe.fail()) local d = e:details() if d then d.x = 1 end"),
    "values of a store": (
        "ok",
        "local s = store.get('app:cache') s:set('k', {a = 1}) s:get('k').a = 2 assert(s:get('k').a == 1)",
    ),
    "constants of a loop": (
        "ok",
        "local ok = pcall(function() for k in pairs(math) do math[k] = nil end end) assert(not ok and math.pi > 3)",
    ),
    "bytecode": ("ok", r"assert(load == nil and string.dump == nil and not pcall(require, '\27Lua'))"),
}

ATTACKS: Final[dict[str, dict[str, tuple[Ending, str]]]] = {
    "loops": LOOPS,
    "catching": CATCHING,
    "callbacks": CALLBACKS,
    "stacks": STACKS,
    "coroutines": COROUTINES,
    "busy C": BUSY_C,
    "patterns": PATTERNS,
    "memory": MEMORY,
    "codecs": CODECS,
    "modules": MODULES,
    "reaching out": REACHING_OUT,
    "poisoning": POISONING,
}

# What nothing can end: one call of C, for minutes. The worker is given up.
STUCK: Final = {
    "a table that is called through itself": "local mt = {} local t = setmetatable({}, mt) mt.__call = t t()",
    "the same, deep in coroutines": """local mt = {} local t = setmetatable({}, mt) mt.__call = t
        coroutine.wrap(function() pcall(coroutine.wrap(function() return setmetatable({}, {__add = t}) + 1 end)) end)()""",
}
