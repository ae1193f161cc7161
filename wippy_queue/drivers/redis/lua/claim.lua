-- ARGV: token, number of the claim, limit, lease ms, inbox, 1 for an owner that may be new, 1 to recover, then the ids
-- that the owner knows to hold, if it recovers: a claim whose answer was lost may have brought it more.
-- Returns {LOST}, {STALE}, or {DONE, ms until the next delayed message or -1, how many expired, and four a message:
-- id, place, meta, body}.
local token, number, limit, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if ARGV[6] ~= '1' and not redis.call('ZSCORE', OWNERS, token) then return {LOST} end
local last = redis.call('HGET', NUMBERS, 'c' .. token)
if last and tonumber(last) >= number then return {STALE} end
redis.call('HSET', NUMBERS, 'c' .. token, number)
redis.call('ZADD', OWNERS, now + lease, token)
if ARGV[7] == '1' then
  local known, strays, places = {}, {}, {}
  for i = 8, #ARGV do known[ARGV[i]] = true end
  local ids, all = everything_held(token)
  for i, id in ipairs(ids) do
    if not known[id] then
      strays[#strays + 1] = id
      places[#places + 1] = all[i]
    end
  end
  put_back(token, strays, places)
end
promote()

local mortals = redis.call('ZCARD', EXPIRE) > 0
local ids, places, held, expired = {}, {}, {}, {}
while #ids == 0 and limit > 0 and #expired < 1000 do  -- of more than that the next claim takes care: others wait
  local popped = redis.call('ZPOPMIN', READY, limit)
  if #popped == 0 then break end
  local candidates = {}
  for i = 1, #popped, 2 do candidates[#candidates + 1] = popped[i] end
  local ends = mortals and scores(EXPIRE, candidates) or {}
  for i, id in ipairs(candidates) do
    if ends[i] and tonumber(ends[i]) <= now then
      expired[#expired + 1] = id
    else
      ids[#ids + 1] = id
      places[#places + 1] = popped[2 * i]
      held[#held + 1] = popped[2 * i]
      held[#held + 1] = id
    end
  end
end
bury(expired, EXPIRED)
local due = -1
if #ids == 0 then
  redis.call('SADD', SLEEPERS, ARGV[5])
  local first = head(WAIT)
  if first then due = math.max(0, first - now) end
  if redis.call('ZCARD', READY) > 0 then due = 0 end
  return {DONE, due, #expired}
end
local bodies = bodies_of(ids)
if #bodies < #ids then
  local rest = {}
  for i = #ids, #bodies + 1, -1 do
    rest[#rest + 1] = places[i]
    rest[#rest + 1] = ids[i]
    held[2 * i], held[2 * i - 1], ids[i] = nil, nil, nil
  end
  send('ZADD', READY, rest)
end
if mortals then send('ZREM', EXPIRE, ids) end
send('ZADD', HELD .. token, held)
local answer = {DONE, due, #expired}
local metas = fields(META, ids)
for i, id in ipairs(ids) do
  if metas[i] and bodies[i] then
    answer[#answer + 1] = id
    answer[#answer + 1] = places[i]
    answer[#answer + 1] = metas[i]
    answer[#answer + 1] = bodies[i]
  else
    redis.call('ZREM', HELD .. token, id)
  end
end
if redis.call('ZCARD', READY) > 0 then wake(false) end
return answer
