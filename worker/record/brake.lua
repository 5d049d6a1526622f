-- Add a turn's answers to those of all workers, by the minute and the hour of the server's clock.
--
-- KEYS  1 prefix of the buckets: '<prefix>:minute:<n>' and '<prefix>:hour:<n>' are hashes name -> number
-- ARGV  1 minutes that count, the current one included  2 answers that are enough  3 hours to look back at most
--       then for each channel: its name for "alive", the number, its name for "dead", the number
--
-- Where the minutes hold too few answers, hours are taken instead, as many as hold enough. Buckets of the future
-- and names that nobody asks for are never read, however many somebody puts there.
--
-- Returns for each channel {alive, dead, minutes that this is about, dead in the current minute}.

local key, minutes, least, hours = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = tonumber(redis.call('TIME')[1])
local current = { minute = math.floor(now / 60), hour = math.floor(now / 3600) }

local function bucket(unit, back)
  return key .. ':' .. unit .. ':' .. (current[unit] - back)
end

-- What somebody may have put there besides numbers counts nothing; the largest is beyond all that is sent.
local function number(stored)
  local found = tonumber(stored or 0) or 0
  return found >= 0 and found <= 1e12 and found or 0
end

local function count(unit, seconds)
  local counted = false
  for at = 4, #ARGV, 2 do
    if ARGV[at + 1] ~= '0' then
      if type(redis.pcall('HINCRBY', bucket(unit, 0), ARGV[at], ARGV[at + 1])) == 'table' then
        redis.call('UNLINK', bucket(unit, 0)) -- holds no numbers: somebody put another thing there
        redis.call('HINCRBY', bucket(unit, 0), ARGV[at], ARGV[at + 1])
      end
      counted = true
    end
  end
  if counted then redis.call('EXPIRE', bucket(unit, 0), seconds) end
end

local function look_back(unit, most, enough, alive, dead)
  local sum = { 0, 0 }
  for back = 0, most - 1 do
    local found = redis.pcall('HMGET', bucket(unit, back), alive, dead)
    for at = 1, 2 do sum[at] = sum[at] + number(found[at]) end
    if sum[1] + sum[2] >= enough then return sum[1], sum[2], back + 1 end
  end
  return sum[1], sum[2], most
end

count('minute', minutes * 60)
count('hour', hours * 3600)

local answers = {}
for at = 4, #ARGV, 4 do
  local names = { ARGV[at], ARGV[at + 2] }
  local alive, dead, about = look_back('minute', minutes, math.huge, names[1], names[2])
  if alive + dead < least then
    alive, dead, about = look_back('hour', hours, least, names[1], names[2])
    about = about * 60
  end
  local minute = redis.pcall('HMGET', bucket('minute', 0), names[2])
  answers[#answers + 1] = { alive, dead, about, number(minute[1]) }
end
return answers
