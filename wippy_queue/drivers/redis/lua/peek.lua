-- ARGV: first, count. Returns {how many were looked at, and three a message that waits: id, meta, body}.
local first, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local ready = redis.call('ZCARD', READY)
local ids = redis.call('ZRANGE', READY, first, first + count - 1)
if #ids < count then
  local skip = math.max(0, first - ready)
  for _, id in ipairs(redis.call('ZRANGE', WAIT, skip, skip + count - #ids - 1)) do ids[#ids + 1] = id end
end
local bodies = bodies_of(ids)
for i = #ids, #bodies + 1, -1 do ids[i] = nil end
local answer = {#ids}
local metas, ends = fields(META, ids), scores(EXPIRE, ids)
for i, id in ipairs(ids) do
  if metas[i] and bodies[i] and not (ends[i] and tonumber(ends[i]) <= now) then
    answer[#answer + 1] = id
    answer[#answer + 1] = metas[i]
    answer[#answer + 1] = bodies[i]
  end
end
return answer
