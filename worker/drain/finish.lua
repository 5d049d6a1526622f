-- Finish jobs whose rows are committed: what RQ's worker does for a job that returned, for many at once.
--
-- KEYS  1 started registry  2 finished registry  3 worker  4 worker's executions  5 the numbers of all workers
-- ARGV  1 key prefix  2 now, RQ's text form  3 worker name  4 when work on them began, seconds
--       5 working time of all, seconds  6 a name of this call
--       7 JSON: for each job {id, execution id, result TTL (seconds), serialized result}
--       then the turn's numbers, see `count_numbers`
--
-- A job that is no longer this worker's (it stalled, and another took over) is passed over. Returns the ids
-- of jobs with dependents: they are left as they are, for RQ's own code.

local started, finished, worker, executions, numbers = unpack(KEYS)
for at, kind in ipairs({ 'zset', 'zset', 'hash', 'set' }) do mend(KEYS[at], kind) end
-- Removes nothing; but having written, a script may go on when Redis is full (maxmemory): this one frees more
-- than it takes.
redis.call('ZREM', started, '')
local prefix, now_text, name = ARGV[1], ARGV[2], ARGV[3]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6

-- A call costs microseconds, however little it does: what can be asked of all jobs is asked at once.
local jobs, members, dependents = cjson.decode(ARGV[7]), {}, {}
for n, job in ipairs(jobs) do
  members[n] = job[1] .. ':' .. job[2]
  dependents[n] = prefix .. ':job:' .. job[1] .. ':dependents'
end
local held = #jobs > 0 and redis.call('ZMSCORE', started, unpack(members))
local some_have_dependents = #jobs > 0 and redis.call('EXISTS', unpack(dependents)) > 0

local done, garbage, kept, with_dependents = {}, {}, {}, {}
for n, member in ipairs(members) do
  local id, execution, ttl, result = unpack(jobs[n])
  local job, results = prefix .. ':job:' .. id, prefix .. ':results:' .. id
  if not held[n] then
    -- passed over
  elseif some_have_dependents and redis.call('EXISTS', dependents[n]) == 1 then
    with_dependents[#with_dependents + 1] = id
  else
    local status = redis.pcall('HGET', job, 'status')
    if not status or status == 'queued' or type(status) == 'table' then
      -- It was deleted meanwhile, and maybe enqueued anew under its old id; or somebody put another thing there.
    elseif ttl == 0 then
      garbage[#garbage + 1] = job
      garbage[#garbage + 1] = results
    else
      mend(results, 'stream')
      local entry = { results, 'MAXLEN', 10, '*', 'type', 1, 'worker_name', name, 'return_value', result,
        'execution_id', execution, 'execution_started_at', ARGV[4], 'execution_ended_at', now }
      if type(redis.pcall('XADD', unpack(entry))) == 'table' then
        redis.call('UNLINK', results) -- somebody used up the stream's numbers
        redis.call('XADD', unpack(entry))
      end
      redis.call('HSET', job, 'status', 'finished', 'ended_at', now_text, 'last_heartbeat', now_text)
      redis.call('HDEL', job, 'recoveries', 'counted')
      kept[#kept + 1] = ttl == -1 and '+inf' or (ttl < 0 and ttl or now + ttl)
      kept[#kept + 1] = id
      if ttl > 0 then
        redis.call('EXPIRE', results, ttl)
        redis.call('EXPIRE', job, ttl)
      else
        redis.call('PERSIST', results)
      end
    end
    done[#done + 1] = member
  end
end

for first = 1, #garbage, 1000 do
  redis.call('UNLINK', unpack(garbage, first, math.min(first + 999, #garbage)))
end
if #kept > 0 then redis.call('ZADD', finished, unpack(kept)) end
if #done > 0 then
  redis.call('ZREM', started, unpack(done))
  redis.call('SREM', executions, unpack(done))
  redis.call('HINCRBY', worker, 'successful_job_count', #done)
  redis.call('HINCRBYFLOAT', worker, 'total_working_time', ARGV[5])
end
-- This call may be a repeated one, whose first answer was lost: then no job is left to finish. A call that
-- finishes none by itself leaves its name for a while.
local once = numbers .. ':once:' .. ARGV[6]
local finishes_none = #jobs == 0 or #with_dependents > 0
if #done > 0 or (finishes_none and redis.call('SET', once, '', 'NX', 'EX', 120)) then
  count_numbers(numbers, 8)
end
return with_dependents
