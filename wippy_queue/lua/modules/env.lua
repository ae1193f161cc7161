-- The `env` module: the environment variables that the application declares.
local host, lib = ...
local type = lib.std.type

local function invalid(message)
  return nil, lib.errors.new(message, lib.errors.kinds.INVALID, false)
end

local env = {}

function env.get(key)
  if type(key) ~= 'string' or key == '' then return invalid('env.get: the name must be text that is not empty') end
  return host.get(key)
end

function env.set(key, value)
  if type(key) ~= 'string' or key == '' then return invalid('env.set: the name must be text that is not empty') end
  if type(value) ~= 'string' then return invalid('env.set: the value must be text, got ' .. lib.type_of(value)) end
  return host.set(key, value)
end

function env.get_all()
  local data, err = host.get_all()
  if data == nil then return nil, err end
  return lib.msgpack.decode(data)
end

return env
