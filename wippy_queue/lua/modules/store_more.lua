-- The rest of what a store can do: see store.lua.
local std, lib, host, shared = ...
local type, tostring, next = std.type, std.tostring, std.next
local find, math_type = std.string.find, std.math.type
local method, invalid, seconds = shared.method, shared.invalid, shared.seconds
local encoded, decoded = shared.encoded, shared.decoded

local PUT <const> = { ttl = "number", only_if_absent = "boolean", if_version = "string or number" }
local LIST <const> = { prefix = "string", after = "string", limit = "number" }

-- Options as they were given, none for nil; or nil, err where one of them is not of the type that `types` names.
local function checked(id, name, options, types, expected)
  if options == nil then
    return {}
  elseif type(options) ~= "table" then
    return invalid("store %s: %s: expected a table of options, found a %s", id, name, lib.type_of(options))
  end
  for key, value in next, options do
    if not types[key] then
      return invalid("store %s: %s: unknown option %s; expected %s", id, name, tostring(key), expected)
    elseif not find(types[key], type(value), 1, true) then
      return invalid("store %s: %s: %s: expected a %s, found a %s", id, name, key, types[key], lib.type_of(value))
    end
  end
  return options
end

method("entry", true, function(id, key)
  return decoded(host.entry(id, key))
end)

method("put", true, function(id, key, value, options)
  local data, err = encoded(id, "put", value)
  if err then
    return nil, err
  end
  options, err = checked(id, "put", options, PUT, "ttl, only_if_absent, if_version")
  if err then
    return nil, err
  end
  local ttl
  ttl, err = seconds(id, "put", options.ttl or 0)
  if err then
    return nil, err
  end
  local version = options.if_version and tostring(options.if_version) -- opaque text for handlers
  if version and (#version > 18 or not find(version, "^%d+$")) then
    return invalid("store %s: put: if_version: expected the version of an entry, found %s", id, version)
  end
  return decoded(host.put(id, key, data, ttl, options.only_if_absent or false, version))
end)

method("list", false, function(id, options)
  local err
  options, err = checked(id, "list", options, LIST, "prefix, after, limit")
  if err then
    return nil, err
  end
  local limit = options.limit or 100
  if math_type(limit) ~= "integer" or limit < 1 or limit > 1000 then
    return invalid("store %s: list: limit: expected an integer from 1 to 1000, found %s", id, tostring(limit))
  end
  return decoded(host.list(id, options.prefix or "", limit, options.after))
end)

method("info", false, function(id)
  return decoded(host.info(id))
end)
