-- logger:info(message, fields) and logger.info(message, fields): to Python's logging, fields as one JSON object.
local host, lib = ...
local std = lib.std
local type, next, tostring, setmetatable = std.type, std.next, std.tostring, std.setmetatable
local sub, utf8_len, concat = std.string.sub, std.utf8.len, std.table.concat
local type_of = lib.type_of

local LEVELS <const> = { debug = 10, info = 20, warn = 30, error = 40 } -- as in Python
local MAX_NAME <const> = 200 -- bytes
local MAX_TEXT <const> = 65536 -- bytes of a message, and of its fields: whoever reads the log pays for them
local NAME, FIELDS, OWN = {}, {}, {} -- private keys
local methods = {}
local Logger

-- Its methods work with a dot too, as the module's do: they are its own then, kept where a handler cannot replace them.
local function own_method(logger, key)
  local method = methods[key]
  if not method then return nil end
  local f = logger[OWN][key]
  if not f then
    function f(first, ...)
      if lib.is(first, Logger) then return method(first, ...) end
      return method(logger, first, ...)
    end
    logger[OWN][key] = f
  end
  return f
end

Logger = lib.new_type('logger', nil, { __index = own_method })

local enabled, enabled_call = {}, nil -- name -> the lowest level that is logged, as far as this call knows

local function readable(text)
  local valid, bad = utf8_len(text)
  if valid then return text end
  local parts, from = {}, 1
  repeat
    parts[#parts + 1] = sub(text, from, bad - 1)
    from = bad + 1
    valid, bad = utf8_len(text, from)
  until valid
  parts[#parts + 1] = sub(text, from)
  return concat(parts, '\u{FFFD}')
end

local function plain(v)
  if type_of(v) == 'string' then return readable(v) end
  return lib.json.encode(v) and v or readable(tostring(v))
end

local function encoded(fields)
  if next(fields) == nil then return nil end
  local text = lib.json.encode(fields)
  if text then return text end
  local copy = {} -- something in there has no form in JSON: it goes as text
  for key, v in next, fields do copy[readable(tostring(key))] = plain(v) end
  return lib.json.encode(copy)
end

local function merged(a, b)
  local fields = {}
  for key, v in next, a do fields[key] = v end
  if type_of(b) == 'table' then
    for key, v in next, b do fields[key] = v end
  elseif b ~= nil then
    fields.value = b
  end
  return fields
end

local function log(logger, level, message, fields)
  local name, call = logger[NAME], lib.call()
  if call ~= enabled_call or call == nil then
    enabled, enabled_call = {}, call -- levels may change between two messages
  elseif level < (enabled[name] or 0) then
    return
  end
  local text, more = tostring(message), encoded(merged(logger[FIELDS], fields))
  if #text > MAX_TEXT then text = sub(text, 1, MAX_TEXT) .. '...' end
  if more and #more > MAX_TEXT then more = lib.json.encode({ dropped = 'fields of ' .. #more .. ' bytes' }) end
  enabled[name] = host.log(level, name, readable(text), more)
end

local function new(name, fields)
  return setmetatable({ [NAME] = name, [FIELDS] = fields, [OWN] = {} }, Logger)
end

for name, level in next, LEVELS do
  methods[name] = function(logger, ...) return log(logger, level, ...) end
end

methods['with'] = function(logger, fields) return new(logger[NAME], merged(logger[FIELDS], fields)) end

function methods.named(logger, name)
  if type(name) ~= 'string' or name == '' then
    return nil, lib.errors.new('logger:named: the name must be text that is not empty', 'Invalid', false)
  end
  name = logger[NAME] == '' and name or logger[NAME] .. '.' .. name
  if #name > MAX_NAME then
    return nil, lib.errors.new('logger:named: the name is longer than ' .. MAX_NAME .. ' bytes', 'Invalid', false)
  end
  return new(name, logger[FIELDS])
end

return new('', {})
