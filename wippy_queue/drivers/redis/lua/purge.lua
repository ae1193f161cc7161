-- ARGV: limit. Removes messages that wait; returns how many, 0 when none are left.
local count = 0
for _, key in ipairs({READY, WAIT}) do
  local ids = redis.call('ZRANGE', key, 0, tonumber(ARGV[1]) - 1)
  for _, from in ipairs({key, EXPIRE}) do send('ZREM', from, ids) end
  for _, from in ipairs({BODY, META}) do send('HDEL', from, ids) end
  count = count + #ids
end
return count
