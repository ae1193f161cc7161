-- The standard library as handlers see it: Lua's own without what reaches out, read-only, and with a guard before what
-- could keep C busy for ever. bootstrap.lua runs it once in each runtime, while all of Lua is still in sight.
local core, lib = ...
local G, DEAD, is_dead, overflows, caught = core.G, core.DEAD, core.is_dead, core.overflows, core.caught
local bare, sealed, seal = core.bare, core.sealed, lib.seal

local type, error, xpcall, select, next, pairs = G.type, G.error, G.xpcall, G.select, G.next, G.pairs
local rawequal, rawget, rawset, tostring, tonumber = G.rawequal, G.rawget, G.rawset, G.tostring, G.tonumber
local getmetatable, setmetatable = G.getmetatable, G.setmetatable
local string, math, utf8, os = G.string, G.math, G.utf8, G.os
local metatable_of, force_metatable, getinfo = G.debug.getmetatable, G.debug.setmetatable, core.getinfo
local collect = G.collectgarbage
local gsub, format, math_type = string.gsub, string.format, math.type

local MAX_STRING <const> = 64 * 1024 * 1024 -- bytes that string.rep may make
local MAX_HELD <const> = 10000 -- metatables
local MAX_HANDLERS <const> = 10 -- of xpcall, each for an error of the one before

local function copy(t)
  local c = {}
  for key, v in next, t do c[key] = v end
  return c
end

-- Strings -------------------------------------------------------------------------------------------------------------

local safe_string, patterns = copy(string), nil
safe_string.dump = nil

function safe_string.rep(s, n, sep)
  local times = tonumber(n)
  if (type(s) == 'string' or type(s) == 'number') and times then
    local unit = #tostring(s) + (sep and #tostring(sep) or 0)
    if unit == 0 or times <= 0 then return '' end -- repeating nothing is an endless loop in C
    if times > MAX_STRING // unit then error('string.rep: the result is longer than ' .. MAX_STRING .. ' bytes', 2) end
  end
  return string.rep(s, n, sep)
end

-- See patterns.lua, which is loaded by the first call that is worth a thought.
local SHORT_SUBJECT, SHORT_PATTERN = 64, 8

local function chosen(name, s, p, init, plain)
  if #s <= SHORT_SUBJECT and #p <= SHORT_PATTERN then return nil end
  patterns = patterns or core.load('patterns.lua')
  return patterns.choose(name, s, p, init, plain)
end

for _, name in next, { 'find', 'match', 'gmatch' } do
  local native = string[name]
  safe_string[name] = function(s, p, init, plain)
    if type(s) == 'number' then s = tostring(s) end
    if type(s) == 'string' and type(p) == 'string' then
      local slow, from = chosen(name, s, p, init, plain)
      if slow then return slow(s, p, from) end
    end
    return native(s, p, init, plain)
  end
end

function safe_string.gsub(s, p, with, ...)
  if type(s) == 'number' then s = tostring(s) end
  if type(s) == 'string' and type(p) == 'string' then
    local kind = type(with)
    if kind == 'function' and getinfo(with, 'S').what == 'C' then
      local native = with
      function with(...) return native(...) end -- the clock is looked at in functions of Lua alone
    end
    local slow = chosen('gsub', s, p)
    if slow and (kind == 'string' or kind == 'number' or kind == 'function' or kind == 'table') then
      return slow(s, p, with, ...)
    end
  end
  return gsub(s, p, with, ...)
end

-- What Lua 5.1 had: see lua51.lua. `pairs` does not list it.
local older

local function of_51(library)
  older = older or core.load('lua51.lua', bare, sealed, lib)
  return older[library]
end

function safe_string.format(template, ...)
  for i = 1, type(template) == 'string' and select('#', ...) or 0 do
    local v = select(i, ...)
    if math_type(v) == 'float' and v % 1 ~= 0 then return format(template, of_51('whole')(template, ...)) end
  end
  return format(template, ...)
end

local string_metatable = metatable_of('')
string_metatable.__index, string_metatable.__metatable = safe_string, false
metatable_of(G.python.none).__metatable = false

-- The globals ---------------------------------------------------------------------------------------------------------

local globals = { _VERSION = G._VERSION }
for _, name in next, { 'assert', 'error', 'ipairs', 'rawequal', 'rawlen', 'select', 'tonumber', 'tostring' } do
  globals[name] = G[name]
end
globals.type = lib.type_of

function globals.unpack(...) return globals.table.unpack(...) end

globals.string = seal(safe_string, 'string')
globals.table = seal(function()
  return setmetatable(core.load('tables.lua', lib, core), { __index = function(_, key) return of_51('table')[key] end })
end, 'table')
globals.coroutine = seal(function() return core.load('coroutines.lua', core) end, 'coroutine')
globals.math, globals.utf8 = seal(math, 'math'), seal(utf8, 'utf8')
setmetatable(math, { __index = function(_, key) return of_51('math')[key] end })

