-- The `uuid` module (RFC 9562). Makers go through Python, for its random numbers and digests; the rest is here.
local host, lib = ...
local std, type_of = lib.std, lib.type_of
local format, gsub, lower, match = std.string.format, std.string.gsub, std.string.lower, std.string.match
local sub, tonumber = std.string.sub, std.tonumber

local STANDARD = '^(%x%x%x%x%x%x%x%x)%-(%x%x%x%x)%-(%x%x%x%x)%-(%x%x%x%x)%-(%x%x%x%x%x%x%x%x%x%x%x%x)$'

-- The 32 digits in lower case, of a UUID in any of the forms that `format` gives; nil when it is none.
local function digits_of(text)
  if type_of(text) ~= 'string' then return nil end
  local a, b, c, d, e = match(gsub(text, '^[Uu][Rr][Nn]:[Uu][Uu][Ii][Dd]:', ''), STANDARD)
  if a then return lower(a .. b .. c .. d .. e) end
  if #text == 32 and match(text, '^%x+$') then return lower(text) end
end

local function invalid(message)
  return nil, lib.errors.new(message, 'Invalid', false)
end

local function not_a_uuid(name, text)
  local kind = type_of(text)
  if kind ~= 'string' then return invalid(format('uuid.%s: expected a string, found %s', name, kind)) end
  return invalid(format('uuid.%s: expected a UUID, found "%s"', name, #text > 50 and sub(text, 1, 47) .. '...' or text))
end

local function version_of(digits) return tonumber(sub(digits, 13, 13), 16) end

local function variant_of(digits)
  local bits = tonumber(sub(digits, 17, 17), 16)
  if bits < 8 then return 'Reserved' end -- of NCS
  if bits < 12 then return 'RFC4122' end
  return bits < 14 and 'Microsoft' or 'Future'
end

local function named(name)
  return function(namespace, text)
    local digits = digits_of(namespace)
    if not digits then return not_a_uuid(name .. ': namespace', namespace) end
    if type_of(text) ~= 'string' then
      return invalid(format('uuid.%s: expected a name, found %s', name, type_of(text)))
    end
    return host[name](digits, text)
  end
end

local function validate(text) return digits_of(text) ~= nil end

local function version(text)
  local digits = digits_of(text)
  if not digits then return not_a_uuid('version', text) end
  return version_of(digits)
end

local function variant(text)
  local digits = digits_of(text)
  if not digits then return not_a_uuid('variant', text) end
  return variant_of(digits)
end

-- timestamp: Unix seconds, of versions 1 and 7; node: 12 hex digits, of version 1.
local function parse(text)
  local digits = digits_of(text)
  if not digits then return not_a_uuid('parse', text) end
  local info = { version = version_of(digits), variant = variant_of(digits) }
  if info.variant == 'RFC4122' and info.version == 1 then
    local ticks = tonumber(sub(digits, 14, 16) .. sub(digits, 9, 12) .. sub(digits, 1, 8), 16) -- of 100 ns, since 1582
    info.timestamp = ticks // 10000000 - 12219292800
    info.node = sub(digits, 21)
  elseif info.variant == 'RFC4122' and info.version == 7 then
    info.timestamp = tonumber(sub(digits, 1, 12), 16) // 1000
  end
  return info
end

local function format_as(text, form)
  local digits = digits_of(text)
  if not digits then return not_a_uuid('format', text) end
  if form == 'simple' then return digits end
  local standard = gsub(digits, '^(........)(....)(....)(....)', '%1-%2-%3-%4-')
  if form == nil or form == 'standard' then return standard end
  if form == 'urn' then return 'urn:uuid:' .. standard end
  local found = type_of(form) == 'string' and '"' .. form .. '"' or type_of(form)
  return invalid('uuid.format: expected "standard", "simple" or "urn", found ' .. found)
end

return {
  v1 = function() return host.v1() end, -- arguments, as `uuid:v1()` gives one, do not reach Python
  v4 = function() return host.v4() end,
  v7 = function() return host.v7() end,
  v3 = named('v3'), v5 = named('v5'),
  validate = validate, version = version, variant = variant, parse = parse, format = format_as,
}
