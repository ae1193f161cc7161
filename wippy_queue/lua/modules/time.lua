-- The `time` module: Go's instants, durations, locations and layouts, as Wippy has them. The arithmetic is done in parts
-- in files of their own, on integers; zones, the clock and the waiting come from time.py.
local host, lib = ...
local values = lib.include("time_values", host)
local new_time, nanoseconds_of, UTC, LOCAL = values.new_time, values.nanoseconds_of, values.UTC, values.LOCAL

local SECOND <const> = 1000000000

local time = {
  utc = UTC, localtz = LOCAL,
  NANOSECOND = 1, MICROSECOND = 1000, MILLISECOND = 1000000, SECOND = SECOND, MINUTE = 60 * SECOND, HOUR = 3600 * SECOND,
}

function time.now()
  local nanoseconds, mono = host.now()
  return new_time(nanoseconds // SECOND, nanoseconds % SECOND, LOCAL, mono)
end

function time.sleep(amount)
  local nanoseconds, err = nanoseconds_of(amount)
  if err then
    return nil, err
  end
  return host.sleep(nanoseconds)
end

return lib.later(time, function() lib.include("time_more", host, values, time) end)
