-- JSON, strict in both directions (RFC 8259), and the table semantics that the msgpack codec shares. Here is what it takes
-- to decode; json_encoder.lua adds the rest.
--
--   local json = chunk(std, opaque)         -- then: encoder_chunk(std, json); local msgpack = msgpack_chunk(std, json)
--   json.encode(value)        -> text, or nil, message
--   json.decode(text [, null]) -> value, or nil, message; `null` stands for JSON's null inside, nil unless given
--
-- Nothing raises, no Lua value of a handler is called, and time is linear in the text. "at byte N" counts from 1.
--
-- Tables carry two marker metatables, which handlers must not get to see:
--   * a decoded `{}` has OBJECT, so that it encodes as `{}`; any other empty table is `[]`;
--   * a decoded array that holds nulls has a metatable of its own with its length, so that `#t` counts them.
--
-- For the author of the sandbox (bootstrap.lua):
--   * markers are replaceable: where `json.is_marker(debug.getmetatable(t))`, `setmetatable` must use
--     debug.setmetatable, and `getmetatable` must give nil (`__metatable` is false, should it slip through);
--   * `table.insert`/`table.remove` must call `json.array_insert(t, ...)`/`json.array_remove(t [, pos])` where
--     `json.is_array_mt(debug.getmetatable(t))`: Lua's own would move nulls without keeping the length. The other
--     functions of `table` work on them as they are: their `__len` is ours and honest;
--   * `opaque[metatable] = "name"` makes both codecs refuse values of that type as "cannot encode a name".
local std, opaque = ...
local string, math = std.string, std.math
local byte, find, sub, match, gsub = string.byte, string.find, string.sub, string.match, string.gsub
local format, huge = string.format, math.huge
local utf8_len, utf8_char = std.utf8.len, std.utf8.char
local type, next, tonumber = std.type, std.next, std.tonumber
local getmetatable, setmetatable, rawget = std.getmetatable, std.setmetatable, std.rawget

local MAX_DEPTH <const> = 128

-- Shared table semantics ---------------------------------------------------------------------------------------------

local OBJECT = {__metatable = false}
local IS_OBJECT = {[OBJECT] = true} -- not ==: a handler's metatable may have an `__eq` of its own

local function length(t)
  local mt = getmetatable(t)
  local n = mt.n
  while t[n + 1] ~= nil do n = n + 1 end -- the handler has appended
  mt.n = n
  return n
end

local function new_array(t, n)
  return setmetatable(t, {__len = length, __metatable = false, n = n})
end

local function is_array_mt(mt)
  return mt ~= nil and rawget(mt, '__len') == length
end

local function is_marker(mt)
  return IS_OBJECT[mt] or is_array_mt(mt)
end

-- Decoder ------------------------------------------------------------------------------------------------------------
-- A reader takes (text, position, depth) and gives value, next position; no position means that `fault` is set.

local PLAIN = '[]-\255#-[ !]*' -- what a string holds as it is: no quote, no backslash, no control character
local STRING = '^(' .. PLAIN .. ')"()'
local PLAIN_END = '^' .. PLAIN .. '()'
local FIRST_KEY = '^"(' .. PLAIN .. ')":()'
local NEXT_KEY = '^,"(' .. PLAIN .. ')":()'
local SPACED_KEY = '^[ \n\r\t]*"(' .. PLAIN .. ')"[ \n\r\t]*:[ \n\r\t]*()'
local SPACE_END = '^[ \n\r\t]*()'

local fault, null
local read = {} -- first byte -> reader
local DIGIT = {}
for c = 48, 57 do DIGIT[c] = c - 48 end
for _, c in next, {43, 45, 46, 69, 101} do DIGIT[c] = false end -- + - . E e: more than a plain integer

local function fail(message, at)
  fault = format('%s at byte %d', message, at)
end

local function unexpected(s, i)
  local c = byte(s, i)
  if not c then return fail('unexpected end of the text', i) end
  return fail(c > 32 and c < 127 and format("unexpected '%c'", c) or format('unexpected byte 0x%02x', c), i)
