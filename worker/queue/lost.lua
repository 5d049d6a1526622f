-- Which of some jobs stand in none of the places of their queue.
--
-- KEYS  see `places.lua`
-- ARGV  their ids
--
-- Returns the ids of those that stand nowhere.

local lost = {}
for _, id in ipairs(ARGV) do
  if not stands(id) then lost[#lost + 1] = id end
end
return lost