-- As Lua 5.1 does, it cuts off the fraction of a second: `os.date(layout, milliseconds / 1000)`.
local function date(layout, seconds)
  return os.date(layout, math_type(seconds) == 'float' and math.tointeger((math.modf(seconds))) or seconds)
end

globals.os = seal({ time = os.time, date = date, clock = os.clock, difftime = os.difftime }, 'os')

-- `return string.format(...)` takes the place of its caller, and with it goes what Lua knows of the name.
local function name_of(f)
  local loaded = sealed[metatable_of(globals.table)]
  for _, library in next, { safe_string, type(loaded) == 'table' and loaded or nil } do
    for name, other in next, library do
      if other == f then return name end
    end
  end
end

-- A function of C that one of the wrappers above has called finds no line to blame: give it that of the handler.
local function located(e, level)
  if type(e) ~= 'string' or is_dead() or overflows(e) then return (core.without_python(e)) end
  local raiser = getinfo(level, 'Sf')
  if not raiser or raiser.what ~= 'C' or raiser.func == error then return e end
  local caller = getinfo(level + 1, 'Slnf')
  if not caller or caller.short_src ~= '?' then return e end
  e = gsub(e, "'%?'", "'" .. (caller.name or name_of(caller.func) or '?') .. "'", 1)
  repeat
    level = level + 1
    caller = getinfo(level + 1, 'Sl')
  until not caller or caller.short_src ~= '?'
  if not caller or caller.currentline < 1 then return e end
  return caller.short_src .. ':' .. caller.currentline .. ': ' .. e
end

local function located_here(e) return (located(e, 3)) end -- not a tail call: it would take a level away

function globals.pcall(f, ...) return caught(xpcall(f, located_here, ...)) end

function globals.xpcall(f, handler, ...)
  if type(handler) ~= 'function' then
    error("bad argument #2 to 'xpcall' (function expected, got " .. lib.type_of(handler) .. ')', 2)
  end
  -- The handler of a handler must not run for the end of the call, nor for an overflow that the hook itself ran into: it
  -- would run inside the hook, with hooks off.
  local depth = 0 -- an error of the handler's own comes to it again, and again, until the C stack is full
  return caught(xpcall(f, function(e)
    if depth == MAX_HANDLERS or is_dead() or rawequal(e, DEAD) or overflows(e) then return e end
    depth = depth + 1
    e = handler((located(e, 3)))
    depth = depth - 1
    return e
  end, ...))
end

function globals.next(t, key) return next(bare(t, 'next'), key) end
function globals.rawget(t, key) return rawget(bare(t, 'rawget'), key) end

function globals.rawset(t, key, value)
  local mt = metatable_of(t)
  if mt and sealed[mt] then error(mt.__name .. ' is read-only: cannot set ' .. tostring(key), 2) end
  return rawset(bare(t, 'rawset'), key, value)
end

function globals.pairs(t)
  local mt = metatable_of(t)
  if type(t) ~= 'table' or mt and rawget(mt, '__pairs') ~= nil then return pairs(t) end
  local inner = mt and bare(t, 'pairs') or t
  -- Not Lua's own `next`: with it a handler could look into opaque values.
  return function(_, key) return next(inner, key) end, t, nil
end

function globals.getmetatable(v)
  local json = rawget(lib, 'json')
  if json and json.is_marker(metatable_of(v)) then return nil end
  return getmetatable(v)
end

-- Lua 5.4.8 frees a metatable that a table with weak keys and values gets while the collector is at work, if nothing
-- else holds it: the process would crash. Such tables can be had, by setting __mode late; so what takes the place of
-- another metatable, or of one that was taken off, is held until the collector has gone round.
local held, held_count = {}, 0
local stripped = setmetatable({}, { __mode = 'k' }) -- tables that had a metatable once

local function hold(mt)
  if held[mt] then return end
  if held_count == MAX_HELD then
    collect()
    held, held_count = {}, 0
  end
  held[mt], held_count = true, held_count + 1
end

function globals.setmetatable(t, mt)
  if type(mt) == 'table' and (rawget(mt, '__gc') ~= nil or rawget(mt, '__mode') ~= nil) then
    error('setmetatable: __gc and __mode are not allowed', 2)
  end
  local json = rawget(lib, 'json')
  if json and json.is_marker(metatable_of(t)) and (mt == nil or type(mt) == 'table') then return force_metatable(t, mt) end
  if type(t) == 'table' then
    local has = metatable_of(t)
    if type(mt) == 'table' then
      if has or stripped[t] then hold(mt) end
    elseif has and mt == nil then
      stripped[t] = true
    end
  end
  return setmetatable(t, mt)
end

return globals, located, copy
