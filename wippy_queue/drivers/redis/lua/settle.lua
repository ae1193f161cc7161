-- ARGV: token, number of the flush, lease ms, four counts, then: two for each handler that has begun (place and a half,
-- id), the ids to ack, the ids to release, four for each requeue (id, delay ms, expires ms or '', meta).
-- Returns {LOST}, or {DONE, and the ids that the owner does not hold}; a flush that was done before is not done again.
local token, number, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local begun, acks = tonumber(ARGV[4]), tonumber(ARGV[5])
local releases, requeues = tonumber(ARGV[6]), tonumber(ARGV[7])
if not redis.call('ZSCORE', OWNERS, token) then return {LOST} end
redis.call('ZADD', OWNERS, now + lease, token)
local last = redis.call('HGET', NUMBERS, 'f' .. token)
if last and tonumber(last) >= number then return {DONE} end
redis.call('HSET', NUMBERS, 'f' .. token, number)

local held = HELD .. token
local answer = {DONE}
local at = 7
local function take(count)
  local taken = {}
  for i = 1, count do taken[i] = ARGV[at + i] end
  at = at + count
  return taken
end
local function owned(ids)
  local places, mine, where = scores(held, ids), {}, {}
  for i, id in ipairs(ids) do
    if places[i] then
      mine[#mine + 1] = id
      where[#where + 1] = tonumber(places[i])
    else
      answer[#answer + 1] = id
    end
  end
  return mine, where
end

send('ZADD', held, take(2 * begun), 'XX')
local acked = owned(take(acks))
send('ZREM', held, acked)
send('HDEL', BODY, acked)
send('HDEL', META, acked)
local released, places = owned(take(releases))
put_back(token, released, places)

local returned, sooner = #released, false
if requeues > 0 then
  local ids, by_id = {}, {}
  for i = at + 1, at + 4 * requeues, 4 do
    ids[#ids + 1] = ARGV[i]
    by_id[ARGV[i]] = i
  end
  local requeued = owned(ids)
  send('ZREM', held, requeued)
  local place = redis.call('INCRBY', SEQ, #requeued) - #requeued
  for n, id in ipairs(requeued) do
    local i = by_id[id]
    local delay, expires, meta = tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]
    redis.call('HSET', META, id, meta)
    if expires ~= '' then redis.call('ZADD', EXPIRE, expires, id) end
    if delay > 0 then
      local due = head(WAIT)
      sooner = sooner or not due or now + delay < due
      redis.call('ZADD', WAIT, now + delay, id)
    else
      redis.call('ZADD', READY, place + n - tonumber(string.sub(meta, 1, 1)) * LANE, id)
      returned = returned + 1
    end
  end
end
if sooner then
  wake(true)
elseif returned > 0 then
  wake(false)
end
return answer
