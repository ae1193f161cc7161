-- A part of `time`: reading a text by a Go layout, with the leniency and the error texts of Go.
local std, _, calendar, layouts, parser = ...
local ipairs, tonumber = std.ipairs, std.tonumber
local byte, find, format, gsub = std.string.byte, std.string.find, std.string.format, std.string.gsub
local lower, match, rep, sub = std.string.lower, std.string.match, std.string.rep, std.string.sub
local days_from_civil, civil_from_days = calendar.days_from_civil, calendar.civil_from_days
local compile, MONTHS, WEEKDAYS = layouts.compile, layouts.MONTHS, layouts.WEEKDAYS

local function days_in(year, month)
  return days_from_civil(month == 12 and year + 1 or year, month % 12 + 1, 1) - days_from_civil(year, month, 1)
end

-- Each reader gives the position after what it took; or nil; or nil and what is out of range.

local function digits_at(value, at, fixed)
  local digits = match(value, "^%d%d", at) or not fixed and match(value, "^%d", at)
  if digits then
    return tonumber(digits), at + #digits
  end
  return nil
end

local function reader(field, name, first, last, fixed, blank)
  return function(value, at, out)
    if blank and sub(value, at, at) == " " then
      at = at + 1
    end
    local number, after = digits_at(value, at, fixed)
    if not number then
      return nil
    elseif number < first or number > last then
      return nil, name
    end
    out[field] = number
    return after
  end
end

