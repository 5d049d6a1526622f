-- Begins scripts that count: adds numbers to those of all workers.

-- What somebody put there in place of numbers is lost, and nothing else.
local function add_numbers(key, first, last)
  local found = redis.call('TYPE', key).ok
  if found ~= 'hash' and found ~= 'none' then redis.call('UNLINK', key) end
  for at = first, last, 2 do
    if type(redis.pcall('HINCRBY', key, ARGV[at], ARGV[at + 1])) == 'table' then
      redis.call('HSET', key, ARGV[at], ARGV[at + 1])
    end
  end
end

-- From ARGV[at] on stand: how long a day's numbers are kept (seconds), how many of the names are also kept by the
-- day, how many names there are; then names and numbers, those by the day first.
local function count_numbers(key, at)
  local seconds, by_day, all = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local before = at + 2
  add_numbers(key, before + 1, before + 2 * all)
  if by_day ~= '0' then
    local day = key .. ':day:' .. math.floor(redis.call('TIME')[1] / 86400)
    add_numbers(day, before + 1, before + 2 * by_day)
    redis.call('EXPIRE', day, seconds)
  end
end
