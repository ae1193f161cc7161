-- JSON, strict in both directions (RFC 8259), and the table semantics that the msgpack codec shares.
--
--   local json = chunk(std)                 -- then: local msgpack = msgpack_chunk(std, json)
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
--   * `json.opaque[metatable] = "name"` makes both codecs refuse values of that type as "cannot encode a name".
local std = ...
local string, table, math = std.string, std.table, std.math
local byte, find, sub, match, gsub = string.byte, string.find, string.sub, string.match, string.gsub
local format = string.format
local concat, math_type, huge = table.concat, math.type, math.huge
local utf8_len, utf8_char = std.utf8.len, std.utf8.char
local type, next, tonumber, tostring = std.type, std.next, std.tonumber, std.tostring
local select, error = std.select, std.error
local getmetatable, setmetatable, rawget = std.getmetatable, std.setmetatable, std.rawget

local MAX_DEPTH = 128

-- Shared table semantics ---------------------------------------------------------------------------------------------

local OBJECT = {__metatable = false}
local opaque = {}

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
  return mt == OBJECT or is_array_mt(mt)
end

local function array_insert(t, ...)
  local n, count, position, value = length(t), select('#', ...), ...
  if count == 1 then
    position, value = n + 1, position
  elseif count ~= 2 then
    error("wrong number of arguments to 'insert'", 2)
  elseif math_type(position) ~= 'integer' or position < 1 or position > n + 1 then
    error("bad argument #2 to 'insert' (position out of bounds)", 2)
  end
  for i = n, position, -1 do t[i + 1] = t[i] end
  t[position] = value
  getmetatable(t).n = n + 1
end

local function array_remove(t, position)
  local n = length(t)
  if position == nil then
    position = n
  elseif math_type(position) ~= 'integer' or position ~= n and (position < 1 or position > n + 1) then
    error("bad argument #2 to 'remove' (position out of bounds)", 2)
  end
  local value = t[position]
  for i = position, n - 1 do t[i] = t[i + 1] end
  if position > n then
    t[position] = nil
  elseif n > 0 then
    t[n] = nil
    getmetatable(t).n = n - 1
  end
  return value
end

local MIXED = 'a table has both text keys and others; use 1..n for an array or text for an object'

-- 'array', length or 'object', count; nil, message for what no codec has a form for.
local function shape(t)
  local mt = getmetatable(t)
  if mt ~= nil then
    local name = opaque[mt]
    if name then return nil, 'cannot encode ' .. (find(name, '^[aeiou]') and 'an ' or 'a ') .. name end
    if is_array_mt(mt) then
      local n = length(t)
      for key in next, t do
        if type(key) == 'string' then return nil, MIXED end
        if math_type(key) ~= 'integer' or key < 1 or key > n then
          return nil, 'an array has a gap or a key that is no position'
        end
      end
      return 'array', n
    end
  end
  local first = next(t)
  if first == nil then return mt == OBJECT and 'object' or 'array', 0 end
  local count = 0
  if type(first) == 'string' then
    for key in next, t do
      if type(key) ~= 'string' then return nil, MIXED end
      count = count + 1
    end
    return 'object', count
  end
  local last = 0
  for key in next, t do
    if type(key) == 'string' then return nil, MIXED end
    if math_type(key) ~= 'integer' or key < 1 then
      local kind = math_type(key) or type(key)
      return nil, 'keys must be text or the positions 1..n, found ' .. tostring(key) .. ' (' .. kind .. ')'
    end
    count = count + 1
    if key > last then last = key end
  end
  if last ~= count then return nil, format('an array has gaps: %d values, the last at %d', count, last) end
  return 'array', count
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

for c = 0, 255 do read[c] = unexpected end
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

-- Encoder ------------------------------------------------------------------------------------------------------------
-- `put` appends the pieces of a value to b[1..n] and gives the new n; none means that `fault` is set, with `path`
-- grown from the inside out.

local ALL_PLAIN = '^' .. PLAIN .. '$'
local QUOTED = {
  ['"'] = '\\"', ['\\'] = '\\\\',
  ['\b'] = '\\b', ['\f'] = '\\f', ['\n'] = '\\n', ['\r'] = '\\r', ['\t'] = '\\t',
}
for c = 0, 31 do
  local char = string.char(c)
  QUOTED[char] = QUOTED[char] or format('\\u%04x', c)
