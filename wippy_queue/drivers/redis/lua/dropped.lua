-- ARGV: reason, ms until they are handed over again or '' to forget them, ids.
local key = base .. 'drop:' .. ARGV[1]
for i = 3, #ARGV do
  local id = ARGV[i]
  if ARGV[2] ~= '' then
    redis.call('ZADD', key, 'XX', now + tonumber(ARGV[2]) + i / 1000, id)
  elseif redis.call('ZREM', key, id) == 1 then
    redis.call('HDEL', BODY, id)
    redis.call('HDEL', META, id)
  end
end
return redis.status_reply('OK')
