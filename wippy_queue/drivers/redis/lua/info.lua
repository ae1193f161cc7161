-- Returns {messages, ready, delayed, consumers}.
local ready, wait = redis.call('ZCARD', READY), redis.call('ZCARD', WAIT)
local due = redis.call('ZCOUNT', WAIT, '-inf', now)
return {redis.call('HLEN', BODY), ready + due, wait - due, redis.call('ZCOUNT', OWNERS, now, '+inf')}
