-- The `store` module: key-value stores that all workers share. Values are encoded and decoded here, so what goes in and
-- what comes out are copies, and Python sees bytes. What is used less often is in store_more.lua.
local host, lib = ...
local std = lib.std
local type, tostring, setmetatable = std.type, std.tostring, std.setmetatable
local format, math_type, huge = std.string.format, std.math.type, std.math.huge

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
  local data, message = lib.msgpack.encode(value)
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
  local value, message = lib.msgpack.decode(data)
  if message then
    return nil, lib.errors.new("store: " .. message, lib.errors.kinds.INTERNAL)
  end
  return value
end

method("get", true, function(id, key)
  return decoded(host.get(id, key))
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

function Store:release()
  if not lib.is(self, store_type) then
    return invalid("store: call release with a colon: my_store:release()")
  end
  std.rawset(self, RELEASED, true)
  return true
end

local shared = { method = method, invalid = invalid, seconds = seconds, encoded = encoded, decoded = decoded }

store_type = lib.new_type("Store", lib.later(Store, function() lib.include("store_more", host, shared) end))

local store = lib.later({}, function(t)
  t.backend = lib.seal({
    MEMORY = "memory", SQL = "sql", KV_RAFT = "kv.raft", KV_CRDT = "kv.crdt", UNKNOWN = "unknown",
  }, "store.backend")
  t.consistency = lib.seal({
    LINEARIZABLE = "linearizable", EVENTUAL = "eventual", LOCAL = "local", UNKNOWN = "unknown",
  }, "store.consistency")
end)

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
