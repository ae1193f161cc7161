-- Errors as values: what `nil, err` carries, what Python's errors become, and the global `errors` of handlers.
local lib = ...
local std = lib.std
local string, table, type, tostring, tonumber = std.string, std.table, std.type, std.tostring, std.tonumber
local setmetatable, error, traceback = std.setmetatable, std.error, std.traceback
local type_of = lib.type_of

local KINDS = {
  NOT_FOUND = 'NotFound', ALREADY_EXISTS = 'AlreadyExists', INVALID = 'Invalid', PERMISSION_DENIED = 'PermissionDenied',
  UNAVAILABLE = 'Unavailable', INTERNAL = 'Internal', CANCELED = 'Canceled', CONFLICT = 'Conflict', TIMEOUT = 'Timeout',
  RATE_LIMITED = 'RateLimited', UNKNOWN = '',
}

-- Private keys. TEXT is the message with the contexts that it was wrapped in; nil where there is none.
local MESSAGE, TEXT, KIND, RETRYABLE, DETAILS, STACK = {}, {}, {}, {}, {}, {}
local methods = {}
local Error = lib.new_type('error', methods)

local function is_error(v)
  return lib.is(v, Error)
end

local function new(message, kind, retryable, details, whole)
  if type(details) ~= 'table' or std.next(details) == nil then details = nil end
  return setmetatable({
    [MESSAGE] = message, [TEXT] = whole, [KIND] = kind or '', [RETRYABLE] = retryable, [DETAILS] = details, [STACK] = traceback('', 2),
  }, Error)
end

local function whole_of(e) return e[TEXT] or e[MESSAGE] end

local function checked(name, v)
  if not is_error(v) then error("bad argument #1 to '" .. name .. "' (error expected, got " .. type_of(v) .. ')', 3) end
  return v
end

function methods.kind(e) return checked('kind', e)[KIND] end
function methods.message(e) return checked('message', e)[MESSAGE] end
function methods.retryable(e) return checked('retryable', e)[RETRYABLE] end
function methods.details(e) return checked('details', e)[DETAILS] end
function methods.stack(e)
  checked('stack', e)
  return whole_of(e) .. '\nstack traceback:\n\t' .. table.concat(lib.readable(e[STACK]), '\n\t')
end

function Error.__tostring(e) return whole_of(e) end
function Error.__concat(a, b)
  if is_error(a) then a = whole_of(a) end
  if is_error(b) then b = whole_of(b) end
  local other = b
  if type(a) ~= 'string' and type(a) ~= 'number' then other = a end
  local kind, mt = type(other), std.getmetatable(other)
  if kind ~= 'string' and kind ~= 'number' and not (mt and std.rawget(mt, '__concat')) then
    error('attempt to concatenate a ' .. type_of(other) .. ' value', 2) -- Lua would name a line of this file
  end
  return a .. b
end

local module = {}
for name, kind in std.pairs(KINDS) do module[name] = kind end

local function text(v, what, level)
  if type(v) ~= 'string' and type(v) ~= 'number' then error(what .. ' must be text, got ' .. type_of(v), level + 1) end
  return tostring(v)
end

function module.new(spec)
  if type_of(spec) ~= 'table' then return new(text(spec, 'errors.new: the message', 2)) end
  local kind, retryable, details = spec.kind or '', spec.retryable, spec.details
  if type(kind) ~= 'string' then error('errors.new: the kind must be text, like errors.INVALID', 2) end
  if retryable ~= nil and type(retryable) ~= 'boolean' then error('errors.new: retryable must be true, false or nil', 2) end
  if details ~= nil and type_of(details) ~= 'table' then error('errors.new: details must be a table', 2) end
  return new(text(spec.message, 'errors.new: the message', 2), kind, retryable, details)
end

function module.wrap(e, context)
  context = text(context, 'errors.wrap: the context', 2)
  if is_error(e) then
    return new(e[MESSAGE], e[KIND], e[RETRYABLE], e[DETAILS], context .. ': ' .. whole_of(e))
  end
  if e == nil then error('errors.wrap: there is no error to wrap', 2) end
  local message = tostring(e)
  return new(message, nil, nil, nil, context .. ': ' .. message)
end

function module.is(v, kind)
  return is_error(v) and v[KIND] == kind
end

function module.call_stack(e)
  if not is_error(e) then error("bad argument #1 to 'call_stack' (error expected, got " .. type_of(e) .. ')', 2) end
  local frames = {}
  for i, line in std.ipairs(lib.readable(e[STACK])) do
    local source, at, name = string.match(line, '^(.-):(%d*):? ?in (.*)$')
    frames[i] = { source = source or line, line = tonumber(at or '') or 0, name = name or '' }
  end
  return { thread = 'main', frames = frames }
end

return {
  new = new, is_error = is_error, kinds = KINDS, module = module,
  -- For bootstrap.lua, on its way to Python.
  parts = function(e) return e[KIND], whole_of(e), e[RETRYABLE], e[DETAILS], e[STACK] end,
}
