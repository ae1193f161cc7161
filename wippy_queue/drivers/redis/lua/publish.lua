-- ARGV: max_length or 0, 1 to drop the oldest, the publisher's token, the number of this publish of its, for how many ms
-- that is kept, then six a message: id, priority, delay ms, expires ms or '', meta, body.
-- A message whose id is there already is left as it is; a publish that was done before is not done again, though its
-- messages may be gone. Returns {DONE, messages pushed out} or {FULL, messages there}.
local max, drop = tonumber(ARGV[1]), ARGV[2] == '1'
local published, number = base .. 'published:' .. ARGV[3], tonumber(ARGV[4])
if number <= tonumber(redis.call('GET', published) or 0) then return {DONE, 0} end
local function done(count)
  redis.call('SET', published, ARGV[4], 'PX', ARGV[5])
  return {DONE, count}
end
local fresh, seen = {}, {}
for i = 6, #ARGV, 6 do
  local id = ARGV[i]
  if not seen[id] and redis.call('HEXISTS', BODY, id) == 0 then
    seen[id] = true
    fresh[#fresh + 1] = i
  end
end
if #fresh == 0 then return done(0) end
local excess = 0
if max > 0 then
  local there = total()
  excess = there + #fresh - max
  if excess > 0 and not drop then return {FULL, there} end
end

local pushed = {}
local function push_out(count)
  if count <= 0 then return end
  local ids = {}
  for priority = 0, 9 do
    if #ids == count then break end
    local first = -priority * LANE
    local oldest = redis.call('ZRANGE', READY, first, first + LANE - 1, 'BYSCORE', 'LIMIT', 0, count - #ids)
    for _, id in ipairs(oldest) do ids[#ids + 1] = id end
  end
  if #ids < count then
    for _, id in ipairs(redis.call('ZRANGE', WAIT, 0, count - #ids - 1)) do ids[#ids + 1] = id end
  end
  bury(ids, PUSHED)
  for _, id in ipairs(ids) do pushed[#pushed + 1] = id end
end
push_out(excess)  -- of what was there before: the new ones push themselves out only if they are too many alone

local bodies, metas, ready, wait, mortal = {}, {}, {}, {}, {}
local place = redis.call('INCRBY', SEQ, #fresh) - #fresh
local first_due = nil
for n, i in ipairs(fresh) do
  local id, priority, delay, expires = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), ARGV[i + 3]
  bodies[#bodies + 1] = id
  bodies[#bodies + 1] = ARGV[i + 5]
  metas[#metas + 1] = id
  metas[#metas + 1] = ARGV[i + 4]
  if delay > 0 then
    wait[#wait + 1] = now + delay
    wait[#wait + 1] = id
    if not first_due or now + delay < first_due then first_due = now + delay end
  else
    ready[#ready + 1] = place + n - priority * LANE
    ready[#ready + 1] = id
  end
  if expires ~= '' then
    mortal[#mortal + 1] = expires
    mortal[#mortal + 1] = id
  end
end
send('HSET', BODY, bodies)
send('HSET', META, metas)
send('ZADD', READY, ready)
send('ZADD', EXPIRE, mortal)
local sooner = false
if first_due then
  local due = head(WAIT)
  sooner = not due or first_due < due
  send('ZADD', WAIT, wait)
end

if excess > 0 then push_out(#fresh - max) end
if sooner then
  wake(true)
elseif #ready > 0 then
  wake(false)
end
return done(#pushed)
