-- Returns a tenant's thread IDs and the time of their last activity, newest first; equal times by ID, descending.
-- Runs alone, without thread.lua.
--
-- KEYS  1 recency index
-- ARGV  1 limit  2, 3 time and ID after which to begin, or '' and ''
-- Reply {ID, milliseconds, …}
local call = redis.call

-- The index orders equal times by ID as bytes, so this is a binary search.
local function rank_after(score, id)
  local low = call('ZCOUNT', KEYS[1], '(' .. score, '+inf')
  local high = low + call('ZCOUNT', KEYS[1], score, score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if call('ZREVRANGE', KEYS[1], middle, middle)[1] < id then high = middle else low = middle + 1 end
  end
  return low
end

local start = ARGV[2] ~= '' and rank_after(ARGV[2], ARGV[3]) or 0
return call('ZREVRANGE', KEYS[1], start, start + tonumber(ARGV[1]) - 1, 'WITHSCORES')
