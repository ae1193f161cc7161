-- A part of `time`: Locations, and Times on integer seconds and nanoseconds, with the semantics of Go's.
local std, lib = ...
local type, tonumber, error, rawset, setmetatable = std.type, std.tonumber, std.error, std.rawset, std.setmetatable
local match, tointeger = std.string.match, std.math.tointeger
local MIN <const>, MAX <const> = std.math.mininteger, std.math.maxinteger
local duration, layout = lib.include("time_duration"), lib.include("time_parse")
local invalid, shown, whole, nanoseconds_of = duration.invalid, duration.shown, duration.whole, duration.nanoseconds_of
local new_type, days_from_civil, civil_from_days = duration.new_type, layout.days_from_civil, layout.civil_from_days

local SECOND <const>, DAY <const> = 1000000000, 86400

-- Layouts write years with four digits. Two days of slack at either end: a zone may shift the wall clock over it.
local FIRST <const> = (days_from_civil(0, 1, 1) - 2) * DAY
local LAST <const> = (days_from_civil(10000, 1, 1) + 2) * DAY - 1
local YEAR_ONE <const> = days_from_civil(1, 1, 1) * DAY -- Go's zero time, and what round and truncate count from

-- What values hold, under keys that handlers cannot name.
local NAME, OFFSET, ZONED = {}, {}, {} -- a Location; ZONED: the offset must be asked for
-- A Time; MONO: nanoseconds of a clock that never jumps, or false; OFFSET and ABBREVIATION are looked up when needed.
local SEC, NSEC, LOC, MONO, ABBREVIATION = {}, {}, {}, {}, {}
local Location, Time, location_type, time_type = {}, {}, nil, nil

local zones = {} -- offset and offset_named of time.py

local function is_location(value) return lib.is(value, location_type) end
local function is_time(value) return lib.is(value, time_type) end

-- Locations -----------------------------------------------------------------------------------------------------------

function Location:string()
  return self[NAME]
end

location_type = new_type("Location", is_location, Location, Location.string)

local function new_location(name, offset)
  return setmetatable({ [NAME] = name, [OFFSET] = offset or 0, [ZONED] = offset == nil }, location_type)
end

local UTC, LOCAL = new_location("UTC", 0), new_location("Local")

-- The offset in seconds and the abbreviation that hold in a location at an instant.
local function lookup(location, seconds)
  if not location[ZONED] then
    return location[OFFSET], location[NAME]
  end
  local offset, abbreviation = zones.offset(location[NAME], seconds)
  if not offset then
    error(abbreviation, 0)
  end
  return offset, abbreviation
end

-- The offset that an abbreviation stands for in a location around a wall clock, or nil.
local function offset_named(location, abbreviation, wall)
  if location[ZONED] then
    return (zones.offset_named(location[NAME], abbreviation, wall))
  end
  return location[NAME] == abbreviation and location[OFFSET] or nil
end

-- Times ---------------------------------------------------------------------------------------------------------------

local function new_time(seconds, nanosecond, location, mono)
  if seconds < FIRST or seconds > LAST then
    return invalid("the time is out of range: the years 0 to 9999 are supported")
  end
  return setmetatable({ [SEC] = seconds, [NSEC] = nanosecond, [LOC] = location, [MONO] = mono or false }, time_type)
end

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

-- seconds * 1e9 + nanosecond, or nil where that is no 64-bit integer.
local function in_nanoseconds(seconds, nanosecond)
  if seconds < -9223372037 or seconds > 9223372037 then
    return nil
  end
  local total = seconds * SECOND + nanosecond
  if seconds ~= 0 and (total < 0) ~= (seconds < 0) then
    return nil
  end
  return total
end

local function before(a, b)
  if a[MONO] and b[MONO] then
    return a[MONO] < b[MONO]
  end
  return a[SEC] < b[SEC] or a[SEC] == b[SEC] and a[NSEC] < b[NSEC]
end

local function compared(name, test)
  return function(self, other)
    if not is_time(other) then
      return invalid("%s: expected a Time, found %s", name, shown(other))
    end
    return test(self, other)
  end
end

Time.before = compared("before", before)
Time.after = compared("after", function(a, b) return before(b, a) end)
Time.equal = compared("equal", function(a, b) return not before(a, b) and not before(b, a) end)
Time.sub = compared("sub", function(a, b)
  local monotonic = a[MONO] and b[MONO]
  local seconds, difference = a[SEC] - b[SEC], monotonic and a[MONO] - b[MONO]
  if not monotonic or (difference < 0) ~= (a[MONO] < b[MONO]) then
    difference = in_nanoseconds(seconds, a[NSEC] - b[NSEC])
  end
  -- Beyond 292 years it is the longest Duration there is, as in Go.
  return duration.new(difference or seconds < 0 and MIN or MAX)
end)

local function moved(self, nanoseconds, mono)
  local total = self[NSEC] + nanoseconds % SECOND
  return new_time(self[SEC] + nanoseconds // SECOND + total // SECOND, total % SECOND, self[LOC], mono)
end

function Time:add(amount)
  local nanoseconds, err = nanoseconds_of(amount)
  if err then
    return nil, err
  end
  local mono = self[MONO] and self[MONO] + nanoseconds
  if mono and (mono < self[MONO]) ~= (nanoseconds < 0) then
    mono = false -- it has wrapped around
  end
  return moved(self, nanoseconds, mono)
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
function Time:unix() return self[SEC] end

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
  return layout.write(pattern, wall)
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

time_type = new_type("Time", is_time, Time, function(self)
  return time_text(self, "2006-01-02 15:04:05.999999999 -0700 MST")
end, before)

-- The rules of Go: what the value says of its zone wins; an offset or an abbreviation that holds in `location` (the
-- local one where none is given) at that time means that one; a value that says nothing is in `location`, or in UTC.
local function parse(pattern, value, location)
  local wall, message = layout.parse(pattern, value)
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

return {
  duration = duration, layout = layout, zones = zones, UTC = UTC, LOCAL = LOCAL,
  new_location = new_location, is_location = is_location,
  new = new_time, from_wall = from_wall, parse = parse,
}
