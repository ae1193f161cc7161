-- A part of `time`: the calendar, and what takes it: most methods of Times, with the semantics of Go's, and Times out of
-- dates and texts.
local std, lib, host, values, instants = ...
local type, tonumber, error, rawset, next = std.type, std.tonumber, std.error, std.rawset, std.next
local match, tointeger = std.string.match, std.math.tointeger
local invalid, shown, whole, nanoseconds_of = values.invalid, values.shown, values.whole, values.nanoseconds_of
local is_time, is_location, new_location, new_time = values.is_time, values.is_location, values.new_location, values.new_time
local UTC, LOCAL, moved, in_nanoseconds = values.UTC, values.LOCAL, values.moved, values.in_nanoseconds
local NAME, OFFSET, ZONED, ABBREVIATION = values.NAME, values.OFFSET, values.ZONED, values.ABBREVIATION
local SEC, NSEC, LOC = values.SEC, values.NSEC, values.LOC

local SECOND <const>, DAY <const> = 1000000000, 86400
local FIRST, LAST = values.FIRST, values.LAST
local YEAR_ONE <const> = -62135596800 -- Go's zero time, and what round and truncate count from

local Time = {} -- methods
local layouts = lib.later({}, function(t) lib.include("time_layout", t) end)
local parser = lib.later({}, function(t) lib.include("time_parse", instants, layouts, t) end)

