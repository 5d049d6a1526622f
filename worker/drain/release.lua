-- Give started jobs back, unfinished: to the front of the queue, or to the quarantine.
--
-- KEYS  1 destination list  2 started registry
-- ARGV  1 key prefix  2 status for the jobs  3 how often a job may come back this way, 0 = any number of times
--       4 'counted': the brake knows their answers already
--       then members of the started registry, the next to run first
--
-- Returns {released, exhausted}: numbers of jobs. An exhausted job (it came back too often: it may be what
-- kills workers) is marked as expired, so that RQ's own maintenance fails it as abandoned.

local destination, started = unpack(KEYS)
mend(destination, 'list')
mend(started, 'zset')
-- Removes nothing; but having written, a script may go on when Redis is full (maxmemory): this one frees more
-- than it takes.
redis.call('ZREM', started, '')
local prefix, status, most, counted = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == 'counted'
local released, exhausted = 0, 0

-- What RQ and the claim noted of the execution. Nothing beside a job may stop it: somebody may have put another
-- thing there.
local function forget(member, id, execution, worker)
  if worker then redis.pcall('SREM', prefix .. ':worker:' .. worker .. ':executions', member) end
  redis.call('UNLINK', prefix .. ':execution:' .. member)
  redis.pcall('ZREM', prefix .. ':executions:' .. id, execution)
end

local function give_back(member, id, execution)
  local job = prefix .. ':job:' .. id
  local kind = redis.call('TYPE', job).ok
  local hash = kind == 'hash'
  local found = hash and redis.call('HMGET', job, 'worker_name', 'status') or {}
  forget(member, id, execution, found[1])
  local recoveries = most > 0 and hash and redis.pcall('HINCRBY', job, 'recoveries', 1) or 0
  if type(recoveries) == 'table' or recoveries > most then -- a table: somebody wrote another thing there
    redis.call('HSET', job, 'retries_left', 0)
    redis.call('ZADD', started, 0, member)
    exhausted = exhausted + 1
    return
  end
  if kind ~= 'none' and found[2] ~= 'canceled' then -- else it was deleted, or shall run no more
    if hash and status ~= '' then redis.call('HSET', job, 'status', status) end
    if hash and counted then redis.call('HSET', job, 'counted', 1) end
    redis.call('LPUSH', destination, id)
    released = released + 1
  end
  redis.call('ZREM', started, member)
end

for at = #ARGV, 5, -1 do
  local member = ARGV[at]
  local id, execution = string.match(member, '^(.*):([^:]*)$')
  if not id then
    redis.call('ZREM', started, member) -- names no job
  elseif redis.call('ZSCORE', started, member) then
    give_back(member, id, execution)
  end
end
return { released, exhausted }
