-- A part of `time`: Go's layouts ("2006-01-02 15:04") as far as writing goes.
local std, _, layouts = ...
local ipairs = std.ipairs
local byte, find, format, gsub = std.string.byte, std.string.find, std.string.format, std.string.gsub
local match, rep, sub, concat = std.string.match, std.string.rep, std.string.sub, std.table.concat

local MONTHS <const> = {
  "January", "February", "March", "April", "May", "June",
  "July", "August", "September", "October", "November", "December",
}
local WEEKDAYS <const> = { "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday" }

-- A layout is compiled to a list of elements: { kind =, text = } ------------------------------------------------------

-- By first character, longest first.
local ELEMENTS <const> = {
  J = { { "January", "long_month" }, { "Jan", "month" } },
  M = { { "Monday", "long_weekday" }, { "Mon", "weekday" }, { "MST", "abbreviation" } },
  ["0"] = {
    { "01", "zero_month" }, { "02", "zero_day" }, { "03", "zero_hour12" }, { "04", "zero_minute" },
    { "05", "zero_second" }, { "06", "year" }, { "002", "zero_year_day" },
  },
  ["1"] = { { "15", "hour" }, { "1", "number_month" } },
  ["2"] = { { "2006", "long_year" }, { "2", "day" } },
  ["_"] = { { "_2", "under_day" }, { "__2", "under_year_day" } },
  ["3"] = { { "3", "hour12" } },
  ["4"] = { { "4", "minute" } },
  ["5"] = { { "5", "second" } },
  P = { { "PM", "upper_pm" } },
  p = { { "pm", "lower_pm" } },
  ["-"] = {
    { "-070000", "offset" }, { "-07:00:00", "offset" }, { "-0700", "offset" },
    { "-07:00", "offset" }, { "-07", "offset" },
  },
  Z = {
    { "Z070000", "offset" }, { "Z07:00:00", "offset" }, { "Z0700", "offset" },
    { "Z07:00", "offset" }, { "Z07", "offset" },
  },
}

local function element_at(layout, at)
  if find(layout, "^_2006", at) then
    return nil -- an underscore before a year
  end
  for _, candidate in ipairs(ELEMENTS[sub(layout, at, at)] or {}) do
    local text, kind = candidate[1], candidate[2]
    if sub(layout, at, at + #text - 1) == text then
      -- "Month" and "Janet" are words.
      if not ((kind == "month" or kind == "weekday") and find(layout, "^%l", at + #text)) then
        return { kind = kind, text = text }
      end
    end
  end
  local mark, digits = match(layout, "^([.,])(0+)", at)
  if not mark then
    mark, digits = match(layout, "^([.,])(9+)", at)
  end
  if mark and not find(layout, "^%d", at + 1 + #digits) then
    return { kind = "fraction", text = mark .. digits, trim = sub(digits, 1, 1) == "9" }
  end
  return nil
end

local compiled, compiled_count = {}, 0

local function compile(layout)
  local elements = compiled[layout]
  if elements then
    return elements
  end
  elements = {}
  local at, literal = 1, 1
  while at <= #layout do
    local element = element_at(layout, at)
    if element then
      if literal < at then
        elements[#elements + 1] = { kind = "literal", text = sub(layout, literal, at - 1) }
      end
      elements[#elements + 1] = element
      at = at + #element.text
      literal = at
    else
      at = at + 1
    end
  end
  if literal <= #layout then
    elements[#elements + 1] = { kind = "literal", text = sub(layout, literal) }
  end
  if compiled_count == 64 then -- a handler that builds layouts must not fill the memory
    compiled, compiled_count = {}, 0
  end
  compiled[layout], compiled_count = elements, compiled_count + 1
  return elements
end

-- Writing -------------------------------------------------------------------------------------------------------------

local function write_offset(text, offset)
  if offset == 0 and byte(text) == 90 then -- "Z"
    return "Z"
  end
  local size, colon = offset < 0 and -offset or offset, find(text, ":", 1, true) and ":" or ""
  local out = format("%s%02d", offset < 0 and "-" or "+", size // 3600)
  local digits = #gsub(text, ":", "") - 1 -- 2, 4 or 6
  if digits >= 4 then
    out = out .. colon .. format("%02d", size // 60 % 60)
  end
  return digits == 6 and out .. colon .. format("%02d", size % 60) or out
end

local function write_year(year)
  return year < 0 and "-" .. format("%04d", -year) or format("%04d", year)
end

local function hour12(hour)
  return hour % 12 == 0 and 12 or hour % 12
end

local WRITE <const> = {
  literal = function(_, element) return element.text end,
  year = function(w) return format("%02d", w.year % 100) end,
  long_year = function(w) return write_year(w.year) end,
  month = function(w) return sub(MONTHS[w.month], 1, 3) end,
  long_month = function(w) return MONTHS[w.month] end,
  number_month = function(w) return w.month end,
  zero_month = function(w) return format("%02d", w.month) end,
  weekday = function(w) return sub(WEEKDAYS[w.weekday + 1], 1, 3) end,
  long_weekday = function(w) return WEEKDAYS[w.weekday + 1] end,
  day = function(w) return w.day end,
  under_day = function(w) return format("%2d", w.day) end,
  zero_day = function(w) return format("%02d", w.day) end,
  under_year_day = function(w) return format("%3d", w.year_day) end,
  zero_year_day = function(w) return format("%03d", w.year_day) end,
  hour = function(w) return format("%02d", w.hour) end,
  hour12 = function(w) return hour12(w.hour) end,
  zero_hour12 = function(w) return format("%02d", hour12(w.hour)) end,
  minute = function(w) return w.minute end,
  zero_minute = function(w) return format("%02d", w.minute) end,
  second = function(w) return w.second end,
  zero_second = function(w) return format("%02d", w.second) end,
  upper_pm = function(w) return w.hour >= 12 and "PM" or "AM" end,
  lower_pm = function(w) return w.hour >= 12 and "pm" or "am" end,
  offset = function(w, element) return write_offset(element.text, w.offset) end,
  abbreviation = function(w) return w.abbreviation ~= "" and w.abbreviation or write_offset("-0700", w.offset) end,
  fraction = function(w, element)
    local digits = format("%09d", w.nanosecond)
    local wanted = #element.text - 1
    digits = wanted <= 9 and sub(digits, 1, wanted) or digits .. rep("0", wanted - 9)
    if element.trim then
      digits = gsub(digits, "0+$", "")
      if digits == "" then
        return ""
      end
    end
    return sub(element.text, 1, 1) .. digits
  end,
}

function layouts.write(layout, wall)
  local out = {}
  for index, element in ipairs(compile(layout)) do
    out[index] = WRITE[element.kind](wall, element)
  end
  return concat(out)
end

layouts.MONTHS, layouts.WEEKDAYS, layouts.compile = MONTHS, WEEKDAYS, compile