end

local escape_fault, high
local ESCAPES = {['"'] = '"', ['\\'] = '\\', ['/'] = '/', b = '\b', f = '\f', n = '\n', r = '\r', t = '\t'}
local KNOWN = setmetatable({}, {__index = function(_, c)
  if not ESCAPES[c] then escape_fault = 'bad escape' end
  return ESCAPES[c]
end})

local function unescape(c, rest)
  if c ~= 'u' then
    if high then escape_fault = 'lone surrogate' end
    return KNOWN[c] and KNOWN[c] .. rest
  end
  local hex = match(rest, '^%x%x%x%x')
  if not hex then
    escape_fault = 'bad escape'
    return nil
  end
  local code = tonumber(hex, 16)
  if code >= 0xD800 and code < 0xDC00 and not high and #rest == 4 then
    high = code
    return ''
  end
  if high and code >= 0xDC00 and code < 0xE000 then
    code, high = 0x10000 + (high - 0xD800) * 0x400 + (code - 0xDC00), nil
  elseif high or code >= 0xD800 and code < 0xE000 then
    escape_fault = 'lone surrogate' -- it has no UTF-8
    return nil
  end
  return utf8_char(code) .. sub(rest, 5)
end

local function read_escaped(s, i) -- i: behind the opening quote
  local last = i
  while true do
    last = match(s, PLAIN_END, last) -- nil when the text ends with a backslash
    local c = last and byte(s, last)
    if c == 34 then break end
    if not c then return fail('unterminated string', i - 1) end
    if c ~= 92 then return fail('control character in a string', last) end
    last = last + 2
  end
  local value = sub(s, i, last - 1)
  escape_fault, high = nil, nil
  if find(value, '\\u', 1, true) then
    value = gsub(value, '\\(.)([^\\]*)', unescape)
    if high then escape_fault = 'lone surrogate' end
  else
    value = gsub(value, '\\(.)', KNOWN)
  end
  if escape_fault then return fail(escape_fault .. ' in the string', i - 1) end
  return value, last + 1
end

local function read_string(s, i)
  local value, after = match(s, STRING, i + 1)
  if after then return value, after end
  return read_escaped(s, i + 1)
end

local function read_number(s, i)
  local text, after = match(s, '^([0-9.eE+-]+)()', i)
  local value, point = tonumber(text), find(text, '.', 1, true)
  -- tonumber takes "1." and "1.e5" too, and makes infinity of 1e999.
  if not value or point and not DIGIT[byte(text, point + 1)] then return fail('bad number', i) end
  if value == huge or value == -huge then return fail('number out of range', i) end
  return value, after
end

local function read_zero_or_minus(s, i)
  if match(s, '^-?0[0-9]', i) or match(s, '^-[^0-9]', i) then return fail('bad number', i) end
  return read_number(s, i)
end

local function read_positive(s, start) -- integers up to four digits, most of what there is, without a pattern
  local a, b, c, d, e = byte(s, start, start + 4)
  local value, digit, i = a - 48, DIGIT[b], start + 1
  if digit then
    value, digit, i = value * 10 + digit, DIGIT[c], i + 1
    if digit then
      value, digit, i = value * 10 + digit, DIGIT[d], i + 1
      if digit then
        value, digit, i = value * 10 + digit, DIGIT[e], i + 1
      end
    end
  end
  if digit == nil then return value, i end
  return read_number(s, start)
end

local function read_space(s, i, depth)
  i = match(s, SPACE_END, i)
  return read[byte(s, i) or 0](s, i, depth)
end

