-- ARGV: ms for which nobody else gets the same, limit. Drops what has expired, and returns what is to be handed over:
-- {ms until there is more or -1, number of expired ones, then three a message: id, meta, body; the pushed out ones last}.
local hold, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
bury_expired(limit)
local answer = {0, 0}
for _, key in ipairs({EXPIRED, PUSHED}) do
  local ids = redis.call('ZRANGE', key, '-inf', now + 1, 'BYSCORE', 'LIMIT', 0, limit)
  local held, bodies = {}, bodies_of(ids)
  for i = #ids, #bodies + 1, -1 do ids[i] = nil end
  local metas = fields(META, ids)
  for i, id in ipairs(ids) do
    held[#held + 1] = now + hold + i / 1000
    held[#held + 1] = id
    answer[#answer + 1] = id
    answer[#answer + 1] = metas[i]
    answer[#answer + 1] = bodies[i]
  end
  send('ZADD', key, held)
  if key == EXPIRED then answer[2] = #ids end
end
local next = nil
for _, key in ipairs({EXPIRE, EXPIRED, PUSHED}) do
  local due = head(key)
  if due and (not next or due < next) then next = due end
end
answer[1] = next and math.max(0, math.ceil(next - now)) or -1
return answer
