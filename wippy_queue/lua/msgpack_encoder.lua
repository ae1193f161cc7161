-- The rest of the MessagePack codec (see msgpack.lua): encoding.
local std, json, msgpack = ...
local string, math = std.string, std.math
local char, pack = string.char, string.pack
local concat, math_type, huge = std.table.concat, math.type, math.huge
local type, next, utf8_len, shape = std.type, std.next, std.utf8.len, json.shape

local MAX_DEPTH <const> = 128

-- `put` appends the pieces of a value to b[1..n] and gives the new n; none means that `fault` is set, with
-- `path` grown from the inside out.

local fault, path, put

local function refuse(message)
  fault = message
end

local function integer(v)
  if v >= 0 then
    if v < 0x80 then return char(v) end
    if v < 0x100 then return pack('>BI1', 0xcc, v) end
    if v < 0x10000 then return pack('>BI2', 0xcd, v) end
    if v < 0x100000000 then return pack('>BI4', 0xce, v) end
    return pack('>BI8', 0xcf, v)
  end
  if v >= -0x20 then return char(v + 256) end
  if v >= -0x80 then return pack('>Bi1', 0xd0, v) end
  if v >= -0x8000 then return pack('>Bi2', 0xd1, v) end
  if v >= -0x80000000 then return pack('>Bi4', 0xd2, v) end
  return pack('>Bi8', 0xd3, v)
end

local function text(v)
  local length = #v
  if not utf8_len(v) then
    if length < 0x100 then return pack('>Bs1', 0xc4, v) end
    if length < 0x10000 then return pack('>Bs2', 0xc5, v) end
    return pack('>Bs4', 0xc6, v)
  end
  if length < 0x20 then return char(0xa0 + length) .. v end
  if length < 0x100 then return pack('>Bs1', 0xd9, v) end
  if length < 0x10000 then return pack('>Bs2', 0xda, v) end
  return pack('>Bs4', 0xdb, v)
end

local function header(count, small, large)
  if count < 16 then return char(small + count) end
  if count < 0x10000 then return pack('>BI2', large, count) end
  return pack('>BI4', large + 1, count)
end

local function put_table(t, b, n, depth)
  if depth == MAX_DEPTH then return refuse('nested deeper than 128 levels, or a table that contains itself') end
  local kind, count = shape(t)
  if not kind then return refuse(count) end
  n, depth = n + 1, depth + 1
  if kind == 'array' then
    b[n] = header(count, 0x90, 0xdc)
    for i = 1, count do
      n = put(t[i], b, n, depth)
      if not n then
        path = '[' .. i .. ']' .. path
        return
      end
    end
    return n
  end
  b[n] = header(count, 0x80, 0xde)
  for key, item in next, t do
    if not utf8_len(key) then return refuse('a key is not valid UTF-8') end
    b[n + 1] = text(key)
    n = put(item, b, n + 1, depth)
    if not n then
      path = '.' .. key .. path
      return
    end
  end
  return n
end

function put(v, b, n, depth)
  local kind = type(v)
  if kind == 'table' then return put_table(v, b, n, depth) end
  n = n + 1
  if kind == 'string' then
    b[n] = text(v)
  elseif kind == 'number' then
    if math_type(v) == 'integer' then
      b[n] = integer(v)
    elseif v ~= v or v == huge or v == -huge then
      b[n] = '\xc0' -- as in JSON
    else
      b[n] = pack('>Bd', 0xcb, v)
    end
  elseif kind == 'boolean' then
    b[n] = v and '\xc3' or '\xc2'
  elseif v == nil then
    b[n] = '\xc0'
  else
    return refuse('cannot encode a ' .. kind)
  end
  return n
end

function msgpack.encode(value)
  path = ''
  local b = {}
  local n = put(value, b, 0, 0)
  if not n then return nil, 'value' .. path .. ': ' .. fault end
  return concat(b, '', 1, n)
end
