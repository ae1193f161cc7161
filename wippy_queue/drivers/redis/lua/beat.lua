-- ARGV: token, lease ms, 1 for an owner that may be new. Extends all its leases. Returns {LOST} or {DONE}.
if ARGV[3] ~= '1' and not redis.call('ZSCORE', OWNERS, ARGV[1]) then return {LOST} end
redis.call('ZADD', OWNERS, now + tonumber(ARGV[2]), ARGV[1])
return {DONE}
