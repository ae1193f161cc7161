-- JSON Schema (the 2020-12 words that judge one value by itself), compiled to closures. A part of the `json` module.
--
-- A keyword that is not known is an error in the schema, never passed over; annotations (`format` is one) judge
-- nothing. Patterns are searched by patterns.py, which never backtracks: one bad pair of pattern and message would hold
-- a worker for hours. `$ref` goes to places in the same schema only.
--
-- A check takes (value, kind, size, depth) and gives nil, or why the value fails and the path from it to the fault. What
-- no pattern can judge, a text that is too long for one, fails the whole value: `refused` is set, and the words that
-- turn or choose among verdicts hand that one on.
local std, lib, host, json = ...
local string, math = std.string, std.math
local format, gsub, gmatch, match, sub = string.format, string.gsub, string.gmatch, string.match, string.sub
local concat, floor, huge, math_type = std.table.concat, math.floor, math.huge, math.type
local next, rawget, tostring, utf8_len = std.next, std.rawget, std.tostring, std.utf8.len
local setmetatable, getmetatable, rawequal = std.setmetatable, std.getmetatable, std.rawequal
local codec, type_of = lib.json, lib.type_of

local MAX_DEPTH = 512 -- checks inside one another: 128 levels of the value, with some room for $ref and allOf
local MAX_CACHED = 64
local NULL = setmetatable({}, { __metatable = false }) -- JSON's null in schemas, and in the texts of validate_string

local refused -- whether something in the value in hand cannot be judged
local exact -- whether an empty table without a marker is surely an array: so it is in a text, not in a handler's table

-- Kinds: null boolean integer number string array object, "empty" for a table that may be either of the last two,
-- "table" (and why) for one that is neither, else Lua's type.
local function kind_of(v)
  local kind = type_of(v)
  if v == nil or rawequal(v, NULL) then return 'null' end
  if kind == 'number' then return v % 1 == 0 and 'integer' or 'number' end -- 1.0 is an integer, as the standard has it
  if kind ~= 'table' then return kind end
  local shape, size = codec.shape(v)
  if not shape then return 'table', size end
  if size == 0 and not exact and not codec.is_marker(getmetatable(v)) then return 'empty', 0 end
  return shape, size
end

local function is_array(kind) return kind == 'array' or kind == 'empty' end
local function is_object(kind) return kind == 'object' or kind == 'empty' end
local function is_number(kind) return kind == 'integer' or kind == 'number' end

local function equal(a, b, depth)
  local kind, size = kind_of(a)
  local other, other_size = kind_of(b)
  if kind == 'null' or other == 'null' then return kind == other end
  if type_of(a) ~= 'table' or type_of(b) ~= 'table' then return a == b end
  if size ~= other_size or depth > MAX_DEPTH then return false end
  if kind ~= other and kind ~= 'empty' and other ~= 'empty' then return false end
  if kind == 'array' then
    for i = 1, size do
      if not equal(a[i], b[i], depth + 1) then return false end
    end
    return true
  end
  for key, item in next, a do
    if rawget(b, key) == nil or not equal(item, rawget(b, key), depth + 1) then return false end
  end
  return true
end

local function step(key)
  return match(key, '^[%a_][%w_]*$') and '.' .. key or '[' .. (codec.encode(key) or '?') .. ']'
end

local function shown(v)
  if rawequal(v, NULL) then return 'null' end
  local text = codec.encode(v) or kind_of(v)
  return #text > 60 and sub(text, 1, 57) .. '...' or text
end

-- Compiling ----------------------------------------------------------------------------------------------------------

local problem, root, references -- of the schema in hand

local function bad(at, message)
  problem = problem or at .. ': ' .. message
end

local compile -- (schema, path in the schema) -> function(value, depth) -> why, path

local function schemas_of(value, at, minimum)
  local kind, size = kind_of(value)
  local list = {}
  if not is_array(kind) or size < minimum then bad(at, 'expected a list of schemas') return list end
  for i = 1, size do list[i] = compile(value[i], at .. '[' .. i - 1 .. ']') end
  return list
end

