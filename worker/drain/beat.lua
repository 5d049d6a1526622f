-- Say that a worker lives, and that it still has its jobs.
--
-- KEYS  1 started registry  2 worker  3 worker's executions  4 leases  5 RQ's registry of ready dependents
-- ARGV  1 lease holder  2 lease, seconds  3 worker TTL, seconds  4 now, RQ's text form
--       then the members of the started registry that are this worker's
--
-- Returns {how many dependents are ready, some of the keys that were renamed, see `mend`}: each is told of once.

local started, worker, executions, leases, ready = unpack(KEYS)
for at, kind in ipairs({ 'zset', 'hash', 'set', 'zset', 'zset' }) do mend(KEYS[at], kind) end
mend(RENAMED, 'list')
-- Removes nothing; but having written, a script may go on when Redis is full (maxmemory): a worker that goes
-- silent then would lose its jobs to the others.
redis.call('ZREM', started, '')
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local ttl = tonumber(ARGV[3]) + 60

redis.call('ZADD', leases, now + ARGV[2], ARGV[1])
for at = 5, #ARGV do
  redis.call('ZADD', started, 'XX', 'GT', now + ttl, ARGV[at])
end
redis.call('HSET', worker, 'last_heartbeat', ARGV[4], 'lease', ARGV[1])
redis.call('EXPIRE', worker, ttl)
redis.call('EXPIRE', executions, ttl)
return { redis.call('ZCARD', ready), redis.call('LPOP', RENAMED, 100) or {} }
