-- Lua's string matcher backtracks inside one call of C, which nothing can end: '^(.-)%s*$' on a megabyte of blanks runs
-- for an hour. So each call is judged first: if it is cheap at worst it goes to C, else it is done here, in Lua, with the
-- same result: some thirty times slower, but a time limit ends it.
local std = ...
local string = std.string
local byte, char, find, sub, match = string.byte, string.char, string.find, string.sub, string.match
local type, tostring, select, error, math = std.type, std.tostring, std.select, std.error, std.math
local concat, unpack = std.table.concat, std.table.unpack

local BUDGET <const> = 5e7 -- steps of the C matcher, some 3 ns each
local PLAIN_BUDGET <const> = 1e9 -- bytes that memcmp may compare
local MAX_SHAPES <const> = 200 -- patterns that are remembered
local MAX_CAPTURES <const> = 32

-- Reading a pattern ---------------------------------------------------------------------------------------------------

-- Call visit(kind, text, quantifier) for each item; kinds: single, open, close, balance, frontier, back, stop. Return
-- false for a malformed pattern: C has the right words for it.
local function items(p, from, visit)
  local i, size = from, #p
  while i <= size do
    local c = sub(p, i, i)
    if c == '(' or c == ')' then
      local position = c == '(' and sub(p, i + 1, i + 1) == ')'
      visit(c == '(' and 'open' or 'close', position)
      i = i + (position and 2 or 1)
    elseif c == '$' and i == size then
      visit('stop')
      i = i + 1
    elseif find(p, '^%%b', i) then
      if i + 3 > size then return false end
      visit('balance', sub(p, i + 2, i + 3))
      i = i + 4
    elseif find(p, '^%%%d', i) then
      visit('back', byte(p, i + 1) - 48)
      i = i + 2
    else
      local frontier = find(p, '^%%f', i)
      if frontier then i = i + 2 end
      local last = i
      local first = sub(p, i, i)
      if first == '[' then
        last = i + 1
        if sub(p, last, last) == '^' then last = last + 1 end
        repeat -- the first ']' is a member
          if last > size then return false end
          if sub(p, last, last) == '%' then last = last + 1 end
          last = last + 1
        until sub(p, last, last) == ']'
        if last > size then return false end
      elseif frontier then
        return false
      elseif first == '%' then
        last = i + 1
        if last > size then return false end
      end
      local text, quantifier = sub(p, i, last), not frontier and match(p, '^[*+?-]', last + 1) or nil
      visit(frontier and 'frontier' or 'single', text, quantifier)
      i = last + (quantifier and 2 or 1)
    end
  end
  return true
end

-- A single item as a pattern of its own, where nothing is special by its place.
local function alone(text)
  return #text == 1 and text ~= '.' and find(text, '%p') and '%' .. text or text
end

-- Judging -------------------------------------------------------------------------------------------------------------

local shapes, shape_count = {}, 0