local function members_of(value, at)
  local members = {}
  if not is_object(kind_of(value)) then bad(at, 'expected an object of schemas') return members end
  for key, schema in next, value do members[key] = compile(schema, at .. step(key)) end
  return members
end

local function names_of(value, at)
  local kind, size = kind_of(value)
  if not is_array(kind) then bad(at, 'expected a list of names') return {} end
  for i = 1, size do
    if kind_of(value[i]) ~= 'string' then bad(at, 'expected a list of names') end
  end
  return value
end

local function judged(test, message)
  return function(v, kind, size) if not test(v, kind, size) then return message, '' end end
end

-- A keyword with a number, for values of one kind.
local function bound(applies, measure, holds, message, whole)
  return function(limit, at)
    local kind = kind_of(limit)
    if not is_number(kind) or whole and (kind ~= 'integer' or limit < 0) then
      return bad(at, whole and 'expected an integer from 0 on' or 'expected a number')
    end
    return judged(function(v, of, size)
      return not applies(of) or holds(measure(v, size), limit)
    end, format(message, tostring(limit)))
  end
end

local function value_itself(v) return v end
local function size_itself(_, size) return size end
local function characters(v) return utf8_len(v) or #v end
local function is_string(kind) return kind == 'string' end
local function at_least(a, b) return a >= b end
local function at_most(a, b) return a <= b end
local function above(a, b) return a > b end
local function below(a, b) return a < b end

local function is_multiple(v, of)
  if math_type(v) == 'integer' and math_type(of) == 'integer' then return v % of == 0 end
  local times = v / of
  return times ~= huge and times ~= -huge and math.abs(times - floor(times + 0.5)) <= 1e-9 -- 0.3 is three times 0.1
end

local TYPES = { null = true, boolean = true, integer = true, number = true, string = true, array = true, object = true }

local function is_of(kind, wanted)
  return wanted[kind] or kind == 'integer' and wanted.number or kind == 'empty' and (wanted.array or wanted.object)
end

local keywords = {} -- name -> function(value, path in the schema, whole schema) -> check

function keywords.type(value, at)
  local list = kind_of(value) == 'string' and { value } or value
  local wanted, size = {}, kind_of(list) == 'array' and #list or 0
  for i = 1, size do
    if kind_of(list[i]) ~= 'string' or not TYPES[list[i]] then return bad(at, 'unknown type ' .. shown(list[i])) end
    wanted[list[i]] = true
  end
  if size == 0 then return bad(at, 'expected the name of a type, or a list of names') end
  local names = concat(list, ' or ')
  return function(_, kind)
    if is_of(kind, wanted) then return nil end
    return 'expected ' .. names .. ', found ' .. (kind == 'empty' and 'an empty table' or kind), ''
  end
end

function keywords.enum(list, at)
  local kind, size = kind_of(list)
  if not is_array(kind) then return bad(at, 'expected a list of values') end
  local texts = {}
  for i = 1, size do texts[i] = shown(list[i]) end
  local message = 'expected one of ' .. concat(texts, ', ')
  return function(v)
    for i = 1, size do
      if equal(v, list[i], 0) then return nil end
    end
    return message .. ', found ' .. shown(v), ''
  end
end

function keywords.const(value)
  return judged(function(v) return equal(v, value, 0) end, 'expected ' .. shown(value))
end

keywords.minimum = bound(is_number, value_itself, at_least, 'expected at least %s')
keywords.maximum = bound(is_number, value_itself, at_most, 'expected at most %s')
keywords.exclusiveMinimum = bound(is_number, value_itself, above, 'expected more than %s')
keywords.exclusiveMaximum = bound(is_number, value_itself, below, 'expected less than %s')
keywords.minLength = bound(is_string, characters, at_least, 'expected at least %s characters', true)
keywords.maxLength = bound(is_string, characters, at_most, 'expected at most %s characters', true)
-- Whether a text holds what a pattern describes; or nil, and why that cannot be told.
local function found(pattern, text)
  local is_found, err = host.matches(pattern, text)
  if not err then return is_found end
  refused = true
  return nil, 'no pattern can judge it: ' .. err:message()
end