-- The calendar (Howard Hinnant's algorithms) --------------------------------------------------------------------------

-- Days since 1970-01-01; the month must be 1..12, the day may be any integer.
local function days_from_civil(year, month, day)
  if month <= 2 then
    year = year - 1
  end
  local year_of_era = year % 400
  local day_of_year = (153 * (month > 2 and month - 3 or month + 9) + 2) // 5 + day - 1
  return year // 400 * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468
end

local function civil_from_days(days)
  days = days + 719468
  local day_of_era = days % 146097
  local year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
  local day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
  local shifted = (5 * day_of_year + 2) // 153 -- March is 0
  local month = shifted < 10 and shifted + 3 or shifted - 9
  local year = year_of_era + days // 146097 * 400
  return month <= 2 and year + 1 or year, month, day_of_year - (153 * shifted + 2) // 5 + 1
end

-- Locations -----------------------------------------------------------------------------------------------------------

-- The offset in seconds and the abbreviation that hold in a location at an instant.
local function lookup(location, seconds)
  if not location[ZONED] then
    return location[OFFSET], location[NAME]
  end
  local offset, abbreviation = host.offset(location[NAME], seconds)
  if not offset then
    error(abbreviation, 0)
  end
  return offset, abbreviation
end

-- The offset that an abbreviation stands for in a location around a wall clock, or nil.
local function offset_named(location, abbreviation, wall)
  if location[ZONED] then
    return (host.offset_named(location[NAME], abbreviation, wall))
  end
  return location[NAME] == abbreviation and location[OFFSET] or nil
end

-- Times ---------------------------------------------------------------------------------------------------------------

-- Everything but the location may be out of its usual range, and is normalised.
local function from_wall(year, month, day, hour, minute, second, nanosecond, location)
  year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
  local days = days_from_civil(year, month, 1) + day - 1
  local wall = days * DAY + hour * 3600 + minute * 60 + second + nanosecond // SECOND
  if wall < FIRST or wall > LAST then
    return new_time(wall)
  end
  -- Near a change of the clocks the first guess may be on the wrong side of it; the second one is what Go takes.
  local offset = lookup(location, wall - lookup(location, wall))
  return new_time(wall - offset, nanosecond % SECOND, location)
end

local function zone_of(self)
  local offset = self[OFFSET]
  if not offset then
    local abbreviation
    offset, abbreviation = lookup(self[LOC], self[SEC])
    rawset(self, OFFSET, offset)
    rawset(self, ABBREVIATION, abbreviation)
  end
  return offset, self[ABBREVIATION]
end

local function wall_of(self)
  local wall = self[SEC] + zone_of(self)
  return wall // DAY, wall % DAY
end

local function date_of(self)
  return civil_from_days((wall_of(self)))
end

local function clock_of(self)
  local _, second = wall_of(self)
  return second // 3600, second // 60 % 60, second % 60
end

function Time:add_date(years, months, days)
  years, months, days = whole(years, 100000), whole(months, 1000000), whole(days, 10000000)
  if not (years and months and days) then
    return invalid("add_date: expected three integers (years, months, days) that stay within the years 0 to 9999")
  end
  local year, month, day = date_of(self)
  local hour, minute, second = clock_of(self)
  return from_wall(year + years, month + months, day + days, hour, minute, second, self[NSEC], self[LOC])
end

-- What is left of the time since year 1 when it is divided by nanoseconds; the time itself does not fit 64 bits.
local function remainder(self, divisor)
  local function add(a, b)
    return a >= divisor - b and a - (divisor - b) or a + b
  end
  local left, factor, result = (self[SEC] - YEAR_ONE) % divisor, SECOND, self[NSEC] % divisor
  while factor > 0 do
    if factor & 1 == 1 then
      result = add(result, left)
    end
    left, factor = add(left, left), factor >> 1
  end
  return result
end

local function rounded(shift)
  return function(self, unit)
    local nanoseconds, err = nanoseconds_of(unit)
    if err then
      return nil, err
    end
    return moved(self, nanoseconds > 0 and shift(remainder(self, nanoseconds), nanoseconds) or 0)
  end
end

Time.truncate = rounded(function(left) return -left end)
Time.round = rounded(function(left, unit) return left < unit - left and -left or unit - left end)

function Time:in_location(location)
  if not is_location(location) then
    return invalid("in_location: expected a Location, found %s: see time.load_location", shown(location))
  end
  return new_time(self[SEC], self[NSEC], location)
end

function Time:utc() return new_time(self[SEC], self[NSEC], UTC) end
function Time:in_local() return new_time(self[SEC], self[NSEC], LOCAL) end
function Time:location() return self[LOC] end
function Time:unix_nano()
  local nanoseconds = in_nanoseconds(self[SEC], self[NSEC])
  if not nanoseconds then
    return invalid("unix_nano: out of range: only the years 1678 to 2261 can be counted in nanoseconds")
  end
  return nanoseconds
end

local function year_day_of(self)
  local days = wall_of(self)
  return days - days_from_civil(civil_from_days(days), 1, 1) + 1
end

local function weekday_of(self)
  return (wall_of(self) + 4) % 7 -- 1970-01-01 was a Thursday
end

Time.date, Time.clock, Time.year_day = date_of, clock_of, year_day_of
function Time:weekday() return weekday_of(self) end
function Time:year() return (date_of(self)) end
function Time:month() local _, month = date_of(self) return month end
function Time:day() local _, _, day = date_of(self) return day end
function Time:hour() return (clock_of(self)) end
function Time:minute() local _, minute = clock_of(self) return minute end
function Time:second() local _, _, second = clock_of(self) return second end
function Time:nanosecond() return self[NSEC] end
function Time:is_zero() return self[SEC] == YEAR_ONE and self[NSEC] == 0 end

local function time_text(self, pattern)
  local wall = { nanosecond = self[NSEC], weekday = weekday_of(self), year_day = year_day_of(self) }
  wall.year, wall.month, wall.day = date_of(self)
  wall.hour, wall.minute, wall.second = clock_of(self)
  wall.offset, wall.abbreviation = zone_of(self)
  return layouts.write(pattern, wall)
end

function Time:format(pattern)
  if type(pattern) ~= "string" then
    return invalid('format: expected a layout like "2006-01-02 15:04:05", found %s', shown(pattern))
  end
  return time_text(self, pattern)
end

function Time:format_rfc3339()
  return time_text(self, "2006-01-02T15:04:05Z07:00")
end

-- The rules of Go: what the value says of its zone wins; an offset or an abbreviation that holds in `location` (the
-- local one where none is given) at that time means that one; a value that says nothing is in `location`, or in UTC.
function instants.parse(pattern, value, location)
  local wall, message = parser.parse(pattern, value)
  if not wall then
    return invalid("%s", message)
  end
  local function at(there)
    return from_wall(wall.year, wall.month, wall.day, wall.hour, wall.minute, wall.second, wall.nanosecond, there)
  end
  local offset, abbreviation = wall.offset, wall.abbreviation
  if wall.utc or not offset and not abbreviation then
    return at(not wall.utc and location or UTC)
  end
  location = location or LOCAL
  if not offset then
    offset = offset_named(location, abbreviation, at(UTC)[SEC])
    -- An abbreviation that is unknown there stands for no offset, but "GMT+3" says what it means.
    offset = offset or 3600 * (tointeger(tonumber(match(abbreviation, "^GMT(.+)$"))) or 0)
  end
  local parsed = at(new_location(abbreviation or "", offset))
  local offset_there, abbreviation_there = lookup(location, parsed[SEC])
  if offset_there == offset and (not abbreviation or abbreviation == abbreviation_there) then
    return new_time(parsed[SEC], parsed[NSEC], location)
  end
  return parsed
end

values.guard("Time", is_time, Time)

function instants.text(self) return time_text(self, "2006-01-02 15:04:05.999999999 -0700 MST") end

function instants.add_to(methods)
  for name, method in next, Time do methods[name] = method end
end

instants.from_wall, instants.days_from_civil, instants.civil_from_days = from_wall, days_from_civil, civil_from_days