end
local KNOWN_KEYS = 256

local path, careful
local keys, known = {}, 0 -- key -> its text with quotes and colon

local function quote(text)
  if not find(text, ALL_PLAIN) then text = gsub(text, '[%c"\\]', QUOTED) end
  return '"' .. text .. '"'
end

local function refuse(message)
  fault = message
end

local function key_text(key)
  local text = quote(key) .. ':'
  if #key <= 40 then
    if known == KNOWN_KEYS then keys, known = {}, 0 end
    keys[key], known = text, known + 1
  end
  return text
end

local function float_text(v)
  if v ~= v or v == huge or v == -huge then return 'null' end
  local text = format('%.15g', v)
  if tonumber(text) ~= v then
    text = format('%.16g', v)
    if tonumber(text) ~= v then text = format('%.17g', v) end
  end
  return find(text, '[.e]') and text or text .. '.0'
end

local put

local function put_items(t, count, b, n, depth)
  for i = 1, count do
    b[n + 1] = i == 1 and '[' or ','
    n = put(t[i], b, n + 1, depth)
    if not n then
      path = '[' .. i .. ']' .. path
      return
    end
  end
  b[n + 1] = count == 0 and '[]' or ']'
  return n + 1
end

local function put_table(t, b, n, depth)
  if depth == MAX_DEPTH then return refuse('nested deeper than 128 levels, or a table that contains itself') end
  local mt = getmetatable(t)
  local first = next(t)
  if mt ~= nil and (opaque[mt] or is_array_mt(mt)) or first == nil then
    local kind, count = shape(t)
    if kind == 'array' then return put_items(t, count, b, n, depth + 1) end
    if not kind then return refuse(count) end
    b[n + 1] = '{}'
    return n + 1
  end
  local start = n
  if type(first) == 'string' then
    local mark = '{'
    for key, item in next, t do
      if type(key) ~= 'string' then return refuse(MIXED) end
      if careful and not utf8_len(key) then return refuse('a key is not valid UTF-8') end
      b[n + 1], b[n + 2] = mark, keys[key] or key_text(key)
      n = put(item, b, n + 2, depth + 1)
      if not n then
        path = '.' .. key .. path
        return
      end
      mark = ','
    end
    b[n + 1] = '}'
    return n + 1
  end
  local i = 0
  for key, item in next, t do
    i = i + 1
    if key ~= i then -- an array that was not filled from the front, or no array at all
      local kind, count = shape(t)
      if not kind then return refuse(count) end
      return put_items(t, count, b, start, depth + 1)
    end
    b[n + 1] = i == 1 and '[' or ','
    n = put(item, b, n + 1, depth + 1)
    if not n then
      path = '[' .. i .. ']' .. path
      return
    end
  end
  b[n + 1] = ']'
  return n + 1
end

function put(v, b, n, depth)
  local kind = type(v)
  n = n + 1
  if kind == 'string' then
    b[n] = quote(v)
    if careful and not utf8_len(v) then
      return refuse('the text is not valid UTF-8; use a queue with codec: msgpack, or base64')
    end
  elseif kind == 'number' then
    b[n] = math_type(v) == 'integer' and v or float_text(v) -- table.concat writes an integer as it should be
  elseif kind == 'table' then
    return put_table(v, b, n - 1, depth)
  elseif kind == 'boolean' then
    b[n] = v and 'true' or 'false'
  elseif v == nil then
    b[n] = 'null'
  else
    return refuse('cannot encode a ' .. kind)
  end
  return n
end

local function encode(value)
  path, careful = '', false
  local b = {}
  local n = put(value, b, 0, 0)
  if n then
    local text = concat(b, '', 1, n)
    if utf8_len(text) then return text end -- one look at the whole; the strings one by one only to name the place
    path, careful = '', true
    put(value, b, 0, 0)
  end
  return nil, 'value' .. path .. ': ' .. fault
end

return {
  encode = encode,
  decode = decode,
  object_mt = OBJECT,
  opaque = opaque,
  new_array = new_array,
  array_length = length,
  array_insert = array_insert,
  array_remove = array_remove,
  is_array_mt = is_array_mt,
  is_marker = is_marker,
  shape = shape,
}