local function is_pattern(text, at)
  if kind_of(text) ~= 'string' then return bad(at, 'expected a pattern, as text') end
  local _, err = host.matches(text, '')
  if err then return bad(at, err:message()) end
  return true
end

function keywords.pattern(pattern, at)
  if not is_pattern(pattern, at) then return nil end
  local message = 'expected text that matches the pattern ' .. shown(pattern)
  return function(v, kind)
    if kind ~= 'string' then return nil end
    local is_found, why = found(pattern, v)
    if not is_found then return why or message, '' end
  end
end

keywords.minItems = bound(is_array, size_itself, at_least, 'expected at least %s items', true)
keywords.maxItems = bound(is_array, size_itself, at_most, 'expected at most %s items', true)
keywords.minProperties = bound(is_object, size_itself, at_least, 'expected at least %s members', true)
keywords.maxProperties = bound(is_object, size_itself, at_most, 'expected at most %s members', true)

function keywords.multipleOf(value, at)
  if not is_number(kind_of(value)) or value <= 0 then return bad(at, 'expected a number above 0') end
  return judged(function(v, kind)
    return not is_number(kind) or is_multiple(v, value)
  end, 'expected a multiple of ' .. tostring(value))
end

function keywords.required(value, at)
  local names = names_of(value, at)
  return function(v, kind)
    if not is_object(kind) then return nil end
    for i = 1, #names do
      if rawget(v, names[i]) == nil then return 'the member ' .. shown(names[i]) .. ' is missing', '' end
    end
  end
end

function keywords.dependentRequired(value, at)
  if not is_object(kind_of(value)) then return bad(at, 'expected an object of lists of names') end
  for key, list in next, value do names_of(list, at .. step(key)) end
  return function(v, kind)
    if not is_object(kind) then return nil end
    for key, list in next, value do
      for i = 1, rawget(v, key) ~= nil and #list or 0 do
        if rawget(v, list[i]) == nil then
          return 'the member ' .. shown(list[i]) .. ' must stand beside ' .. shown(key), ''
        end
      end
    end
  end
end

function keywords.properties(value, at)
  local members = members_of(value, at)
  return function(v, kind, _, depth)
    if not is_object(kind) then return nil end
    for key, check in next, members do
      local item = rawget(v, key)
      if item ~= nil then
        local why, where = check(item, depth)
        if why then return why, step(key) .. where end
      end
    end
  end
end

function keywords.patternProperties(value, at)
  local members = members_of(value, at)
  for pattern in next, members do is_pattern(pattern, at .. step(pattern)) end
  return function(v, kind, _, depth)
    if not is_object(kind) then return nil end
    for key, item in next, v do
      for pattern, check in next, members do
        local is_found, why = found(pattern, key)
        if why then return 'the name of the member: ' .. why, step(key) end
        if is_found then
          local reason, where = check(item, depth)
          if reason then return reason, step(key) .. where end
        end
      end
    end
  end
end

function keywords.additionalProperties(value, at, schema)
  local check, known = compile(value, at), is_object(kind_of(schema.properties)) and schema.properties or {}
  local patterns = is_object(kind_of(schema.patternProperties)) and schema.patternProperties or {}
  local function is_known(key)
    if known[key] ~= nil then return true end
    for pattern in next, patterns do
      if found(pattern, key) then return true end -- patternProperties has told it already where this fails
    end
    return false
  end
  return function(v, kind, _, depth)
    if not is_object(kind) then return nil end
    for key, item in next, v do
      if not is_known(key) then
        if value == false then return 'no such member is allowed', step(key) end
        local why, where = check(item, depth)
        if why then return why, step(key) .. where end
      end
    end
  end
end

function keywords.propertyNames(value, at)
  local check = compile(value, at)
  return function(v, kind, _, depth)
    if not is_object(kind) then return nil end
    for key in next, v do
      local why = check(key, depth)
      if why then return 'the name of the member: ' .. why, step(key) end
    end
  end
end