local function read_array(s, i, depth)
  if depth == MAX_DEPTH then return fail('nested deeper than 128 levels', i) end
  local t, n, holes, mark, value = {}, 0, false, nil, nil
  i = i + 1
  local c = byte(s, i)
  if c and c <= 32 then
    i = match(s, SPACE_END, i)
    c = byte(s, i)
  end
  if c == 93 then return t, i + 1 end
  depth = depth + 1
  while true do
    value, i = read[c or 0](s, i, depth)
    if not i then return end
    n = n + 1
    t[n] = value
    if value == nil then holes = true end
    mark, c = byte(s, i, i + 1)
    if mark ~= 44 and mark ~= 93 then
      i = match(s, SPACE_END, i)
      mark, c = byte(s, i, i + 1)
    end
    i = i + 1
    if mark == 93 then break end
    if mark ~= 44 then
      return fail("expected ',' or ']' in an array", i - 1)
    end
  end
  if holes then new_array(t, n) end
  return t, i
end

local function read_key(s, i) -- with an escape, or a fault
  local key, after
  i = match(s, SPACE_END, i)
  if byte(s, i) ~= 34 then return fail('expected a key in quotes', i) end
  key, after = read_string(s, i)
  if not after then return end
  after = match(s, SPACE_END, after)
  if byte(s, after) ~= 58 then return fail("expected ':' behind a key", after) end
  return key, match(s, SPACE_END, after + 1)
end

local function read_object(s, i, depth)
  if depth == MAX_DEPTH then return fail('nested deeper than 128 levels', i) end
  local t, nulls, value = {}, false, nil
  local key, after = match(s, FIRST_KEY, i + 1)
  i, depth = i + 1, depth + 1
  if not after then
    i = match(s, SPACE_END, i)
    if byte(s, i) == 125 then return setmetatable(t, OBJECT), i + 1 end
  end
  while true do
    if not after then
      key, after = match(s, SPACED_KEY, i)
      if not after then
        key, after = read_key(s, i)
        if not after then return end
      end
    end
    local c = byte(s, after)
    if c == 34 then -- as read_string does, without the call
      value, i = match(s, STRING, after + 1)
      if not i then value, i = read_escaped(s, after + 1) end
    else
      value, i = read[c or 0](s, after, depth)
      if value == nil then nulls = true end
    end
    if not i then return end
    t[key] = value
    key, after = match(s, NEXT_KEY, i)
    if not after then
      c = byte(s, i)
      if c ~= 44 and c ~= 125 then
        i = match(s, SPACE_END, i)
        c = byte(s, i)
      end
      if c == 125 then break end
      if c ~= 44 then return fail("expected ',' or '}' in an object", i) end
      i = i + 1
    end
  end
  if nulls and next(t) == nil then setmetatable(t, OBJECT) end
  return t, i + 1
end

local function literal(text, value)
  local last = #text - 1
  return function(s, i)
    if sub(s, i, i + last) ~= text then return fail("expected '" .. text .. "'", i) end
    return value, i + last + 1
  end
end

setmetatable(read, {__index = function() return unexpected end})
for c = 49, 57 do read[c] = read_positive end
read[45], read[48] = read_zero_or_minus, read_zero_or_minus
for _, c in next, {9, 10, 13, 32} do read[c] = read_space end
read[34], read[91], read[123] = read_string, read_array, read_object
read[116], read[102] = literal('true', true), literal('false', false)
read[110] = function(s, i)
  if sub(s, i, i + 3) ~= 'null' then return fail("expected 'null'", i) end
  return null, i + 4
end

local function decode(text, null_value)
  if type(text) ~= 'string' then return nil, 'expected text, found a ' .. type(text) end
  local length_or_nil, at = utf8_len(text)
  if not length_or_nil then return nil, format('invalid UTF-8 at byte %d', at) end
  null = null_value
  local value, after = read[byte(text, 1) or 0](text, 1, 0)
  if not after then return nil, fault end
  if after <= #text then
    after = match(text, SPACE_END, after)
    if after <= #text then return nil, format('unexpected text behind the value at byte %d', after) end
  end
  return value
end

return {
  decode = decode,
  plain = PLAIN,
  object_mt = OBJECT,
  is_object_mt = IS_OBJECT,
  opaque = opaque,
  new_array = new_array,
  array_length = length,
  is_array_mt = is_array_mt,
  is_marker = is_marker,
}
