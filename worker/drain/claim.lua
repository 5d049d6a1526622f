-- Claim waiting jobs for a turn: move them from the queue to the started registry in one step, so that no
-- job is ever in neither. Writes what RQ's worker writes when it starts a job.
--
-- KEYS  1 queue  2 started registry  3 worker  4 worker's executions  5 leases  6 quarantine
--       7 what is there while workers are suspended: none claims anything then
-- ARGV  1 key prefix  2 worker name  3 lease holder  4 turn  5 now, RQ's text form  6 most jobs
--       7 most bytes of job data  8 most bytes of one job's data  9 lease, seconds  10 worker TTL, seconds
--
-- Returns {taken, claimed, ordinary, quarantined, renamed, suspended}: taken = how many left the queue; claimed = {job id,
-- execution id, data, result TTL, recoveries, counted} each, the last three as the job has them; ordinary = 1 when
-- the one claimed job needs RQ's ordinary path; quarantined = ids set aside; renamed = {new id, old id} each;
-- suspended = 1 while workers are.
--
-- Earlier RQs enqueue under ids that RQ 3 no longer allows, as 'a:b': its code, which fails jobs and finishes some,
-- would end of them, maintenance included. Such a job goes on under a new id, unless others wait for it by the old.
--
-- Of a job's hash only these fields are read: what stands in others can do no harm here. RQ's records of
-- executions are left out: a third of the time, for what nobody reads of jobs that take milliseconds.

if redis.call('EXISTS', KEYS[7]) == 1 then return { 0, {}, 0, {}, {}, 1 } end
local queue, started, worker, executions, leases, quarantine = unpack(KEYS)
for at, kind in ipairs({ 'list', 'zset', 'hash', 'set', 'zset', 'list' }) do mend(KEYS[at], kind) end
-- Removes nothing; but having written, a script may go on when Redis is full (maxmemory): this one frees more
-- than it takes.
redis.call('ZREM', started, '')
local prefix, name, holder, turn, now_text = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local most_jobs, most_bytes, largest = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6

redis.call('ZADD', leases, now + ARGV[9], holder)

-- Whether any of some fields is there and says something.
local function some(fields, first, last)
  for at = first, last do
    if fields[at] and fields[at] ~= '' then return true end
  end
  return false
end

local claimed, quarantined, renamed, scores, members = {}, {}, {}, {}, {}
local taken, bytes, ordinary, full = 0, 0, false, false
local ttl = tonumber(ARGV[10]) + 60
for _, id in ipairs(redis.call('LRANGE', queue, 0, most_jobs - 1)) do
  local key = prefix .. ':job:' .. id
  local fields = redis.pcall('HMGET', key, 'data', 'result_ttl', 'recoveries', 'counted', 'repeats_left',
    'rate_limit_key', 'group_id', 'dependency_id', 'ttl', 'started_at', 'ended_at')
  local data = fields[1] or ''
  local odd = not string.match(id, '^[%w_-]+$')
  -- Not a hash, larger than any job of ours, or no id of RQ's.
  if fields.err or #data > largest or odd and (data == '' or redis.call('EXISTS', key .. ':dependents') == 1) then
    quarantined[#quarantined + 1] = id
  elseif data ~= '' then -- else the job was deleted while it waited; RQ passes over it, too
    -- What RQ does around such jobs is rare and intricate: leave them to its own code.
    local rare = some(fields, 5, 8)
    -- A job that was taken over may be what killed its worker. Either makes a turn of its own.
    local single = rare or fields[3]
    if full or #claimed > 0 and (single or bytes + #data > most_bytes) then break end
    full, ordinary = single, rare
    bytes = bytes + #data

    if odd then
      local new = 'renamed-' .. holder .. '-' .. turn .. '-' .. #claimed
      local new_key = prefix .. ':job:' .. new
      redis.call('COPY', key, new_key)
      renamed[#renamed + 1] = { new, id }
      id, key = new, new_key
    end
    local execution = holder .. '-' .. turn .. '-' .. #claimed
    local member = id .. ':' .. execution
    redis.call('HSET', key, 'status', 'started', 'started_at', now_text, 'last_heartbeat', now_text, 'worker_name', name)
    -- Only these expire: a job with a TTL of its own, and one that ran before.
    if some(fields, 9, 11) then redis.call('PERSIST', key) end
    scores[#scores + 1] = now + ttl
    scores[#scores + 1] = member
    members[#members + 1] = member
    claimed[#claimed + 1] = { id, execution, data, fields[2], fields[3], fields[4] }
  end
  taken = taken + 1
end

-- Every job stands in its new place before it leaves the old one.
if #quarantined > 0 then redis.call('RPUSH', quarantine, unpack(quarantined)) end
if #claimed > 0 then redis.call('ZADD', started, unpack(scores)) end
if taken > 0 then redis.call('LTRIM', queue, taken, -1) end
for _, names in ipairs(renamed) do redis.call('UNLINK', prefix .. ':job:' .. names[2]) end
if #claimed > 0 then
  redis.call('SADD', executions, unpack(members))
  redis.call('EXPIRE', executions, ttl)
  redis.call('HSET', worker, 'state', 'busy', 'last_heartbeat', now_text)
  redis.call('EXPIRE', worker, ttl)
end
return { taken, claimed, ordinary and 1 or 0, quarantined, renamed, 0 }