function keywords.prefixItems(value, at)
  local list = schemas_of(value, at, 1)
  return function(v, kind, size, depth)
    for i = 1, is_array(kind) and math.min(size, #list) or 0 do
      local why, where = list[i](v[i], depth)
      if why then return why, '[' .. i - 1 .. ']' .. where end
    end
  end
end

function keywords.items(value, at, schema)
  if kind_of(value) == 'array' and next(value) ~= nil then
    return bad(at, 'expected one schema; a list of them is prefixItems')
  end
  local check, first = compile(value, at), schema.prefixItems and #schema.prefixItems + 1 or 1
  return function(v, kind, size, depth)
    for i = first, is_array(kind) and size or 0 do
      local why, where = check(v[i], depth)
      if why then return why, '[' .. i - 1 .. ']' .. where end
    end
  end
end

function keywords.contains(value, at)
  local check = compile(value, at)
  return function(v, kind, size, depth)
    if not is_array(kind) then return nil end
    for i = 1, size do
      local why, where = check(v[i], depth)
      if refused then return why, '[' .. i - 1 .. ']' .. where end
      if not why then return nil end
    end
    return 'none of the items is as `contains` wants one', ''
  end
end

function keywords.uniqueItems(value, at)
  if kind_of(value) ~= 'boolean' then return bad(at, 'expected true or false') end
  if not value then return nil end
  return function(v, kind, size)
    local seen, tables = {}, {}
    for i = 1, is_array(kind) and size or 0 do
      local item = v[i]
      if item == nil then item = NULL end
      local twice = seen[item]
      seen[item] = true
      if type_of(item) == 'table' and not rawequal(item, NULL) and not twice then
        for j = 1, #tables do twice = twice or equal(item, tables[j], 0) end
        tables[#tables + 1] = item
      end
      if twice then return 'the item stands in the array twice', '[' .. i - 1 .. ']' end
    end
  end
end

keywords['not'] = function(value, at)
  local check = compile(value, at)
  return function(v, _, _, depth)
    local why, where = check(v, depth)
    if refused then return why, where end
    if not why then return 'expected what the schema of `not` refuses', '' end
  end
end

function keywords.allOf(value, at)
  local list = schemas_of(value, at, 1)
  return function(v, _, _, depth)
    for i = 1, #list do
      local why, where = list[i](v, depth)
      if why then return why, where end
    end
  end
end

function keywords.anyOf(value, at)
  local list = schemas_of(value, at, 1)
  return function(v, _, _, depth)
    local reasons = {}
    for i = 1, #list do
      local why, where = list[i](v, depth)
      if refused then return why, where end
      if not why then return nil end
      reasons[i] = where == '' and why or where .. ': ' .. why
    end
    return 'none of the schemas of `anyOf` takes it (' .. concat(reasons, '; ') .. ')', ''
  end
end

function keywords.oneOf(value, at)
  local list = schemas_of(value, at, 1)
  return function(v, _, _, depth)
    local reasons, taken = {}, 0
    for i = 1, #list do
      local why, where = list[i](v, depth)
      if refused then return why, where end
      if why then reasons[#reasons + 1] = where == '' and why or where .. ': ' .. why else taken = taken + 1 end
    end
    if taken == 1 then return nil end
    if taken == 0 then return 'none of the schemas of `oneOf` takes it (' .. concat(reasons, '; ') .. ')', '' end
    return taken .. ' of the schemas of `oneOf` take it, where one is to', ''
  end
end

keywords['if'] = function(value, at, schema)
  local check = compile(value, at)
  local outside = sub(at, 1, -#'.if' - 1)
  local yes = schema['then'] ~= nil and compile(schema['then'], outside .. '.then')
  local no = schema['else'] ~= nil and compile(schema['else'], outside .. '.else')
  return function(v, _, _, depth)
    local why, where = check(v, depth)
    if refused then return why, where end
    local branch = yes
    if why then branch = no end
    if branch then return branch(v, depth) end
  end
end

keywords['$ref'] = function(pointer, at)
  if kind_of(pointer) ~= 'string' or not match(pointer, '^#/') and pointer ~= '#' then
    return bad(at, 'expected a place in this schema, like "#/$defs/name", found ' .. shown(pointer))
  end
  local target = root
  for part in gmatch(pointer, '/([^/]*)') do
    part = gsub(gsub(part, '~1', '/'), '~0', '~')
    local kind = kind_of(target)
    if is_array(kind) and match(part, '^%d+$') then
      target = target[std.tonumber(part) + 1]
    else
      target = is_object(kind) and target[part] or nil
    end
  end
  if target == nil then return bad(at, 'there is no ' .. pointer .. ' in this schema') end
  local reference = references[pointer]
  if not reference then
    reference = {}
    references[pointer] = reference -- before compiling: a schema may refer to itself
    reference.check = compile(target, pointer)
  end
  return function(v, _, _, depth) return reference.check(v, depth) end
end

keywords['$defs'], keywords.definitions = members_of, members_of

-- In this order, so that the plainest reason is the one that is told.
local ORDER = {
  'type', 'const', 'enum', 'minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf', 'minLength',
  'maxLength', 'pattern', 'minItems', 'maxItems', 'uniqueItems', 'minProperties', 'maxProperties', 'required',
  'dependentRequired', 'propertyNames', 'properties', 'patternProperties', 'additionalProperties', 'prefixItems', 'items',
  'contains', '$ref', 'allOf', 'anyOf', 'oneOf', 'not', 'if',
}
local SILENT = {}
for name in gmatch('title description default examples $schema $id $comment format readOnly writeOnly deprecated '
  .. 'contentEncoding contentMediaType then else', '%S+') do SILENT[name] = true end

local function accept() end
local function reject() return 'nothing is allowed here', '' end

function compile(schema, at)
  if schema == true then return accept end
  if schema == false then return reject end
  if not is_object(kind_of(schema)) then
    bad(at, 'expected a schema, found ' .. kind_of(schema))
    return accept
  end
  for name in next, schema do
    if not keywords[name] and not SILENT[name] then bad(at, 'unknown keyword ' .. shown(name)) end
  end
  if schema['if'] == nil and (schema['then'] ~= nil or schema['else'] ~= nil) then
    bad(at, '`then` and `else` need an `if`')
  end
  members_of(schema['$defs'] or {}, at .. '["$defs"]')
  members_of(schema.definitions or {}, at .. '.definitions')
  local checks = {}
  for i = 1, #ORDER do
    local name = ORDER[i]
    local value = schema[name]
    if value ~= nil then checks[#checks + 1] = keywords[name](value, at .. step(name), schema) end
  end
  return function(v, depth)
    if depth == MAX_DEPTH then return 'nested too deep, or a schema that refers to itself without end', '' end
    local kind, size = kind_of(v)
    if kind == 'table' then return size, '' end
    for i = 1, #checks do
      local why, where = checks[i](v, kind, size, depth + 1)
      if why then return why, where end
    end
  end
end

local validators, cached = {}, 0 -- JSON text -> function(value, exact) -> nil, or why not

local function validator(schema)
  local kind, text, why = type_of(schema), schema, nil
  if kind == 'table' or kind == 'boolean' then
    text, why = codec.encode(schema)
    if not text then return nil, why end
  elseif kind ~= 'string' then
    return nil, 'expected a table or JSON text, found ' .. kind
  end
  if validators[text] then return validators[text] end
  root, why = codec.decode(text, NULL)
  if why then return nil, why end
  problem, references, exact = nil, {}, false
  local check = compile(root, '$')
  if problem then return nil, problem end
  local function validate(value, is_exact)
    exact, refused = is_exact, false
    local reason, where = check(value, 0)
    if reason then return '$' .. where .. ': ' .. reason end
  end
  if cached == MAX_CACHED then validators, cached = {}, 0 end
  validators[text], cached = validate, cached + 1
  return validate
end

local function verdict(why)
  if why then return false, lib.errors.new(why, 'Invalid', false) end
  return true
end

function json.validate(schema, value)
  local check, why = validator(schema)
  return verdict(not check and 'json.validate: schema: ' .. why or check(value))
end

function json.validate_string(schema, text)
  if type_of(text) ~= 'string' then return verdict('json.validate_string: expected text, found ' .. type_of(text)) end
  local check, why = validator(schema)
  if not check then return verdict('json.validate_string: schema: ' .. why) end
  local value
  value, why = codec.decode(text, NULL)
  return verdict(why and 'json.validate_string: ' .. why or check(value, true))
end
