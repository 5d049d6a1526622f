-- Where a job of a queue may stand. Begins the scripts about jobs that stand nowhere.
--
-- KEYS  1 queue  2 failed registry  3 quarantine  4 intermediate queue  5 started registry  then other registries

local started
local function stands(id)
  for _, at in ipairs({ 1, 3, 4 }) do
    if type(redis.pcall('LPOS', KEYS[at], id)) == 'number' then return true end
  end
  for at = 2, #KEYS do
    if at ~= 3 and at ~= 4 and type(redis.pcall('ZSCORE', KEYS[at], id)) == 'string' then return true end
  end
  if not started then
    -- Members are `<job id>:<execution id>`, of earlier RQs the id alone.
    started = {}
    local members = redis.pcall('ZRANGE', KEYS[5], 0, -1)
    for _, member in ipairs(members.err and {} or members) do
      started[string.match(member, '^(.*):[^:]*$') or member] = true
    end
  end
  return started[id] ~= nil
end

