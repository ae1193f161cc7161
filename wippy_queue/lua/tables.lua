-- The library `table` as handlers see it: see sandbox.lua, which loads this when it is first used.
local std, lib, core = ...
local type, tonumber, select, next, rawget, error = std.type, std.tonumber, std.select, std.next, std.rawget, std.error
local table, metatable_of, getinfo, sealed = std.table, std.getmetatable, core.getinfo, core.sealed

local MAX_MOVE <const> = 4000000 -- elements that one call may move
local MAX_SORT <const> = 50000 -- elements that C may sort on its own
local MAX_COMPARED <const> = 1000000000 -- bytes that C may compare in one sort
local MANY <const> = 10000 -- elements: more than these take milliseconds

local safe_table = { pack = table.pack }

-- Raise when a call would move too many elements; look at the clock when it moves many.
local function weigh(name, first, last, level)
  first, last = tonumber(first), tonumber(last)
  local count = first and last and last - (first + 0.0) or 0
  if count >= MAX_MOVE then error('table.' .. name .. ': more than ' .. MAX_MOVE .. ' elements', level) end
  if count > MANY then core.look() end
end

-- Guards: raise for what would keep C busy, else give the arguments to call Lua's own function with. The length of a
-- table with gaps can be any number, 2^62 for one.
local guards = {}

function guards.insert(t, ...)
  if select('#', ...) > 1 then weigh('insert', (...), #t, 4) end
  return t, ...
end

function guards.remove(t, ...)
  local position = ...
  if position ~= nil then weigh('remove', position, #t, 4) end
  return t, ...
end

function guards.concat(t, separator, first, last)
  weigh('concat', first or 1, last or #t, 4)
  return t, separator, first, last
end

local function is_less(a, b) return a < b end

-- With a function of Lua to compare, the clock is looked at while C sorts.
function guards.sort(t, compare)
  local size = #t
  if size > MANY then core.look() end
  if compare ~= nil then
    if type(compare) == 'function' and getinfo(compare, 'S').what == 'C' then
      local native = compare
      compare = function(a, b) return native(a, b) end
    end
  elseif size > MAX_SORT then
    compare = is_less
  else
    local longest = 0
    for i = 1, size do
      local v = rawget(t, i)
      if type(v) == 'string' and #v > longest then longest = #v end
    end
    if longest * size * 16 > MAX_COMPARED then compare = is_less end
  end
  return t, compare
end

for _, name in next, { 'concat', 'insert', 'remove', 'sort', 'unpack' } do
  local f, guard = table[name], guards[name]
  safe_table[name] = function(t, ...)
    local mt = metatable_of(t)
    if mt and rawget(mt, '__len') ~= nil and not sealed[mt] then
      local json = rawget(lib, 'json')
      if not (json and json.is_array_mt(mt)) then
        -- A false length would keep a loop in C busy for ever.
        error('table.' .. name .. ': not on a table that has a __len of its own', 2)
      end
      if name == 'insert' then return json.array_insert(t, ...) end
      if name == 'remove' then return json.array_remove(t, ...) end
    end
    if guard and type(t) == 'table' then return f(guard(t, ...)) end
    return f(t, ...)
  end
end

function safe_table.move(a, first, last, ...)
  weigh('move', first, last, 3)
  return table.move(a, first, last, ...)
end

return safe_table
