-- Delete stopped jobs, with their results, for good.
--
-- KEYS  see `places.lua`
-- ARGV  1 key prefix, then for each job: its id, and 'failed', 'quarantined' or 'lost'
--
-- Returns for each job what became of it: 'discarded'; 'waiting': somebody enqueued it again, it stays; 'elsewhere': it
-- was not there any more.

local failed, quarantine = KEYS[2], KEYS[3]
local prefix = ARGV[1]
local over = { failed = true, stopped = true, canceled = true }
mend(failed, 'zset')
mend(quarantine, 'list')

local answers = {}
for at = 2, #ARGV, 2 do
  local id, state = ARGV[at], ARGV[at + 1]
  local job = prefix .. ':job:' .. id
  local status = redis.pcall('HGET', job, 'status')
  if state == 'failed' and type(status) == 'string' and not over[status] then
    answers[#answers + 1] = 'waiting'
  elseif state == 'failed' and redis.call('ZREM', failed, id) == 0
    or state == 'quarantined' and redis.call('LREM', quarantine, 0, id) == 0
    or state == 'lost' and stands(id) then
    answers[#answers + 1] = 'elsewhere'
  else
    redis.call('UNLINK', job, job .. ':dependents', job .. ':dependencies', prefix .. ':results:' .. id)
    answers[#answers + 1] = 'discarded'
  end
end
return answers
