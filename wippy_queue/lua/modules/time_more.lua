-- A part of `time`: what the module has beside the clock.
local std, _, host, values, time = ...
local type, ipairs, error, unpack = std.type, std.ipairs, std.error, std.table.unpack
local floor, math_type, MAX = std.math.floor, std.math.type, std.math.maxinteger
local instants, new_time, UTC, LOCAL = values.instants, values.new_time, values.UTC, values.LOCAL
local invalid, shown, whole, nanoseconds_of = values.invalid, values.shown, values.whole, values.nanoseconds_of

local SECOND <const>, DAY <const> = 1000000000, 86400

local MOST <const> = 1000000000000 -- of a part of a date: sums of such do not overflow
local PARTS <const> = { "year", "month", "day", "hour", "minute", "second", "nanosecond" }

function time.date(year, month, day, hour, minute, second, nanosecond, location)
  local parts = { year, month, day, hour or 0, minute or 0, second or 0, nanosecond or 0 }
  for index, name in ipairs(PARTS) do
    local number = whole(parts[index], index <= 2 and 1000000 or MOST)
    if not number then
      local found = shown(parts[index])
      return invalid("time.date: %s: expected an integer that stays within the years 0 to 9999, found %s", name, found)
    end
    parts[index] = number
  end
  if location ~= nil and not values.is_location(location) then
    return invalid("time.date: expected a Location, found %s: see time.load_location", shown(location))
  end
  parts[8] = location or LOCAL
  return instants.from_wall(unpack(parts))
end

-- A fraction of a second is kept, to the microsecond: more than that a float does not hold.
function time.unix(seconds, nanosecond)
  local extra, microseconds = whole(nanosecond or 0, MAX), 0
  if math_type(seconds) == "float" and seconds > -MOST and seconds < MOST then
    microseconds = floor(seconds % 1 * 1000000 + 0.5)
    seconds = floor(seconds)
  end
  seconds = whole(seconds, MOST)
  if not seconds or not extra then
    return invalid("time.unix: expected seconds since 1970, within the years 0 to 9999, and an integer of nanoseconds")
  end
  local total = extra % SECOND + microseconds * 1000
  return new_time(seconds + extra // SECOND + total // SECOND, total % SECOND, LOCAL)
end

function time.parse(layout, value, location)
  if type(layout) ~= "string" or type(value) ~= "string" then
    return invalid("time.parse: expected a layout and a text, found %s and %s", shown(layout), shown(value))
  elseif location ~= nil and not values.is_location(location) then
    return invalid("time.parse: expected a Location, found %s: see time.load_location", shown(location))
  end
  return instants.parse(layout, value, location)
end

function time.parse_duration(value)
  local nanoseconds, err = nanoseconds_of(value)
  if err then
    return nil, err
  end
  return values.new_duration(nanoseconds)
end

function time.load_location(name)
  if type(name) ~= "string" or name == "" then
    return invalid('time.load_location: expected a name like "Europe/Berlin", found %s', shown(name))
  elseif name == "UTC" or name == "Local" then
    return name == "UTC" and UTC or LOCAL
  end
  local found, err = host.find_zone(name)
  if not found then
    return nil, err
  end
  return values.new_location(name)
end

function time.fixed_zone(name, offset)
  local seconds = whole(offset, DAY)
  if type(name) ~= "string" or not seconds then
    local found = shown(name) .. " and " .. shown(offset)
    return invalid("time.fixed_zone: expected a name and seconds east of UTC, at most a day; found %s", found)
  end
  return values.new_location(name, seconds)
end

for _, name in ipairs({ "after", "timer", "ticker" }) do
  time[name] = function()
    error("time." .. name .. ": channels are not supported here; use time.sleep(duration)", 2)
  end
end

local MONTHS <const> = {
  "JANUARY", "FEBRUARY", "MARCH", "APRIL", "MAY", "JUNE",
  "JULY", "AUGUST", "SEPTEMBER", "OCTOBER", "NOVEMBER", "DECEMBER",
}
for index, name in ipairs(MONTHS) do
  time[name] = index
end
for index, name in ipairs({ "SUNDAY", "MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY" }) do
  time[name] = index - 1
end

time.ANSIC = "Mon Jan _2 15:04:05 2006"
time.UNIX_DATE = "Mon Jan _2 15:04:05 MST 2006"
time.RUBY_DATE = "Mon Jan 02 15:04:05 -0700 2006"
time.RFC822, time.RFC822Z = "02 Jan 06 15:04 MST", "02 Jan 06 15:04 -0700"
time.RFC850 = "Monday, 02-Jan-06 15:04:05 MST"
time.RFC1123, time.RFC1123Z = "Mon, 02 Jan 2006 15:04:05 MST", "Mon, 02 Jan 2006 15:04:05 -0700"
time.RFC3339, time.RFC3339NANO = "2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05.999999999Z07:00"
time.KITCHEN = "3:04PM"
time.STAMP, time.STAMP_MILLI = "Jan _2 15:04:05", "Jan _2 15:04:05.000"
time.STAMP_MICRO, time.STAMP_NANO = "Jan _2 15:04:05.000000", "Jan _2 15:04:05.000000000"
time.DATE_TIME, time.DATE_ONLY, time.TIME_ONLY = "2006-01-02 15:04:05", "2006-01-02", "15:04:05"
