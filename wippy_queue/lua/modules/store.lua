-- The `store` module: key-value stores that all workers share. Values are encoded and decoded here, so what goes in and
-- what comes out are copies, and Python sees bytes.
local host, lib = ...
local std = lib.std
local type, tostring, next, setmetatable = std.type, std.tostring, std.next, std.setmetatable
local find, format, math_type, huge = std.string.find, std.string.format, std.math.type, std.math.huge
local encode, decode = lib.msgpack.encode, lib.msgpack.decode

local ID, RELEASED = {}, {} -- what a store holds, under keys that handlers cannot name
local Store, store_type = {}, nil

local function invalid(...)
  return nil, lib.errors.new(format(...), lib.errors.kinds.INVALID, false)
end

-- A method that has a live store and, where `keyed`, a key; it gets the id of the store first.
local function method(name, keyed, run)
  Store[name] = function(self, key, ...)
    if not lib.is(self, store_type) then
      return invalid("store: call %s with a colon: my_store:%s(...)", name, name)
    elseif self[RELEASED] then
      return invalid("store %s: %s: it has been released", self[ID], name)
    elseif keyed and (type(key) ~= "string" or key == "") then
      return invalid("store %s: %s: expected a key, a text that is not empty", self[ID], name)
    end
    return run(self[ID], key, ...)
  end
end

local function seconds(id, name, ttl)
  if math_type(ttl) and ttl >= 0 and ttl < huge then
    return ttl
  end
  return invalid("store %s: %s: ttl: expected seconds, 0 or more (0: no expiry), found %s", id, name, tostring(ttl))
end

local function encoded(id, name, value)
  if value == nil then
    return invalid("store %s: %s: expected a value, found nil; delete(key) removes a key", id, name)
  end
  local data, message = encode(value)
  if data == nil then
    return invalid("store %s: %s: %s", id, name, message)
  end
  return data
end

-- What Python gave: bytes to decode, or nil and an error.
local function decoded(data, err)
  if data == nil then
    return nil, err
  end
  local value, message = decode(data)
  if message then
    return nil, lib.errors.new("store: " .. message, lib.errors.kinds.INTERNAL)
  end
  return value
end

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

method("get", true, function(id, key)
  return decoded(host.get(id, key))
end)

method("entry", true, function(id, key)
  return decoded(host.entry(id, key))
end)

method("has", true, function(id, key)
  return host.has(id, key)
end)

method("delete", true, function(id, key)
  return host.delete(id, key)
end)

method("set", true, function(id, key, value, ttl)
  local data, err = encoded(id, "set", value)
  if err then
    return nil, err
  end
  ttl, err = seconds(id, "set", ttl or 0)
  if err then
    return nil, err
  end
  return host.set(id, key, data, ttl)
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

function Store:release()
  if not lib.is(self, store_type) then
    return invalid("store: call release with a colon: my_store:release()")
  end
  std.rawset(self, RELEASED, true)
  return true
end

store_type = lib.new_type("Store", Store)

local store = {
  backend = lib.seal({
    MEMORY = "memory", SQL = "sql", KV_RAFT = "kv.raft", KV_CRDT = "kv.crdt", UNKNOWN = "unknown",
  }, "store.backend"),
  consistency = lib.seal({
    LINEARIZABLE = "linearizable", EVENTUAL = "eventual", LOCAL = "local", UNKNOWN = "unknown",
  }, "store.consistency"),
}

function store.get(id)
  if type(id) ~= "string" or id == "" then
    return invalid("store.get: expected the id of a store, like app:cache")
  end
  local found, err = host.open(id)
  if not found then
    return nil, err
  end
  return setmetatable({ [ID] = id }, store_type)
end

return store
