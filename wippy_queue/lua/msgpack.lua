-- MessagePack, strict in both directions, with the table semantics and the rules of the JSON codec (see json.lua). Here is
-- what it takes to decode; msgpack_encoder.lua adds the rest.
--
--   local msgpack = chunk(std, json)        -- json: what the chunk of json.lua returned; then: encoder_chunk(std, json, msgpack)
--   msgpack.encode(value) -> bytes, or nil, message
--   msgpack.decode(bytes) -> value, or nil, message
--
-- Text that is valid UTF-8 is `str`, any other string is `bin`; both come back as strings. Keys of maps are text.
-- Integers above 2^63-1 come back as floats. Extension types are refused. "at byte N" counts from 1.
local std, json = ...
local string = std.string
local byte, sub, format, unpack = string.byte, string.sub, string.format, string.unpack
local type, next, setmetatable, utf8_len = std.type, std.next, std.setmetatable, std.utf8.len
local OBJECT, new_array = json.object_mt, json.new_array

local MAX_DEPTH <const> = 128

-- A reader takes (bytes, position behind the tag, depth) and gives value, next position; no position means that `fault` is
-- set.

local fault, size, read_value

local function fail(message, at)
  fault = format('%s at byte %d', message, at)
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

local function constant(value)
  return function(_, i) return value, i end
end

local function extension(_, i) return fail('extension types are not supported', i - 1) end

local read = {} -- tag -> reader, of those that hold neither a value nor a length
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

function read_value(s, i, depth)
  local tag = byte(s, i)
  if not tag then return fail('unexpected end of the data', i) end
  i = i + 1
  if tag < 0x80 then return tag, i end
  if tag < 0x90 then return map_of(s, i, tag - 0x80, depth) end
  if tag < 0xa0 then return array_of(s, i, tag - 0x90, depth) end
  if tag < 0xc0 then return text_of(s, i, tag - 0xa0) end
  if tag < 0xe0 then return read[tag](s, i, depth) end
  return tag - 256, i
end

local function decode(bytes)
  if type(bytes) ~= 'string' then return nil, 'expected bytes, found a ' .. type(bytes) end
  size = #bytes
  local value, after = read_value(bytes, 1, 0)
  if not after then return nil, fault end
  if after <= size then return nil, format('unexpected data behind the value at byte %d', after) end
  return value
end

return {decode = decode}
