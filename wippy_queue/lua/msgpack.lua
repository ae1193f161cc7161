-- MessagePack, strict in both directions, with the table semantics and the rules of the JSON codec (see json.lua).
--
--   local msgpack = chunk(std, json)        -- json: what the chunk of json.lua returned, for the markers
--   msgpack.encode(value) -> bytes, or nil, message
--   msgpack.decode(bytes) -> value, or nil, message
--
-- Text that is valid UTF-8 is `str`, any other string is `bin`; both come back as strings. Keys of maps are text.
-- Integers above 2^63-1 come back as floats. Extension types are refused. "at byte N" counts from 1.
local std, json = ...
local string, math = std.string, std.math
local byte, char, sub, format = string.byte, string.char, string.sub, string.format
local pack, unpack = string.pack, string.unpack
local concat, math_type, huge = std.table.concat, math.type, math.huge
local type, next, setmetatable, utf8_len = std.type, std.next, std.setmetatable, std.utf8.len
local OBJECT, new_array, shape = json.object_mt, json.new_array, json.shape

local MAX_DEPTH = 128

-- Decoder: a reader takes (bytes, position behind the tag, depth) and gives value, next position; no position means
-- that `fault` is set.

local fault, size
local read = {} -- tag -> reader

local function fail(message, at)
  fault = format('%s at byte %d', message, at)
end

local function read_value(s, i, depth)
  local tag = byte(s, i)
  if not tag then return fail('unexpected end of the data', i) end
  return read[tag](s, i + 1, depth)
end

local function text_of(s, i, length)
  local last = i + length - 1
  if last > size then return fail('unexpected end of the data', size + 1) end
  local value = sub(s, i, last)
  local valid, at = utf8_len(value)
  if not valid then return fail('text with invalid UTF-8', i + at - 1) end
  return value, last + 1
end

local function binary_of(s, i, length)
  local last = i + length - 1
  if last > size then return fail('unexpected end of the data', size + 1) end
  return sub(s, i, last), last + 1
end

local function array_of(s, i, length, depth)
  if depth == MAX_DEPTH then return fail('nested deeper than 128 levels', i - 1) end
  local t, holes, value = {}, false, nil
  for n = 1, length do
    value, i = read_value(s, i, depth + 1)
    if not i then return end
    t[n] = value
    if value == nil then holes = true end
  end
  if holes then new_array(t, length) end
  return t, i
end

local function is_text(tag)
  return tag ~= nil and (tag >= 0xa0 and tag <= 0xbf or tag >= 0xd9 and tag <= 0xdb)
end

local function map_of(s, i, length, depth)
  if depth == MAX_DEPTH then return fail('nested deeper than 128 levels', i - 1) end
  local t, key, value = {}, nil, nil
  for _ = 1, length do
    if i <= size and not is_text(byte(s, i)) then return fail('map keys must be text', i) end
    key, i = read_value(s, i, depth + 1)
    if not i then return end
    value, i = read_value(s, i, depth + 1)
    if not i then return end
    t[key] = value
  end
  if next(t) == nil then setmetatable(t, OBJECT) end
  return t, i
end

local function number(layout, width)
  return function(s, i)
    if i + width - 1 > size then return fail('unexpected end of the data', size + 1) end
    return unpack(layout, s, i)
  end
end

local function unsigned64(s, i)
  if i + 7 > size then return fail('unexpected end of the data', size + 1) end
  local value, after = unpack('>I8', s, i)
  if value < 0 then value = (value >> 1 | value & 1) * 2.0 end -- the lowest bit kept: it may decide the rounding
  return value, after
end

-- The length of `width` bytes stands before what `of` reads.
local function sized(width, of)
  local layout = '>I' .. width
  return function(s, i, depth)
    if i + width - 1 > size then return fail('unexpected end of the data', size + 1) end
    local length, after = unpack(layout, s, i)
    return of(s, after, length, depth)
  end
end

local function fixed(length, of)
  return function(s, i, depth) return of(s, i, length, depth) end
end

local function constant(value)
  return function(_, i) return value, i end
end

local function extension(_, i) return fail('extension types are not supported', i - 1) end

for tag = 0x00, 0x7f do read[tag] = constant(tag) end
for n = 0, 15 do read[0x80 + n], read[0x90 + n] = fixed(n, map_of), fixed(n, array_of) end
for n = 0, 31 do read[0xa0 + n] = fixed(n, text_of) end
for tag = 0xe0, 0xff do read[tag] = constant(tag - 256) end
for n, width in next, {1, 2, 4} do
  read[0xc3 + n], read[0xd8 + n] = sized(width, binary_of), sized(width, text_of)
  read[0xc6 + n] = extension
end
for n, width in next, {2, 4} do read[0xdb + n], read[0xdd + n] = sized(width, array_of), sized(width, map_of) end
for n, width in next, {1, 2, 4, 8} do
  read[0xcb + n], read[0xcf + n] = number('>I' .. width, width), number('>i' .. width, width)
end
for tag = 0xd4, 0xd8 do read[tag] = extension end
read[0xc0], read[0xc2], read[0xc3] = constant(nil), constant(false), constant(true)
read[0xc1] = function(_, i) return fail('unexpected byte 0xc1', i - 1) end
read[0xca], read[0xcb], read[0xcf] = number('>f', 4), number('>d', 8), unsigned64

local function decode(bytes)
  if type(bytes) ~= 'string' then return nil, 'expected bytes, found a ' .. type(bytes) end
  size = #bytes
  local value, after = read_value(bytes, 1, 0)
  if not after then return nil, fault end
  if after <= size then return nil, format('unexpected data behind the value at byte %d', after) end
  return value
end

-- Encoder: `put` appends the pieces of a value to b[1..n] and gives the new n; none means that `fault` is set, with
-- `path` grown from the inside out.

local path, put

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

local function encode(value)
  path = ''
  local b = {}
  local n = put(value, b, 0, 0)
  if not n then return nil, 'value' .. path .. ': ' .. fault end
  return concat(b, '', 1, n)
end

return {encode = encode, decode = decode}
