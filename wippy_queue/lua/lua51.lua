-- What Lua 5.1 has and Lua 5.4 lacks, for handlers that were written for such a Lua. sandbox.lua loads it when one is
-- first used, for most handlers never do.
local std, bare, sealed, lib = ...
local math, string, select, rawget, rawlen, next = std.math, std.string, std.select, std.rawget, std.rawlen, std.next
local exp, log, modf, tointeger, huge, math_type = math.exp, math.log, math.modf, math.tointeger, math.huge, math.type
local type_of, tonumber, error, metatable_of = std.type_of, std.tonumber, std.error, std.getmetatable
local unpack = std.table.unpack

local functions = { atan2 = math.atan, mod = math.fmod } -- of `math`

local function refuse(index, name, why, level)
  error('bad argument #' .. index .. " to '" .. name .. "' (" .. why .. ')', level + 1)
end

local function number(v, index, name)
  local kind = type_of(v)
  local n = (kind == 'number' or kind == 'string') and tonumber(v)
  return n and n * 1.0 or refuse(index, name, 'number expected, got ' .. kind, 3)
end

function functions.pow(x, y) return number(x, 1, 'pow') ^ number(y, 2, 'pow') end

function functions.log10(x) return log(number(x, 1, 'log10'), 10) end

-- In steps that neither overflow nor lose a bit before the last one.
function functions.ldexp(m, e)
  m = number(m, 1, 'ldexp')
  local n = tointeger((modf(number(e, 2, 'ldexp')))) or refuse(2, 'ldexp', 'number has no integer representation', 2)
  local step = n > 0 and 1023 or -969
  for _ = 1, 2 do
    if n > 1023 or n < -1022 then m, n = m * 2.0 ^ step, n - step end
  end
  return m * 2.0 ^ math.max(-1022, math.min(1023, n))
end

function functions.frexp(x)
  x = number(x, 1, 'frexp')
  if x == 0 or x ~= x or x == huge or x == -huge then return x, 0 end
  local shift = 0
  if x > -0x1p-1022 and x < 0x1p-1022 then x, shift = x * 0x1p54, 54 end
  local bits = string.unpack('<i8', string.pack('<d', x))
  local m = string.unpack('<d', string.pack('<i8', bits & ~(0x7FF << 52) | 1022 << 52))
  return m, (bits >> 52 & 0x7FF) - 1022 - shift
end

-- exp(x) - 1 without the loss of digits near 0, as William Kahan computes it.
local function expm1(x)
  local u = exp(x)
  if u == 1 then return x end
  if u == huge or u - 1 == -1 then return u - 1 end
  return (u - 1) * x / log(u)
end

function functions.cosh(x)
  local half = exp(math.abs(number(x, 1, 'cosh')) / 2) -- the whole one may overflow
  return half / 2 * half + 0.5 / half / half
end

function functions.sinh(x)
  x = number(x, 1, 'sinh')
  if x < 0 then return -functions.sinh(-x) end
  if x > 22 then
    local half = exp(x / 2)
    return half / 2 * half
  end
  local t = expm1(x)
  return (t + t / (t + 1)) / 2
end

function functions.tanh(x)
  x = number(x, 1, 'tanh')
  if x > 22 or x < -22 then return x > 0 and 1.0 or -1.0 end
  local t = expm1(2 * x)
  return t / (t + 2)
end

-- The values for `format`: Lua 5.1 cuts off the fraction where Lua 5.4 raises, for %d and other conversions of integers.
local INTEGERS = { c = true, d = true, i = true, o = true, x = true, X = true }

local function whole(template, ...)
  local values, place = { ... }, 0
  for conversion in string.gmatch(template, '%%[^%a%%]*(.)') do
    if conversion ~= '%' then
      place = place + 1
      local v = values[place]
      if INTEGERS[conversion] and math_type(v) == 'float' then values[place] = tointeger((modf(v))) or v end
    end
  end
  return unpack(values, 1, select('#', ...))
end

-- The functions of `table` do not ask the metatable of a handler.
local tables = {}

function tables.getn(t)
  local mt = metatable_of(bare(t, 'getn'))
  local json = rawget(lib, 'json')
  if mt and (sealed[mt] or json and json.is_array_mt(mt)) then return #t end
  return rawlen(t)
end

function tables.maxn(t)
  local highest = 0
  for key in next, bare(t, 'maxn') do
    if math_type(key) and key > highest then highest = key end
  end
  return highest
end

return { math = functions, table = tables, whole = whole }
