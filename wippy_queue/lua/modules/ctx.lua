-- The `ctx` module: the values that came with this call.
local host, lib = ...
local type = lib.std.type

local function values()
  local data, err = host.values()
  if data == nil then return nil, err end
  return lib.msgpack.decode(data)
end

local ctx = { all = values }

function ctx.get(key)
  if type(key) ~= 'string' or key == '' then
    return nil, lib.errors.new('ctx.get: the key must be text that is not empty', lib.errors.kinds.INVALID, false)
  end
  local all, err = values()
  if all == nil then return nil, err end
  local value = all[key]
  if value == nil then
    return nil, lib.errors.new('ctx.get: there is no value ' .. key, lib.errors.kinds.NOT_FOUND, false)
  end
  return value
end

return ctx
