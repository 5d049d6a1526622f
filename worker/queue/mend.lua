-- Begins every script: nothing is undone of a script that fails half-way, so what could make it fail comes first.

-- A key that everybody shares and that holds another thing than it should: nobody could use it any more. It is
-- renamed, so that somebody can look at it, and the work goes on.
local function mend(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then
    redis.call('RENAME', key, key .. ':was-a-' .. found)
  end
end

