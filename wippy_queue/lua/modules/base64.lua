-- The `base64` module: the standard alphabet of RFC 4648 with padding; bytes in, bytes out.
local host, lib = ...
local type_of = lib.type_of

local function checked(name, f)
  return function(data)
    if type_of(data) ~= 'string' then
      return nil, lib.errors.new('base64.' .. name .. ': expected a string, found ' .. type_of(data), 'Invalid', false)
    end
    return f(data)
  end
end

return { encode = checked('encode', host.encode), decode = checked('decode', host.decode) }
