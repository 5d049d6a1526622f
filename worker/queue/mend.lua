-- Begins every script: nothing is undone of a script that fails half-way, so what could make it fail comes first.

-- A key that holds another type of value than it should: nobody could use it any more. It is renamed, so that
-- somebody can look at it, and the work goes on. RENAMED is the list of what to tell of, see `Claims.beat`.
local function mend(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then
    local renamed = key .. ':was-a-' .. found
    redis.call('RENAME', key, renamed)
    redis.pcall('RPUSH', RENAMED, renamed)
    redis.pcall('LTRIM', RENAMED, -1000, -1)
  end
end

