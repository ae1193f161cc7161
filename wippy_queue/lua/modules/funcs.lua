-- The `funcs` module: calls of other functions, in this thread and within this call's time.
local host, lib = ...
local std = lib.std
local type, next, select, setmetatable, tostring = std.type, std.next, std.select, std.setmetatable, std.tostring
local char, find, pack = std.string.char, std.string.find, std.string.pack
local concat, huge = std.table.concat, std.math.huge
local type_of = lib.type_of

lib.security = lib.security or lib.include('security_values')
local values = lib.security

local MAX_ARGUMENTS <const> = 200

local function invalid(message)
  return nil, lib.errors.new(message, lib.errors.kinds.INVALID, false)
end

-- The arguments as one msgpack array; or nil and an error.
local function encoded(...)
  local count = select('#', ...)
  if count > MAX_ARGUMENTS then return invalid('funcs.call: more than ' .. MAX_ARGUMENTS .. ' arguments') end
  local parts = { count < 16 and char(0x90 + count) or '\xdc' .. pack('>I2', count) }
  for i = 1, count do
    local data, why = lib.msgpack.encode((select(i, ...)))
    if data == nil then return invalid('funcs.call: argument ' .. i .. ': ' .. why) end
    parts[i + 1] = data
  end
  return concat(parts)
end

local VALUES, TIMEOUT, ACTOR, META, SCOPE = {}, {}, {}, {}, {} -- private keys
local methods = {}
local Executor = lib.new_type('Executor', methods)

local function call(executor, id, ...)
  if type(id) ~= 'string' or not find(id, '.:.') then
    return invalid('funcs.call: expected the id of a function, namespace:name, found '
      .. (type(id) == 'string' and "'" .. id .. "'" or type_of(id)))
  end
  local arguments, err = encoded(...)
  if arguments == nil then return nil, err end
  local e = executor or {}
  local data
  data, err = host.call(id, select('#', ...), arguments, e[TIMEOUT], e[VALUES], e[ACTOR], e[META], e[SCOPE])
  if data == nil then return nil, err end
  local value, why = lib.msgpack.decode(data)
  if why then return nil, lib.errors.new(id .. ': the result: ' .. why, lib.errors.kinds.INTERNAL, false) end
  return value
end

local function no_async()
  std.error('funcs.async is not supported: there are no channels here; use funcs.call, or publish to a queue', 3)
end

-- A method that gets an executor; the others are not changed by it, so one can be the base of many.
local function method(name, f)
  methods[name] = function(executor, ...)
    if not lib.is(executor, Executor) then return invalid('executor:' .. name .. '() is called with a colon') end
    return f(executor, ...)
  end
end

local function copy(executor, changes)
  local fields = {}
  for key, v in next, executor do fields[key] = v end
  for key, v in next, changes do fields[key] = v end
  return setmetatable(fields, Executor)
end

method('with_context', function(executor, added)
  if type_of(added) ~= 'table' then
    return invalid('executor:with_context: expected a table of values, got ' .. type_of(added))
  end
  for key in next, added do
    if type(key) ~= 'string' or key == '' then
      return invalid('executor:with_context: the keys must be text that is not empty, found ' .. tostring(key))
    end
  end
  local ok, err = host.require('funcs.context', 'context')
  if not ok then return nil, err end
  if next(added) == nil then return executor end
  local data, why = lib.msgpack.encode(added)
  if data == nil then return invalid('executor:with_context: ' .. why) end
  data, err = host.merge(executor[VALUES], data)
  if data == nil then return nil, err end
  return copy(executor, { [VALUES] = data })
end)

method('with_actor', function(executor, actor)
  local id, meta = values.actor(actor)
  if not id then return invalid('executor:with_actor: expected an actor, got ' .. type_of(actor)) end
  local ok, err = host.require('funcs.security', 'security')
  if not ok then return nil, err end
  return copy(executor, { [ACTOR] = id, [META] = meta })
end)

method('with_scope', function(executor, scope)
  local ids = values.scope(scope)
  if not ids then return invalid('executor:with_scope: expected a scope, got ' .. type_of(scope)) end
  local ok, err = host.require('funcs.security', 'security')
  if not ok then return nil, err end
  return copy(executor, { [SCOPE] = ids })
end)

method('with_options', function(executor, options)
  if type_of(options) ~= 'table' then
    return invalid('executor:with_options: expected a table of options, got ' .. type_of(options))
  end
  for key in next, options do
    if key ~= 'timeout' then
      return invalid('executor:with_options: unknown option ' .. tostring(key) .. '; expected timeout')
    end
  end
  local timeout = options.timeout
  if type(timeout) == 'string' then
    local err
    timeout, err = host.seconds(timeout)
    if timeout == nil then return nil, err end
  end
  if timeout ~= nil and not (type(timeout) == 'number' and timeout > 0 and timeout < huge) then
    return invalid('executor:with_options: timeout: expected seconds, more than 0, or a duration like "5s", found '
      .. tostring(timeout))
  end
  return copy(executor, { [TIMEOUT] = timeout })
end)

method('call', call)
function methods.async() no_async() end

return {
  call = function(id, ...) return call(nil, id, ...) end,
  async = function() no_async() end,
  new = function() return setmetatable({}, Executor) end,
}
