-- What every script begins with. All keys of a queue share the hash tag in KEYS[1], "<prefix>{<queue>}:".
-- Scores in `ready` and in `held:<token>` are places: -priority * 2^44 + a number that only grows; half a place more
-- in `held` says that a handler has begun. `meta` is "priority:attempts:expires:", then what only clients read.
local base = KEYS[1]
local READY, WAIT, BODY, META = base .. 'ready', base .. 'wait', base .. 'body', base .. 'meta'
local EXPIRE, EXPIRED, PUSHED = base .. 'expire', base .. 'drop:expired', base .. 'drop:maxlen'
local OWNERS, NUMBERS, SLEEPERS, SEQ = base .. 'owners', base .. 'numbers', base .. 'sleepers', base .. 'seq'
local HELD = base .. 'held:'
local LANE = 2 ^ 44
local LOST, STALE, DONE, FULL = -1, -2, 0, -3

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- A command takes some thousands of arguments at most.
local function send(command, key, args, option)
  for first = 1, #args, 1000 do
    local last = math.min(first + 999, #args)
    if option then
      redis.call(command, key, option, unpack(args, first, last))
    else
      redis.call(command, key, unpack(args, first, last))
    end
  end
end

local function scores(key, ids)
  local found = {}
  for first = 1, #ids, 1000 do
    local part = redis.call('ZMSCORE', key, unpack(ids, first, math.min(first + 999, #ids)))
    for i = 1, #part do found[first + i - 1] = part[i] end
  end
  return found
end

local function fields(key, ids)
  local found = {}
  for first = 1, #ids, 1000 do
    local part = redis.call('HMGET', key, unpack(ids, first, math.min(first + 999, #ids)))
    for i = 1, #part do found[first + i - 1] = part[i] end
  end
  return found
end

-- The bodies of the first ids, as many as one answer may bring: it has to come through the network in its time.
local ENOUGH = 4 * 1024 * 1024
local function bodies_of(ids)
  local found, bytes, step = {}, 0, 1
  while #found < #ids and bytes < ENOUGH do
    local first = #found + 1
    local part = redis.call('HMGET', BODY, unpack(ids, first, math.min(first + step - 1, #ids)))
    for i = 1, #part do
      found[first + i - 1] = part[i]
      if part[i] then bytes = bytes + #part[i] end
    end
    step = math.min(2 * step, 16) -- large ones may come behind small ones
  end
  return found
end

local function total()
  return redis.call('HLEN', BODY) - redis.call('ZCARD', EXPIRED) - redis.call('ZCARD', PUSHED)
end

-- Tell a sleeping driver that there is something to claim; one that does not hear is forgotten. In a cluster the number
-- of listeners elsewhere is not known, so everybody is told there.
local function wake(all)
  while true do
    local inbox = redis.call('SPOP', SLEEPERS)
    if not inbox then return end
    local heard = redis.call('PUBLISH', inbox, base)
    if heard > 0 and not all and not BROADCAST then return end
  end
end

local function head(key)
  return tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
end

-- Make what is due ready, at the tail of its priority.
local function promote()
  local due = redis.call('ZRANGE', WAIT, '-inf', now, 'BYSCORE', 'LIMIT', 0, 500)
  if #due == 0 then return end
  local place = redis.call('INCRBY', SEQ, #due) - #due
  local ready = {}
  for i, meta in ipairs(fields(META, due)) do
    if meta then
      ready[#ready + 1] = place + i - tonumber(string.sub(meta, 1, 1)) * LANE
      ready[#ready + 1] = due[i]
    end
  end
  send('ZREM', WAIT, due)
  send('ZADD', READY, ready)
end

-- Put what somebody holds back to where it stood.
local function put_back(token, ids, places)
  if #ids == 0 then return end
  local ready, mortal = {}, {}
  for i, meta in ipairs(fields(META, ids)) do
    if meta then
      ready[#ready + 1] = math.floor(places[i])
      ready[#ready + 1] = ids[i]
      local expires = string.match(meta, '^%d:%d+:(%d+):')
      if expires then
        mortal[#mortal + 1] = expires
        mortal[#mortal + 1] = ids[i]
      end
    end
  end
  send('ZREM', HELD .. token, ids)
  send('ZADD', READY, ready)
  send('ZADD', EXPIRE, mortal)
end

local function everything_held(token)
  local ids, places = {}, {}
  local held = redis.call('ZRANGE', HELD .. token, 0, -1, 'WITHSCORES')
  for i = 1, #held, 2 do
    ids[#ids + 1] = held[i]
    places[#places + 1] = tonumber(held[i + 1])
  end
  return ids, places
end

local function forget_owner(token)
  redis.call('ZREM', OWNERS, token)
  redis.call('HDEL', NUMBERS, 'c' .. token, 'f' .. token)
end

-- Take messages out of the queue, for somebody to hand them over and to remove them then.
local function bury(ids, key)
  if #ids == 0 then return end
  local order = {}
  for i, id in ipairs(ids) do
    order[#order + 1] = now + i / 1000  -- so that they are handed over in this order
    order[#order + 1] = id
  end
  send('ZREM', READY, ids)
  send('ZREM', WAIT, ids)
  send('ZREM', EXPIRE, ids)
  send('ZADD', key, order)
end

local function bury_expired(limit)
  bury(redis.call('ZRANGE', EXPIRE, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit), EXPIRED)
end
