-- Give started jobs back, unfinished: to the front of the queue, or to the quarantine.
--
-- KEYS  1 destination list  2 started registry
-- ARGV  1 key prefix  2 status for the jobs  3 how often a job may come back this way, 0 = any number of times
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
local prefix, status, most = ARGV[1], ARGV[2], tonumber(ARGV[3])
local released, exhausted = 0, 0
for at = #ARGV, 4, -1 do
  local member = ARGV[at]
  local id, execution = string.match(member, '^(.*):([^:]*)$')
  local job = prefix .. ':job:' .. id
  if redis.call('ZSCORE', started, member) then
    local hash = redis.call('TYPE', job).ok == 'hash'
    local found = hash and redis.call('HMGET', job, 'worker_name', 'status') or {}
    local worker = found[1]
    if found[2] == 'canceled' then hash = false end -- somebody wants it to run no more
    -- Of what stands beside the job nothing may stop it: somebody may have put another thing there.
    if worker then redis.pcall('SREM', prefix .. ':worker:' .. worker .. ':executions', member) end
    local recoveries = most > 0 and hash and redis.pcall('HINCRBY', job, 'recoveries', 1) or 0
    -- What RQ's ordinary path noted of the execution.
    redis.call('UNLINK', prefix .. ':execution:' .. member)
    redis.pcall('ZREM', prefix .. ':executions:' .. id, execution)
    if type(recoveries) == 'table' or recoveries > most then -- a table: somebody wrote another thing there
      redis.call('ZADD', started, 0, member)
      redis.pcall('HSET', job, 'retries_left', 0)
      exhausted = exhausted + 1
    else
      if hash then
        if status ~= '' then redis.call('HSET', job, 'status', status) end
        redis.call('LPUSH', destination, id)
        released = released + 1
      end
      redis.call('ZREM', started, member)
    end
  end
end
return { released, exhausted }
