"""Patterns that would keep C busy are matched in Lua: with the same result, and a time limit ends them."""

from __future__ import annotations

import random
import time

import pytest
from lupa import lua54

from tests.unit.lua.harness import LUA
from tests.unit.lua.support import call
from wippy_queue.errors import Timeout

ATOMS = ["a", "b", ".", "%a", "%s", "[ab]", "[^a]", "%d", "(", ")", "()", "%b()", "%f[%w]", "%1", "$", "^", "[%]x]"]
ATOMS += ["[]]", "[a-b]", "-", "%-", "[a%-]"]
QUANTIFIERS = ["", "", "", "*", "+", "-", "?"]

COMPARE = """
local slow = assert(load((...), '=patterns.lua'))(_G).slow
local function same(what, s, p, native, ours)
  local a, b = table.pack(pcall(native)), table.pack(pcall(ours))
  if not a[1] or tostring(b[2]):find('unfinished capture') then return end -- malformed: C and we notice at other times
  for i = 1, math.max(a.n, b.n) do
    assert(a[i] == b[i], ("%s(%q, %q): result %d: %s, not %s"):format(what, s, p, i, tostring(b[i]), tostring(a[i])))
  end
  assert(a.n == b.n, what)
end
local function all(gmatch, s, p)
  local list = {}
  for a, b in gmatch(s, p, 1) do list[#list + 1] = tostring(a) .. tostring(b) end
  return table.concat(list, '|')
end
return function(s, p, with)
  if p:find('[%^%$%*%+%?%.%(%[%%%-]') then
    same('find', s, p, function() return string.find(s, p) end, function() return slow.find(s, p, 1) end)
  end
  same('match', s, p, function() return string.match(s, p) end, function() return slow.match(s, p, 1) end)
  same('gsub', s, p, function() return string.gsub(s, p, with) end, function() return slow.gsub(s, p, with) end)
  same('gsub', s, p, function() return string.gsub(s, p, with, 2) end, function() return slow.gsub(s, p, with, 2) end)
  same('gmatch', s, p, function() return all(string.gmatch, s, p) end, function() return all(slow.gmatch, s, p) end)
end
"""


def test_our_matcher_gives_what_c_gives() -> None:
    lua = lua54.LuaRuntime(encoding="latin-1", register_eval=False)
    compare = lua.execute(COMPARE, (LUA / "patterns.lua").read_bytes())
    dice = random.Random(7)
    for _ in range(4000):
        pattern = "".join(dice.choice(ATOMS) + dice.choice(QUANTIFIERS) for _ in range(dice.randint(1, 5)))
        pattern = ("^" if dice.random() < 0.2 else "") + pattern + ("$" if dice.random() < 0.2 else "")
        subject = "".join(dice.choice("aab (1)-]x") for _ in range(dice.randint(0, 10)))
        compare(subject, pattern, dice.choice(["<%0>", "x%1", "%%", "q"]))


@pytest.mark.parametrize(
    "code",
    [
        "return ('a'):rep(40):find(('a*'):rep(25) .. 'b')",
        "return ('a'):rep(40):match(('a-'):rep(25) .. 'b')",
        "return ('a'):rep(40):gsub(('a?'):rep(40) .. 'b', 'x')",
        "for _ in ('a'):rep(40):gmatch(('a*'):rep(25) .. 'b') do end",
        "return ('a'):rep(1000000):find('a*b')",
        "return (' '):rep(300000) .. 'x', ((' '):rep(300000) .. 'x'):find('%s+$')",
        "return ('('):rep(500000):find('%b()')",
        "return ('a'):rep(16000000):find(('a'):rep(8000000) .. 'b', 1, true)",
    ],
)
def test_a_pattern_that_backtracks_for_ever_is_ended(code: str) -> None:
    began = time.monotonic()
    with pytest.raises(Timeout):
        call(code, timeout=0.1)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("local n = 0 for k, v in ('key=value; '):rep(20000):gmatch('(%w+)=(%w+)') do n = n + 1 end return n", 20000),
        ("return select(2, ('word, '):rep(100000):gsub('(%w+), ', '%1;'))", 100000),
        ("local n = 0 for line in ('a line of text\\n'):rep(20000):gmatch('[^\\n]+') do n = n + 1 end return n", 20000),
        ("return #('  ' .. ('text '):rep(20000) .. '  '):match('^%s*(.-)%s*$')", 99999),
        ("return (('x'):rep(1000000) .. 'needle'):find('needle', 1, true)", 1000001),
        ("return (('x'):rep(1000000) .. 'needle'):find('n(e+)dle')", 1000001),
    ],
)
def test_ordinary_patterns_on_long_text_stay_fast(code: str, result: int) -> None:
    began = time.monotonic()
    assert call(code, timeout=20) == result
    assert time.monotonic() - began < 3


def test_replacements_of_every_kind_when_c_is_not_asked() -> None:
    body = """
    local s, p = ('a'):rep(3000) .. ',b', '(a-)(a-),(b)'
    local function short(text) return text:sub(1, 3) .. text:sub(-3) end
    return {
      short(s:gsub(p, '%3%%%0')), short(s:gsub(p, function(x, y, z) return #y .. z end)),
      short(s:gsub(p, {[''] = 'x'})), short(s:gsub(p, function() return false end)), (select(2, s:gsub(p, '', 0))),
      select(2, pcall(s.gsub, s, p, function() return {} end)), select(2, pcall(s.gsub, s, p, '%9')),
    }
    """
    assert call(body, timeout=60) == [
        "b%aa,b", "30000b", "xx", "aaaa,b", 0,
        "invalid replacement value (a table)", "invalid capture index %9 in replacement string",
    ]  # fmt: skip
