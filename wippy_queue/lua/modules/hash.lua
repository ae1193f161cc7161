-- The `hash` module: digests as lower-case hex, or as raw bytes with `true` as last argument; FNV-1 as integers.
local host, lib = ...
local std, type_of = lib.std, lib.type_of
local byte = std.string.byte

local function invalid(name, what, v)
  return nil, lib.errors.new('hash.' .. name .. ': expected ' .. what .. ', found ' .. type_of(v), 'Invalid', false)
end

local module = {}

for _, name in std.ipairs { 'md5', 'sha1', 'sha256', 'sha512' } do
  local digest, hmac_name = host.digest, 'hmac_' .. name
  module[name] = function(data, raw)
    if type_of(data) ~= 'string' then return invalid(name, 'a string', data) end
    if raw ~= nil and type_of(raw) ~= 'boolean' then return invalid(name, 'true or false for raw', raw) end
    return digest(name, data, raw == true)
  end
  module[hmac_name] = function(data, key, raw)
    if type_of(data) ~= 'string' then return invalid(hmac_name, 'a string', data) end
    if type_of(key) ~= 'string' then return invalid(hmac_name, 'a string as key', key) end
    if raw ~= nil and type_of(raw) ~= 'boolean' then return invalid(hmac_name, 'true or false for raw', raw) end
    return host.hmac(name, data, key, raw == true)
  end
end

-- FNV-1 (multiply, then xor; http://www.isthe.com/chongo/tech/comp/fnv/). Lua's integers wrap at 64 bits as it wants
-- them to, so a 64-bit hash above 2^63-1 is a negative integer: string.format('%016x', n) shows its bits.
local function fnv(name, start, prime, mask)
  return function(data)
    if type_of(data) ~= 'string' then return invalid(name, 'a string', data) end
    local value = start
    for i = 1, #data do value = value * prime & mask ~ byte(data, i) end
    return value
  end
end

module.fnv32 = fnv('fnv32', 0x811c9dc5, 0x01000193, 0xffffffff)
module.fnv64 = fnv('fnv64', 0xcbf29ce484222325, 0x00000100000001b3, -1)

return module
