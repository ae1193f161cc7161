-- A part of `time`: its types, as far as it takes to read the clock and to count with what it shows. The rest is in
-- time_instant.lua and time_duration.lua, which are loaded when it is first used.
local std, lib, host = ...
local type, tostring, next, error, setmetatable = std.type, std.tostring, std.next, std.error, std.setmetatable
local format, gsub, sub = std.string.format, std.string.gsub, std.string.sub
local floor, tointeger, math_type = std.math.floor, std.math.tointeger, std.math.type
local MAX <const>, MIN <const> = std.math.maxinteger, std.math.mininteger

local SECOND <const> = 1000000000

-- The instants that layouts can write, with four digits for the year, and two days of slack at either end: a zone may shift
-- the wall clock over it.
local FIRST <const>, LAST <const> = -62167392000, 253402473599

-- What values hold, under keys that handlers cannot name.
local NANOS = {} -- a Duration
local NAME, OFFSET, ZONED = {}, {}, {} -- a Location; ZONED: the offset must be asked for
-- A Time; MONO: nanoseconds of a clock that never jumps, or false; OFFSET and ABBREVIATION are looked up when needed.
local SEC, NSEC, LOC, MONO, ABBREVIATION = {}, {}, {}, {}, {}

local Duration, Location, Time = {}, {}, {} -- methods
local duration_type, location_type, time_type

local function is_duration(value) return lib.is(value, duration_type) end
local function is_location(value) return lib.is(value, location_type) end
local function is_time(value) return lib.is(value, time_type) end

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

-- Have methods refuse any other self.
local function guard(name, is_one, methods)
  for key, method in next, methods do
    methods[key] = function(self, ...)
      if not is_one(self) then
        return invalid("%s: call it with a colon on a %s; found %s", key, name, shown(self))
      end
      return method(self, ...)
    end
  end
  return methods
end

-- The metatable of a type, with the order that `less` gives.
local function new_type(name, is_one, methods, text, less)
  local function comparable(a, b)
    if not (is_one(a) and is_one(b)) then
      error("attempt to compare " .. shown(a) .. " with " .. shown(b), 3)
    end
  end
  return lib.new_type(name, guard(name, is_one, methods), {
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

local values -- what this part gives
local durations = lib.later({}, function(t) lib.include("time_duration", t) end)
local instants = lib.later({}, function(t) lib.include("time_instant", host, values, t) end)

-- Durations -----------------------------------------------------------------------------------------------------------

local function new_duration(nanoseconds)
  return setmetatable({ [NANOS] = nanoseconds }, duration_type)
end

-- The nanoseconds of a Duration, a text or a number; or nil, err.
local function nanoseconds_of(value)
  local kind, nanoseconds = type(value), nil
  if is_duration(value) then
    nanoseconds = value[NANOS]
  elseif kind == "string" then
    nanoseconds = durations.parse(value)
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

local function duration_text(self) return durations.text(self[NANOS]) end
local function is_shorter(a, b) return a[NANOS] < b[NANOS] end

duration_type = new_type("Duration", is_duration, Duration, duration_text, is_shorter)

-- Locations -----------------------------------------------------------------------------------------------------------

function Location:string()
  return self[NAME]
end

location_type = new_type("Location", is_location, Location, Location.string)

local function new_location(name, offset)
  return setmetatable({ [NAME] = name, [OFFSET] = offset or 0, [ZONED] = offset == nil }, location_type)
end

-- Times ---------------------------------------------------------------------------------------------------------------

local function new_time(seconds, nanosecond, location, mono)
  if seconds < FIRST or seconds > LAST then
    return invalid("the time is out of range: the years 0 to 9999 are supported")
  end
  return setmetatable({ [SEC] = seconds, [NSEC] = nanosecond, [LOC] = location, [MONO] = mono or false }, time_type)
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
  return new_duration(difference or seconds < 0 and MIN or MAX)
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

function Time:unix() return self[SEC] end

time_type = new_type("Time", is_time, Time, function(self) return instants.text(self) end, before)
lib.later(Time, function(methods) instants.add_to(methods) end)

values = {
  invalid = invalid, shown = shown, whole = whole, guard = guard, SECOND = SECOND,
  new_duration = new_duration, nanoseconds_of = nanoseconds_of,
  NAME = NAME, OFFSET = OFFSET, ZONED = ZONED, new_location = new_location, is_location = is_location,
  UTC = new_location("UTC", 0), LOCAL = new_location("Local"),
  SEC = SEC, NSEC = NSEC, LOC = LOC, ABBREVIATION = ABBREVIATION, FIRST = FIRST, LAST = LAST,
  new_time = new_time, is_time = is_time, moved = moved, in_nanoseconds = in_nanoseconds, instants = instants,
}
return values