local function name_reader(field, names, length)
  return function(value, at, out)
    for index, name in ipairs(names) do
      local wanted = length and sub(name, 1, length) or name
      if lower(sub(value, at, at + #wanted - 1)) == lower(wanted) then
        out[field] = index
        return at + #wanted
      end
    end
    return nil
  end
end

local function year_day_reader(blanks)
  return function(value, at, out)
    local skipped = blanks and #match(value, "^ ? ?", at) or 0
    local digits = match(value, "^%d%d%d", at + skipped) or skipped > 0 and match(value, "^%d%d?", at + skipped)
    if not digits or skipped + #digits ~= 3 then
      return nil
    end
    out.year_day = tonumber(digits)
    return at + 3
  end
end

local function half_day_reader(am, pm)
  return function(value, at, out)
    local half = sub(value, at, at + 1)
    if half ~= am and half ~= pm then
      return nil
    end
    out.half = lower(half)
    return at + 2
  end
end

local function read_fraction(value, at, out, digits)
  out.nanosecond = tonumber(sub(digits .. "000000000", 1, 9))
  return at + 1 + #digits
end

local function read_offset(value, at, out, element)
  if byte(element.text) == 90 and sub(value, at, at) == "Z" then
    out.utc = true
    return at + 1
  end
  local shape = gsub(gsub(element.text, "%d%d", "(%%d%%d)"), "^[-Z]", "^([-+])")
  local sign, hours, minutes, seconds = match(value, shape, at)
  if not sign then
    return nil
  end
  hours, minutes, seconds = tonumber(hours), tonumber(minutes or 0), tonumber(seconds or 0)
  if hours > 24 then
    return nil, "time zone offset hour"
  elseif minutes > 60 then
    return nil, "time zone offset minute"
  elseif seconds > 60 then
    return nil, "time zone offset second"
  end
  local offset = hours * 3600 + minutes * 60 + seconds
  out.offset = sign == "-" and -offset or offset
  return at + #element.text
end

-- The length of "+3" or "-11" at a position, 0 when there is none.
local function signed_hours(value, at)
  local text, hours = match(value, "^([-+](%d+))", at)
  return text and tonumber(hours) <= 23 and #text or 0
end

-- The length of what looks like the abbreviation of a zone, 0 when nothing does.
local function abbreviation_length(value, at)
  local four = sub(value, at, at + 3)
  if four == "ChST" or four == "MeST" then
    return 4
  elseif sub(four, 1, 3) == "GMT" then
    return 3 + signed_hours(value, at + 3)
  elseif find(four, "^[-+]") then
    return signed_hours(value, at)
  end
  local letters = #match(value, "^%u*", at)
  if letters == 3 or letters == 4 and (sub(four, 4) == "T" or four == "WITA") then
    return letters
  end
  return letters == 5 and sub(value, at + 4, at + 4) == "T" and 5 or 0
end

local function read_abbreviation(value, at, out)
  if sub(value, at, at + 2) == "UTC" then
    out.utc = true
    return at + 3
  end
  local length = abbreviation_length(value, at)
  if length == 0 then
    return nil
  end
  out.abbreviation = sub(value, at, at + length - 1)
  return at + length
end

local function with_loose_fraction(read)
  return function(value, at, out, _, following)
    local after, range = read(value, at, out)
    -- A fraction in the value is taken even where the layout has none.
    local digits = after and not (following and following.kind == "fraction") and match(value, "^[.,](%d+)", after)
    if digits then
      after = read_fraction(value, after, out, digits)
    end
    return after, range
  end
end

local READ <const> = {
  year = function(value, at, out)
    local number, after = digits_at(value, at, true)
    if number then
      out.year = number >= 69 and 1900 + number or 2000 + number
    end
    return after
  end,
  long_year = function(value, at, out)
    local digits = match(value, "^%d%d%d%d", at)
    out.year = tonumber(digits or 0)
    return digits and at + 4
  end,
  month = name_reader("month", MONTHS, 3),
  long_month = name_reader("month", MONTHS),
  number_month = reader("month", "month", 1, 12),
  zero_month = reader("month", "month", 1, 12, true),
  weekday = name_reader("weekday", WEEKDAYS, 3),
  long_weekday = name_reader("weekday", WEEKDAYS),
  day = reader("day", "day", 0, 99), -- checked against its month in the end
  under_day = reader("day", "day", 0, 99, false, true),
  zero_day = reader("day", "day", 0, 99, true),
  under_year_day = year_day_reader(true),
  zero_year_day = year_day_reader(false),
  hour = reader("hour", "hour", 0, 23),
  hour12 = reader("hour", "hour", 0, 12),
  zero_hour12 = reader("hour", "hour", 0, 12, true),
  minute = reader("minute", "minute", 0, 59),
  zero_minute = reader("minute", "minute", 0, 59, true),
  second = with_loose_fraction(reader("second", "second", 0, 59)),
  zero_second = with_loose_fraction(reader("second", "second", 0, 59, true)),
  upper_pm = half_day_reader("AM", "PM"),
  lower_pm = half_day_reader("am", "pm"),
  offset = read_offset,
  abbreviation = read_abbreviation,
  fraction = function(value, at, out, element)
    if element.trim then
      local digits = match(value, "^[.,](%d+)", at)
      return digits and read_fraction(value, at, out, digits) or at
    end
    local digits = match(value, "^[.,](" .. rep("%d", #element.text - 1) .. ")", at)
    return digits and read_fraction(value, at, out, digits)
  end,
}

-- Literal text; spaces stand for any number of them.
local function read_literal(value, at, text)
  local wanted = 1
  while wanted <= #text do
    if sub(text, wanted, wanted) == " " then
      if at <= #value and sub(value, at, at) ~= " " then
        return nil, at
      end
      wanted, at = #match(text, "^ *", wanted) + wanted, #match(value, "^ *", at) + at
    elseif sub(value, at, at) == sub(text, wanted, wanted) then
      wanted, at = wanted + 1, at + 1
    else
      return nil, at
    end
  end
  return at
end

local function quoted(text)
  return (gsub(format("%q", #text > 80 and sub(text, 1, 80) .. "..." or text), "\n", "n"))
end

-- The month and the day that the day of the year names must be those that were read.
local function settle_year_day(out)
  local year = out.year
  if out.year_day < 1 or out.year_day > days_from_civil(year + 1, 1, 1) - days_from_civil(year, 1, 1) then
    return "day-of-year out of range"
  end
  local _, month, day = civil_from_days(days_from_civil(year, 1, 1) + out.year_day - 1)
  if out.month and out.month ~= month then
    return "day-of-year does not match month"
  elseif out.day and out.day ~= day then
    return "day-of-year does not match day"
  end
  out.month, out.day = month, day
  return nil
end

-- The wall clock that a value shows: year .. nanosecond, and `utc`, `offset`, `abbreviation` as far as it says them; or
-- nil, message.
function parser.parse(pattern, value)
  local elements, at, out = compile(pattern), 1, {}
  local function failed(text)
    return nil, "parsing time " .. quoted(value) .. text
  end
  local function mismatch(where, text)
    return failed(" as " .. quoted(pattern) .. ": cannot parse " .. quoted(sub(value, where)) .. " as " .. quoted(text))
  end
  for index, element in ipairs(elements) do
    if element.kind == "literal" then
      local after, where = read_literal(value, at, element.text)
      if not after then
        return mismatch(where, element.text)
      end
      at = after
    else
      local after, range = READ[element.kind](value, at, out, element, elements[index + 1])
      if range then
        return failed(": " .. range .. " out of range")
      elseif not after then
        return mismatch(at, element.text)
      end
      at = after
    end
  end
  if at <= #value then
    return failed(": extra text: " .. quoted(sub(value, at)))
  end
  out.year, out.hour = out.year or 0, out.hour or 0
  if out.half == "pm" and out.hour < 12 then
    out.hour = out.hour + 12
  elseif out.half == "am" and out.hour == 12 then
    out.hour = 0
  end
  local fault = out.year_day and settle_year_day(out)
  if fault then
    return failed(": " .. fault)
  end
  out.month, out.day = out.month or 1, out.day or 1
  if out.day < 1 or out.day > days_in(out.year, out.month) then
    return failed(": day out of range")
  end
  out.minute, out.second, out.nanosecond = out.minute or 0, out.second or 0, out.nanosecond or 0
  return out
end
