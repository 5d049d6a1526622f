-- Put stopped jobs back to the end of the queue, each in one step out of the failed registry or the quarantine,
-- or, lost ones, out of nowhere.
--
-- KEYS  see `places.lua`
-- ARGV  1 key prefix  2 queue's name  3 now, RQ's text form  4 retries
--       then for each job: its id, 'failed', 'quarantined' or 'lost', and the id to go on under, or '' for the same
--
-- Returns for each job what became of it: 'requeued'; 'unreadable': no hash, stays; 'limited': under a rate
-- limit, whose slots only RQ's code gives out, stays; 'gone': only the id was left, and is removed; 'elsewhere': it
-- was not there any more.

local queue, failed, quarantine = unpack(KEYS)
local prefix, name, now_text, retries = unpack(ARGV, 1, 4)
mend(queue, 'list')
mend(failed, 'zset')
mend(quarantine, 'list')

local function leave(state, id)
  if state == 'failed' then redis.call('ZREM', failed, id) end
  if state == 'quarantined' then redis.call('LREM', quarantine, 1, id) end
end

local answers = {}
for at = 5, #ARGV, 3 do
  local id, state, new = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local job = prefix .. ':job:' .. id
  local size = redis.pcall('HSTRLEN', job, 'data')
  local fields = type(size) == 'number' and redis.call('HMGET', job, 'rate_limit_key', 'ttl')
  if not fields then
    answers[#answers + 1] = 'unreadable'
  elseif fields[1] and fields[1] ~= '' then
    answers[#answers + 1] = 'limited'
  elseif state == 'failed' and not redis.call('ZSCORE', failed, id)
    or state == 'quarantined' and not redis.call('LPOS', quarantine, id)
    or state == 'lost' and stands(id) then
    answers[#answers + 1] = 'elsewhere'
  elseif size == 0 then
    leave(state, id)
    answers[#answers + 1] = 'gone'
  else
    local old = job
    if new ~= '' then
      job = prefix .. ':job:' .. new
      redis.call('COPY', old, job)
    end
    -- Nothing of the last run may count against this one: no used-up retries, lest the death of a worker fails the
    -- job at once, and no coming back from a worker that died.
    redis.call('HDEL', job, 'recoveries', 'counted', 'number_of_retries', 'started_at', 'ended_at', 'exc_info')
    redis.call('HSET', job, 'status', 'queued', 'origin', name, 'enqueued_at', now_text, 'retries_left', retries)
    -- The hash of a failed job expires, one that waits does so only if its producer wanted that.
    local ttl = math.min(tonumber(string.match(fields[2] or '', '^%d+$') or 0), 1e9)
    if ttl > 0 then redis.call('EXPIRE', job, ttl) else redis.call('PERSIST', job) end
    redis.call('RPUSH', queue, new ~= '' and new or id)
    leave(state, id)
    if new ~= '' then redis.call('UNLINK', old) end
    answers[#answers + 1] = 'requeued'
  end
end
return answers
