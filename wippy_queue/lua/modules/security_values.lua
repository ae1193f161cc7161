-- Actors and scopes as values: `security` makes them, `funcs` passes them on. Handlers can neither forge nor change them.
local std, lib = ...
local setmetatable = std.setmetatable

local ID, META, IDS = {}, {}, {} -- private keys
local actor_methods, scope_methods, policy_methods = {}, {}, {} -- `security` adds to them
local Actor = lib.new_type('Actor', actor_methods)
local Scope = lib.new_type('Scope', scope_methods)
local Policy = lib.new_type('Policy', policy_methods)

return {
  actor_methods = actor_methods, scope_methods = scope_methods, policy_methods = policy_methods,

  -- meta: a map in msgpack.
  new_actor = function(id, meta) return setmetatable({ [ID] = id, [META] = meta }, Actor) end,
  -- ids: of its policies, with a space behind each.
  new_scope = function(ids) return setmetatable({ [IDS] = ids }, Scope) end,
  new_policy = function(id) return setmetatable({ [ID] = id }, Policy) end,

  -- Give id and meta of an actor, the ids of a scope, the id of a policy; nothing for any other value.
  actor = function(v) if lib.is(v, Actor) then return v[ID], v[META] end end,
  scope = function(v) if lib.is(v, Scope) then return v[IDS] end end,
  policy = function(v) if lib.is(v, Policy) then return v[ID] end end,
}
