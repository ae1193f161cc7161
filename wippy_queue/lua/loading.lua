-- The function of a runtime and its libraries. bootstrap.lua runs this last; when the function is loaded, what `require`
-- needs is all that stays.
local core, lib = ...
local std, type_of = lib.std, lib.type_of
local type, next, pcall, error, tostring, select = std.type, std.next, std.pcall, std.error, std.tostring, std.select
local gmatch, char, concat, sort = std.string.gmatch, std.string.char, std.table.concat, std.table.sort

-- A module whose functions a user wrote in Python. Arguments and results are plain data: scalars go as they are, anything
-- else as msgpack.

local SCALAR = core.SCALAR

local function packed(where, count, ...)
  local parts = { char(0x90 + count) }
  for i = 1, count do
    local data, why = lib.msgpack.encode((select(i, ...)))
    if data == nil then return nil, lib.errors.new(where .. ': argument ' .. i .. ': ' .. why, 'Invalid') end
    parts[i + 1] = data
  end
  return concat(parts)
end

local function answer(where, value, more) -- more: nothing, an error, or a value that is packed
  if more == nil then return value end
  if type(more) ~= 'string' then return nil, more end
  local why
  value, why = lib.msgpack.decode(more)
  if why then return nil, lib.errors.new(where .. ': the result: ' .. why, 'Internal', false) end
  return value
end

local function install_foreign(name, ...)
  local functions = {}
  for _, key in next, { ... } do
    local where = name .. '.' .. key
    local f = core.host_function(name, key)
    functions[key] = function(...)
      local count = select('#', ...)
      if count > 15 then return nil, lib.errors.new(where .. ': more than 15 arguments', 'Invalid') end
      for i = 1, count do
        if not SCALAR[type((select(i, ...)))] then
          local data, err = packed(where, count, ...)
          if not data then return nil, err end
          return answer(where, f(true, data))
        end
      end
      return answer(where, f(false, ...))
    end
  end
  core.modules[name] = lib.seal(functions, name)
end

local units = {} -- id -> what Python has told of it
local loading = {} -- ids, outermost first

local function words(text)
  local list = {}
  for word in gmatch(text, '%S+') do list[#list + 1] = word end
  return list
end

-- modules: names; imports: alias and id in turn; both separated by spaces.
local function define(id, text, chunk_name, module_names, imports)
  local unit = { text = text, chunk_name = chunk_name, modules = {}, imports = {}, declared = module_names }
  for _, name in next, words(module_names) do unit.modules[name] = true end
  local list = words(imports)
  for i = 1, #list, 2 do
    unit.imports[list[i]] = list[i + 1]
    unit.declared = unit.declared .. ' ' .. list[i]
  end
  units[id] = unit
end

local load_unit

local function require_for(id, unit)
  return function(name)
    local target = unit.imports[name]
    if target then return load_unit(target) end
    if unit.modules[name] then return core.module(name) end
    local declared = concat(words(unit.declared), ', ')
    error("module '" .. tostring(name) .. "' is not declared for " .. id .. ' (declared: '
      .. (declared == '' and 'none' or declared) .. ')', 2)
  end
end

local function compile(id)
  local unit = units[id]
  local env = core.copy(core.globals)
  env._G, env.require = env, require_for(id, unit)
  local chunk, why = core.load(unit.text, '=' .. unit.chunk_name, 't', env)
  if not chunk then error(why, 0) end
  unit.text = nil
  return chunk
end

function load_unit(id)
  local unit = units[id]
  if unit.value ~= nil then return unit.value end
  for i, other in next, loading do
    if other == id then error('import cycle: ' .. concat(loading, ' -> ', i) .. ' -> ' .. id, 3) end
  end
  loading[#loading + 1] = id
  unit.chunk = unit.chunk or compile(id)
  local ok, value = pcall(unit.chunk)
  loading[#loading] = nil
  if core.is_dead() or not ok then error(value, 0) end
  if value == nil then value = true end
  unit.value = value
  return value
end

-- Load the function's chunk and find its handler.
local function find_handler(id, method)
  local chunk = compile(id)
  local value = chunk()
  if type(value) == 'function' then return value end
  local line = 0
  for at in next, core.getinfo(chunk, 'L').activelines or {} do line = at > line and at or line end
  local function refuse(why) error(units[id].chunk_name .. ':' .. line .. ': ' .. why, 0) end
  if type_of(value) ~= 'table' then
    refuse('expected the chunk to return a function, or a table that holds one; it returns '
      .. (value == nil and 'nothing' or 'a ' .. type_of(value)))
  end
  if method == nil then refuse('the chunk returns a table, so the entry must name one of its functions as `method`') end
  local f = value[method]
  if type(f) == 'function' then return f end
  local names = {}
  for name, member in next, value do
    if type(member) == 'function' then names[#names + 1] = tostring(name) end
  end
  sort(names)
  refuse("the table that the chunk returns has no function '" .. method .. "' (it has: "
    .. (#names == 0 and 'none' or concat(names, ', ')) .. ')')
end

return install_foreign, define, find_handler