-- What can make a pattern slow: { anchored, weight of a step, classes of the items that can be tried more than once }; or
-- false for a pattern that needs one look at each character.
local function shape_of(p)
  local shape = shapes[p]
  if shape ~= nil then return shape end
  local anchored = byte(p, 1) == 94
  local list = {}
  local ok = items(p, anchored and 2 or 1, function(kind, text, quantifier)
    if kind ~= 'open' and kind ~= 'close' then list[#list + 1] = { kind, text, quantifier } end
  end)
  shape = { anchored = anchored, weight = #p / 16 + 1 } -- a float: it may grow beyond all integers
  local may_fail = false -- what follows; if it cannot fail, nothing is tried again
  for i = ok and #list or 0, 1, -1 do
    local kind, text, quantifier = list[i][1], list[i][2], list[i][3]
    if kind == 'balance' or kind == 'back' then
      shape[#shape + 1] = '.'
    elseif quantifier == '?' and may_fail then
      shape.weight = shape.weight * 2
    elseif quantifier and may_fail then
      shape[#shape + 1] = alone(text)
    end
    may_fail = may_fail or quantifier == nil or quantifier == '+'
  end
  if #shape == 0 and #p < 16 and shape.weight < 2 then shape = false end
  if shape_count >= MAX_SHAPES then shapes, shape_count = {}, 0 end
  shapes[p], shape_count = shape, shape_count + 1
  return shape
end

local function longest_run(s, class, from)
  if class == '.' or (#s - from) * #class > BUDGET then return #s - from + 1 end
  local longest, first, last = 0, nil, from - 1
  repeat
    first, last = find(s, class .. '+', last + 1)
    if first and last - first >= longest then longest = last - first + 1 end
  until not first
  return longest
end

local judged_s, judged_p, judged_from, judged

-- Whether C may take too long with this pattern, from position `from` on; `everywhere`: it is tried at each position,
-- whatever it begins with.
local function is_slow(s, p, from, everywhere)
  local shape = shape_of(p)
  if not shape then return false end
  local size = #s - from + 2
  local starts = shape.weight * (shape.anchored and not everywhere and 1 or size)
  if starts * (size + 0.0) ^ #shape <= BUDGET then return false end
  if not everywhere and judged_s == s and judged_p == p and judged_from <= from then return judged end
  local cost = starts + 0.0
  for i = 1, #shape do cost = cost * (longest_run(s, shape[i], from) + 1) end
  if everywhere then return cost > BUDGET end
  judged_s, judged_p, judged_from, judged = s, p, from, cost > BUDGET
  return judged
end

-- Matching ------------------------------------------------------------------------------------------------------------

local function set_of(text, sets)
  if sets[text] then return sets[text] end
  local set, pattern = {}, '^' .. alone(text)
  for b = 0, 255 do set[b] = find(char(b), pattern) ~= nil end
  sets[text] = set
  return set
end

local UNCLOSED <const>, POSITION <const> = -1, -2

-- Give match(from) -> the position behind the match, or nil, and captures(from, to) -> those of the last match.
local function matcher(s, p, from)
  local program, sets, size = {}, {}, #s
  local ok = items(p, from, function(kind, text, quantifier)
    local set = (kind == 'single' or kind == 'frontier') and set_of(text, sets) or nil
    program[#program + 1] = { kind = kind, text = text, quantifier = quantifier, set = set }
  end)
  if not ok then error('malformed pattern', 0) end
  local starts, sizes, level = {}, {}, 0

  local run

  local function balanced(i, item)
    local open, close = byte(item.text, 1, 2)
    if byte(s, i) ~= open then return nil end
    local depth = 1
    for j = i + 1, size do
      local b = byte(s, j)
      if b == close then
        depth = depth - 1
        if depth == 0 then return j + 1 end
      elseif b == open then
        depth = depth + 1
      end
    end
  end

  local function repeated(i, item, k)
    local set, quantifier = item.set, item.quantifier
    if quantifier == '-' then
      while true do
        local to = run(i, k + 1)
        if to then return to end
        if i > size or not set[byte(s, i)] then return nil end
        i = i + 1
      end
    end
    local last = i
    while last <= size and set[byte(s, last)] and (quantifier ~= '?' or last == i) do last = last + 1 end
    for j = last, quantifier == '+' and i + 1 or i, -1 do
      local to = run(j, k + 1)
      if to then return to end
    end
  end

  local function opened(i, item, k)
    if level >= MAX_CAPTURES then error('too many captures', 0) end
    level = level + 1
    starts[level], sizes[level] = i, item.text and POSITION or UNCLOSED
    local to = run(i, k + 1)
    if not to then level = level - 1 end
    return to
  end

  local function closed(i, k)
    local which = level
    while which > 0 and sizes[which] ~= UNCLOSED do which = which - 1 end
    if which == 0 then error('invalid pattern capture', 0) end
    sizes[which] = i - starts[which]
    local to = run(i, k + 1)
    if not to then sizes[which] = UNCLOSED end
    return to
  end

  function run(i, k)
    while true do
      local item = program[k]
      if not item then return i end
      local kind = item.kind
      if kind == 'single' then
        if item.quantifier then return repeated(i, item, k) end
        if i > size or not item.set[byte(s, i)] then return nil end
        i = i + 1
      elseif kind == 'open' then
        return opened(i, item, k)
      elseif kind == 'close' then
        return closed(i, k)
      elseif kind == 'stop' then
        return i == size + 1 and i or nil
      elseif kind == 'frontier' then
        if item.set[byte(s, i - 1) or 0] or not item.set[byte(s, i) or 0] then return nil end
      elseif kind == 'balance' then
        i = balanced(i, item)
        if not i then return nil end
      else
        local which = item.text
        if which < 1 or which > level or sizes[which] == UNCLOSED then error('invalid capture index %' .. which, 0) end
        if sizes[which] == POSITION then return nil end
        if sub(s, i, i + sizes[which] - 1) ~= sub(s, starts[which], starts[which] + sizes[which] - 1) then return nil end
        i = i + sizes[which]
      end
      k = k + 1
    end
  end

  local function capture(which)
    if sizes[which] == POSITION then return starts[which] end
    if sizes[which] == UNCLOSED then error('unfinished capture', 0) end
    return sub(s, starts[which], starts[which] + sizes[which] - 1)
  end

  -- All captures, or the whole match where there are none and `whole` is set.
  local function captures(i, to, whole)
    if level == 0 then
      if whole then return sub(s, i, to - 1) end
      return
    end
    local list = {}
    for which = 1, level do list[which] = capture(which) end
    return unpack(list, 1, level)
  end

  return function(i)
    level = 0
    return run(i, 1)
  end, captures
end

-- The functions of `string` -------------------------------------------------------------------------------------------

local function start_of(s, init)
  init = math.tointeger(init) or 1
  if init > 0 then return init end
  return init == 0 and 1 or math.max(#s + init + 1, 1)
end

local slow = {}

local function search(s, p, from, whole, positions)
  local anchored = byte(p, 1) == 94
  local try, captures = matcher(s, p, anchored and 2 or 1)
  for i = from, anchored and from or #s + 1 do
    local to = try(i)
    if to then
      if positions then return i, to - 1, captures(i, to, whole) end
      return captures(i, to, whole)
    end
  end
  return nil
end

-- A search without patterns, in pieces that memcmp is soon done with.
local function find_plain(s, p, from)
  local step = math.max(1, PLAIN_BUDGET // 10 // #p)
  while from + #p - 1 <= #s do
    local at = find(sub(s, from, from + step + #p - 2), p, 1, true)
    if at then return from + at - 1, from + at + #p - 2 end
    from = from + step
  end
  return nil
end

function slow.find(s, p, from) return search(s, p, from, false, true) end
function slow.match(s, p, from) return search(s, p, from, true, false) end

function slow.gmatch(s, p, from)
  local try, captures = matcher(s, p, 1)
  local last
  return function()
    for i = from, #s + 1 do
      local to = try(i)
      if to and to ~= last then
        from, last = to, to
        return captures(i, to, true)
      end
    end
    from = #s + 2
    return nil
  end
end

local function expanded(template, whole, ...)
  local count = select('#', ...)
  local list = { ... }
  return (string.gsub(template, '%%(.?)', function(c)
    if c == '%' then return '%' end
    if c == '0' then return whole end
    local which = byte(c, 1) and byte(c, 1) - 48 or -1
    if which < 1 or which > 9 then error("invalid use of '%' in replacement string", 0) end
    if which > count then error('invalid capture index %' .. which .. ' in replacement string', 0) end
    return tostring(list[which])
  end))
end

local function replaced(with, whole, first, ...)
  local kind, value = type(with), nil
  if kind == 'function' then
    value = with(first, ...)
  elseif kind == 'table' then
    value = with[first]
  else
    return expanded(tostring(with), whole, first, ...)
  end
  if not value then return whole end
  if type(value) ~= 'string' and type(value) ~= 'number' then
    error('invalid replacement value (a ' .. type(value) .. ')', 0)
  end
  return tostring(value)
end

function slow.gsub(s, p, with, limit)
  local anchored = byte(p, 1) == 94
  local try, captures = matcher(s, p, anchored and 2 or 1)
  local parts, count, i, last = {}, 0, 1, nil
  while count < (limit or math.huge) do
    local to = try(i)
    if to and to ~= last then
      count = count + 1
      parts[#parts + 1] = replaced(with, sub(s, i, to - 1), captures(i, to, true))
      i, last = to, to
    elseif i <= #s then
      parts[#parts + 1] = sub(s, i, i)
      i = i + 1
    else
      break
    end
    if anchored then break end
  end
  parts[#parts + 1] = sub(s, i)
  return concat(parts), count
end

return {
  -- The function of Lua that is to do the job, or nil when C may.
  choose = function(name, s, p, init, plain)
    local from = start_of(s, init)
    if from > #s + 1 then return nil end
    if name == 'find' and (plain or not find(p, '[%^%$%*%+%?%.%(%[%%%-]')) then
      return #p > 0 and (#s - from + 1) * #p > PLAIN_BUDGET and find_plain or nil, from
    end
    return is_slow(s, p, from, name == 'gmatch') and slow[name] or nil, from
  end,
  slow = slow, -- for the tests, which compare it with C
}
