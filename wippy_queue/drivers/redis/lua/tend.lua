-- Takes over from owners whose lease has ended: an attempt more for what they had begun. Wakes a sleeper if something
-- is ready, for a wake-up may have gone to one that died. Returns {how many came back, ms until the next lease ends or -1}.
local returned = 0
for _, token in ipairs(redis.call('ZRANGE', OWNERS, '-inf', now, 'BYSCORE')) do
  local ids, places = everything_held(token)
  for i, meta in ipairs(fields(META, ids)) do
    if meta and places[i] % 1 ~= 0 then
      local priority, attempts, rest = string.match(meta, '^(%d):(%d+)()')
      redis.call('HSET', META, ids[i], priority .. ':' .. (attempts + 1) .. string.sub(meta, rest))
    end
  end
  put_back(token, ids, places)
  forget_owner(token)
  returned = returned + #ids
end
promote()
if redis.call('ZCARD', READY) > 0 then wake(false) end
local next = head(OWNERS)
return {returned, next and math.max(1, math.ceil(next - now)) or -1}
