-- The `json` module: the codec with errors as values; json_schema.lua adds validation.
local host, lib = ...
local type_of = lib.type_of

local function encode(value)
  local text, why = lib.json.encode(value)
  if not text then return nil, lib.errors.new('json.encode: ' .. why, 'Internal', false) end
  return text
end

-- A body that was published as a table arrives as one, so a table passes as it is.
local function decode(text)
  local kind = type_of(text)
  if kind == 'table' then return text end
  if kind ~= 'string' then return nil, lib.errors.new('json.decode: expected text, found ' .. kind, 'Invalid', false) end
  if text == '' then return nil, lib.errors.new('json.decode: the text is empty', 'Invalid', false) end
  local value, why = lib.json.decode(text)
  if why then return nil, lib.errors.new('json.decode: ' .. why, 'Internal', false) end
  return value
end

return lib.later({ encode = encode, decode = decode }, function(json) lib.include('json_schema', host, json) end)
