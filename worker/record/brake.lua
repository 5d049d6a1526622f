-- Add a turn's answers to the recent ones of all workers, by the minute of the server's clock.
--
-- KEYS  1 hash: '<minute>:<name>' -> number of answers
-- ARGV  1 minutes that count, the current one included; then name, number, name, number, ...
--
-- Returns the recent number of each name, in the order given.

local key, minutes = KEYS[1], tonumber(ARGV[1])
local minute = math.floor(redis.call('TIME')[1] / 60)

for at = 2, #ARGV, 2 do
  if ARGV[at + 1] ~= '0' then redis.call('HINCRBY', key, minute .. ':' .. ARGV[at], ARGV[at + 1]) end
end
redis.call('EXPIRE', key, minutes * 60)

local recent = {}
local stored = redis.call('HGETALL', key)
for at = 1, #stored, 2 do
  local counted, name = string.match(stored[at], '^(%d+):(.+)$')
  if not counted or counted + minutes <= minute then
    redis.call('HDEL', key, stored[at])
  else
    recent[name] = (recent[name] or 0) + tonumber(stored[at + 1])
  end
end

local numbers = {}
for at = 2, #ARGV, 2 do
  numbers[#numbers + 1] = recent[ARGV[at]] or 0
end
return numbers
