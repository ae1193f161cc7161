-- The `json` module: the codec with errors as values, and validation by JSON Schema (json_schema.lua).
local host, lib = ...
local codec, new_error, type_of = lib.json, lib.errors.new, lib.type_of

local function encode(value)
  local text, why = codec.encode(value)
  if not text then return nil, new_error('json.encode: ' .. why, 'Internal', false) end
  return text
end

-- A body that was published as a table arrives as one, so a table passes as it is.
local function decode(text)
  local kind = type_of(text)
  if kind == 'table' then return text end
  if kind ~= 'string' then return nil, new_error('json.decode: expected text, found ' .. kind, 'Invalid', false) end
  if text == '' then return nil, new_error('json.decode: the text is empty', 'Invalid', false) end
  local value, why = codec.decode(text)
  if why then return nil, new_error('json.decode: ' .. why, 'Internal', false) end
  return value
end

local schemas -- loaded with the first use

local function validator(schema)
  schemas = schemas or lib.include('json_schema')
  return schemas.validator(schema, host.matches)
end

local function verdict(why)
  if why then return false, new_error(why, 'Invalid', false) end
  return true
end

local function validate(schema, value)
  local check, why = validator(schema)
  return verdict(not check and 'json.validate: schema: ' .. why or check(value))
end

local function validate_string(schema, text)
  if type_of(text) ~= 'string' then return verdict('json.validate_string: expected text, found ' .. type_of(text)) end
  local check, why = validator(schema)
  if not check then return verdict('json.validate_string: schema: ' .. why) end
  local value
  value, why = codec.decode(text, schemas.null)
  return verdict(why and 'json.validate_string: ' .. why or check(value, true))
end

return { encode = encode, decode = decode, validate = validate, validate_string = validate_string }
