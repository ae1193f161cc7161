-- A part of `time`: Durations as text.
local std, _, durations = ...
local tostring, tonumber, format, gsub = std.tostring, std.tonumber, std.string.format, std.string.gsub
local match, sub = std.string.match, std.string.sub
local floor, tointeger = std.math.floor, std.math.tointeger
local MAX <const>, MIN <const> = std.math.maxinteger, std.math.mininteger
local SECOND <const> = 1000000000

local UNITS <const> = {
  ns = 1, us = 1000, ["\u{b5}s"] = 1000, ["\u{3bc}s"] = 1000, ms = 1000000,
  s = SECOND, m = 60 * SECOND, h = 3600 * SECOND,
}

-- The nanoseconds of "1h30m", or nil.
function durations.parse(text)
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

local function decimal(count, unit, digits)
  local fraction = gsub(format("%0" .. digits .. "d", count % unit), "0+$", "")
  return fraction == "" and tostring(count // unit) or count // unit .. "." .. fraction
end

function durations.text(left)
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
