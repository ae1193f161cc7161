-- The rest of the JSON codec (see json.lua): encoding, what has a form at all, and changes of arrays that hold nulls.
local std, json = ...
local string, table, math = std.string, std.table, std.math
local byte, find, gsub, format = string.byte, string.find, string.gsub, string.format
local concat, math_type, huge, utf8_len = table.concat, math.type, math.huge, std.utf8.len
local type, next, tonumber, tostring = std.type, std.next, std.tonumber, std.tostring
local select, error = std.select, std.error
local getmetatable, setmetatable = std.getmetatable, std.setmetatable
local opaque, length, is_array_mt, IS_OBJECT = json.opaque, json.array_length, json.is_array_mt, json.is_object_mt

local MAX_DEPTH <const> = 128

function json.array_insert(t, ...)
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

function json.array_remove(t, position)
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

local MIXED <const> = 'a table has both text keys and others; use 1..n for an array or text for an object'

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
  if first == nil then return mt ~= nil and IS_OBJECT[mt] and 'object' or 'array', 0 end
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

json.shape = shape

-- Encoder ------------------------------------------------------------------------------------------------------------
-- `put` appends the pieces of a value to b[1..n] and gives the new n; none means that `fault` is set, with `path`
-- grown from the inside out.

local ALL_PLAIN = '^' .. json.plain .. '$'
local QUOTED = setmetatable({
  ['"'] = '\\"', ['\\'] = '\\\\',
  ['\b'] = '\\b', ['\f'] = '\\f', ['\n'] = '\\n', ['\r'] = '\\r', ['\t'] = '\\t',
}, {__index = function(_, control) return format('\\u%04x', byte(control)) end})
local KNOWN_KEYS <const> = 256

local fault, path, careful
local keys, known = {}, 0 -- key -> its text with quotes and colon

local function quote(text)
  if not find(text, ALL_PLAIN) then text = gsub(text, '[\0-\31"\\]', QUOTED) end
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

function json.encode(value)
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
