-- The `security` module: who acts here, under which policies, and what those say.
local host, lib = ...
local std = lib.std
local type, next, ipairs, tostring = std.type, std.next, std.ipairs, std.tostring
local find, gmatch, gsub = std.string.find, std.string.gmatch, std.string.gsub
local type_of = lib.type_of

lib.security = lib.security or lib.include('security_values')
local values = lib.security

local NOTHING <const> = '\x80' -- an empty map in msgpack

local function invalid(message)
  return nil, lib.errors.new(message, lib.errors.kinds.INVALID, false)
end

local function is_text(v)
  return type(v) == 'string' and v ~= ''
end

-- A table with text keys in msgpack; or nil and an error.
local function encoded(where, meta)
  if meta == nil then return NOTHING end
  if type_of(meta) ~= 'table' then return invalid(where .. ': the meta must be a table, got ' .. type_of(meta)) end
  if next(meta) == nil then return NOTHING end
  for key in next, meta do
    if type(key) ~= 'string' then return invalid(where .. ': the keys of the meta must be text, found ' .. tostring(key)) end
  end
  local data, why = lib.msgpack.encode(meta)
  if data == nil then return invalid(where .. ': the meta: ' .. why) end
  return data
end

-- Give what the policies with these ids say, or nil and an error.
local function evaluate(where, ids, actor, action, resource, meta)
  local actor_id, actor_meta = values.actor(actor)
  if actor ~= nil and not actor_id then return invalid(where .. ': expected an actor, got ' .. type_of(actor)) end
  if not is_text(action) then return invalid(where .. ': the action must be text that is not empty') end
  if type(resource) ~= 'string' then return invalid(where .. ': the resource must be text') end
  local data, err = encoded(where, meta)
  if data == nil then return nil, err end
  return host.evaluate(ids, actor_id, actor_meta, action, resource, data)
end

local security = {}

function security.actor()
  local id, meta = host.actor()
  if type(id) ~= 'string' then return nil, meta end
  return values.new_actor(id, meta)
end

function security.scope()
  local ids, err = host.scope()
  if ids == nil then return nil, err end
  return values.new_scope(ids)
end

function security.can(action, resource, meta)
  if not is_text(action) or (resource ~= nil and type(resource) ~= 'string') then return false end
  local data = encoded('security.can', meta)
  if data == nil then return false end
  return host.can(action, resource or '', data) == true
end

function security.new_actor(id, meta)
  if not is_text(id) then return invalid('security.new_actor: the id must be text that is not empty') end
  local data, err = encoded('security.new_actor', meta)
  if data == nil then return nil, err end
  local ok
  ok, err = host.require('security.actor.create', id)
  if not ok then return nil, err end
  return values.new_actor(id, data)
end

function security.new_scope(policies)
  if policies ~= nil and type_of(policies) ~= 'table' then
    return invalid('security.new_scope: expected a list of policies, got ' .. type_of(policies))
  end
  local ids = ''
  for i, policy in ipairs(policies or {}) do
    local id = values.policy(policy)
    if not id then return invalid('security.new_scope: expected a list of policies; number ' .. i .. ' is none') end
    ids = ids .. id .. ' '
  end
  local ok, err = host.require('security.scope.create', 'custom')
  if not ok then return nil, err end
  return values.new_scope(ids)
end

function security.policy(id)
  if not is_text(id) then return invalid('security.policy: the id must be text that is not empty') end
  local found, err = host.policy(id)
  if not found then return nil, err end
  return values.new_policy(found)
end

function security.named_scope(id)
  if not is_text(id) then return invalid('security.named_scope: the id of the group must be text that is not empty') end
  local ids, err = host.group(id)
  if not ids then return nil, err end
  return values.new_scope(ids)
end

function security.token_store()
  return nil, lib.errors.new('security.token_store: there are no token stores here', lib.errors.kinds.INVALID, false)
end

-- Methods ------------------------------------------------------------------------------------------------------------

local actor_methods, scope_methods, policy_methods = values.actor_methods, values.scope_methods, values.policy_methods

local function with_colon(what)
  return invalid(what .. ' is called with a colon')
end

function actor_methods.id(actor)
  local id = values.actor(actor)
  if not id then return with_colon('actor:id()') end
  return id
end

function actor_methods.meta(actor)
  local id, meta = values.actor(actor)
  if not id then return with_colon('actor:meta()') end
  return lib.msgpack.decode(meta)
end

function policy_methods.id(policy)
  local id = values.policy(policy)
  if not id then return with_colon('policy:id()') end
  return id
end

function policy_methods.evaluate(policy, actor, action, resource, meta)
  local id = values.policy(policy)
  if not id then return with_colon('policy:evaluate()') end
  return evaluate('policy:evaluate', id .. ' ', actor, action, resource, meta)
end

function scope_methods.evaluate(scope, actor, action, resource, meta)
  local ids = values.scope(scope)
  if not ids then return with_colon('scope:evaluate()') end
  return evaluate('scope:evaluate', ids, actor, action, resource, meta)
end

local function holds(ids, id)
  return find(' ' .. ids, ' ' .. id .. ' ', 1, true) ~= nil
end

function scope_methods.contains(scope, id)
  local ids = values.scope(scope)
  if not ids then return with_colon('scope:contains()') end
  return is_text(id) and holds(ids, id)
end

function scope_methods.policies(scope)
  local ids = values.scope(scope)
  if not ids then return with_colon('scope:policies()') end
  local list = {}
  for id in gmatch(ids, '%S+') do list[#list + 1] = values.new_policy(id) end
  return list
end

scope_methods['with'] = function(scope, policy)
  local ids = values.scope(scope)
  if not ids then return with_colon('scope:with()') end
  local id = values.policy(policy)
  if not id then return invalid('scope:with: expected a policy, got ' .. type_of(policy)) end
  local ok, err = host.require('security.scope.create', 'with')
  if not ok then return nil, err end
  return values.new_scope(holds(ids, id) and ids or ids .. id .. ' ')
end

function scope_methods.without(scope, id)
  local ids = values.scope(scope)
  if not ids then return with_colon('scope:without()') end
  id = values.policy(id) or id
  if not is_text(id) then return invalid('scope:without: expected the id of a policy, got ' .. type_of(id)) end
  local ok, err = host.require('security.scope.create', 'without')
  if not ok then return nil, err end
  return values.new_scope((gsub(ids, '%S+ ', function(word) return word == id .. ' ' and '' or nil end)))
end

return security
