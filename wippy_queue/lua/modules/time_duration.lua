-- A part of `time`: Durations, and what the types of this module have in common.
local std, lib = ...
local type, tostring, tonumber, pairs = std.type, std.tostring, std.tonumber, std.pairs
local error, setmetatable = std.error, std.setmetatable
local format, gsub, match, sub = std.string.format, std.string.gsub, std.string.match, std.string.sub
local floor, tointeger, math_type = std.math.floor, std.math.tointeger, std.math.type
local MAX <const>, MIN <const> = std.math.maxinteger, std.math.mininteger

local SECOND <const> = 1000000000

local NANOS = {} -- the key that holds a Duration's nanoseconds: handlers cannot name it
local Duration, duration_type = {}, nil

local function invalid(...)
  return nil, lib.errors.new(format(...), lib.errors.kinds.INVALID, false)
end

-- How a value looks in an error.
local function shown(value)
  local kind = type(value)
  if kind == "string" then
    return (gsub(format("%q", #value > 60 and sub(value, 1, 60) .. "..." or value), "\n", "n"))
  elseif kind == "number" or kind == "boolean" or kind == "nil" then
    return tostring(value)
  end
  return lib.type_of(value) == "userdata" and "a " .. std.getmetatable(value).__name or "a " .. lib.type_of(value)
end

-- The metatable of a type whose methods refuse any other self, with the order that `less` gives.
local function new_type(name, is_one, methods, text, less)
  for key, method in pairs(methods) do
    methods[key] = function(self, ...)
      if not is_one(self) then
        return invalid("%s: call it with a colon on a %s; found %s", key, name, shown(self))
      end
      return method(self, ...)
    end
  end
  local function comparable(a, b)
    if not (is_one(a) and is_one(b)) then
      error("attempt to compare " .. shown(a) .. " with " .. shown(b), 3)
    end
  end
  return lib.new_type(name, methods, {
    __tostring = text,
    __lt = less and function(a, b) comparable(a, b) return less(a, b) end,
    __le = less and function(a, b) comparable(a, b) return not less(b, a) end,
    __eq = less and function(a, b) return is_one(a) and is_one(b) and not less(a, b) and not less(b, a) end,
  })
end

-- An integer within +-limit, given as one or as a float without a fraction; else nil.
local function whole(value, limit)
  local number = math_type(value) and tointeger(value)
  return number and number >= -limit and number <= limit and number or nil
end

-- Durations -----------------------------------------------------------------------------------------------------------

local UNITS <const> = {
  ns = 1, us = 1000, ["\u{b5}s"] = 1000, ["\u{3bc}s"] = 1000, ms = 1000000,
  s = SECOND, m = 60 * SECOND, h = 3600 * SECOND,
}

local function is_duration(value)
  return lib.is(value, duration_type)
end

local function new_duration(nanoseconds)
  return setmetatable({ [NANOS] = nanoseconds }, duration_type)
end

-- The nanoseconds of "1h30m", or nil.
local function parse_duration(text)
  local sign, rest = match(text, "^([-+]?)(.*)$")
  if rest == "0" then
    return 0
  elseif rest == "" then
    return nil
  end
  local total = 0
  while rest ~= "" do
    local digits, fraction, name, after = match(rest, "^(%d*)%.?(%d*)([^%d.]+)(.*)$")
    local unit = name and UNITS[name]
    local count = unit and (digits == "" and 0 or tointeger(tonumber(digits)))
    if not count or digits .. fraction == "" or count > MAX // unit then
      return nil
    end
    -- As in Go: exact wherever the unit can express the fraction.
    fraction = sub(fraction, 1, 18)
    local part = count * unit + floor((tonumber(fraction) or 0) * (unit / 10 ^ #fraction))
    if part < 0 or part > MAX - total then
      return nil
    end
    total, rest = total + part, after
  end
  return sign == "-" and -total or total
end

-- The nanoseconds of a Duration, a text or a number; or nil, err.
local function nanoseconds_of(value)
  local kind, nanoseconds = type(value), nil
  if is_duration(value) then
    nanoseconds = value[NANOS]
  elseif kind == "string" then
    nanoseconds = parse_duration(value)
  elseif kind == "number" and value == value then
    nanoseconds = tointeger(value >= 0 and floor(value) or -floor(-value))
  end
  if nanoseconds then
    return nanoseconds
  end
  return invalid('invalid duration %s: give a Duration, a text like "1h30m" or a number of nanoseconds', shown(value))
end

-- Whole numbers are integers, so that they print without a fraction, as they do in Wippy.
local function in_units(unit)
  return function(self)
    local nanoseconds = self[NANOS]
    return nanoseconds % unit == 0 and nanoseconds // unit or nanoseconds / unit
  end
end

Duration.nanoseconds, Duration.microseconds, Duration.milliseconds = in_units(1), in_units(1000), in_units(1000000)
Duration.seconds, Duration.minutes, Duration.hours = in_units(SECOND), in_units(60 * SECOND), in_units(3600 * SECOND)

local function decimal(count, unit, digits)
  local fraction = gsub(format("%0" .. digits .. "d", count % unit), "0+$", "")
  return fraction == "" and tostring(count // unit) or count // unit .. "." .. fraction
end

local function duration_text(self)
  local left = self[NANOS]
  if left == MIN then
    return "-2562047h47m16.854775808s" -- it has no positive counterpart
  elseif left == 0 then
    return "0s"
  end
  local sign = left < 0 and "-" or ""
  left = left < 0 and -left or left
  if left < 1000 then
    return sign .. left .. "ns"
  elseif left < 1000000 then
    return sign .. decimal(left, 1000, 3) .. "\u{b5}s"
  elseif left < SECOND then
    return sign .. decimal(left, 1000000, 6) .. "ms"
  end
  local minutes, seconds = left // (60 * SECOND), decimal(left % (60 * SECOND), SECOND, 9) .. "s"
  if minutes == 0 then
    return sign .. seconds
  elseif minutes < 60 then
    return sign .. minutes .. "m" .. seconds
  end
  return sign .. minutes // 60 .. "h" .. minutes % 60 .. "m" .. seconds
end

duration_type = new_type("Duration", is_duration, Duration, duration_text, function(a, b)
  return a[NANOS] < b[NANOS]
end)

return {
  new = new_duration, nanoseconds_of = nanoseconds_of,
  invalid = invalid, shown = shown, whole = whole, new_type = new_type,
}
