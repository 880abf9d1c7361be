-- A tenant's thread ids and the time of their last activity, newest first; equal times by id, descending.
-- Runs by itself, on the index alone.
--
-- KEYS  1 recency index
-- ARGV  1 how many  2, 3 time and id of the last one seen, or '' and ''
-- Reply {id, milliseconds, …}
local call = redis.call

-- Equal times are ordered by id as bytes in the index too, so the place after the last one seen is found by halving.
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
