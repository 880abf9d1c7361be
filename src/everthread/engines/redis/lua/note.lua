-- Brings a recency index that lies apart from the threads up to date. Runs by itself, on the index alone.
--
-- KEYS  1 recency index
-- ARGV  milliseconds and thread id of each thread that was active, '-milliseconds' and id of each that was gone by then,
--       'milliseconds-milliseconds' and id of each that now has the first time and before had the second
local call = redis.call
for at = 1, #ARGV, 2 do
  local when, member = ARGV[at], ARGV[at + 1]
  local restored, before = string.match(when, '^(%d+)-(%d+)$')
  local known = tonumber(call('ZSCORE', KEYS[1], member) or nil)
  if string.sub(when, 1, 1) == '-' then
    -- One that was active again since then stays.
    if known and known <= tonumber(string.sub(when, 2)) then call('ZREM', KEYS[1], member) end
  elseif restored then
    -- One that was active since then is where it belongs.
    if not known or known <= tonumber(before) then call('ZADD', KEYS[1], restored, member) end
  elseif not known or known < tonumber(when) then
    call('ZADD', KEYS[1], when, member)
  end
end
return 0
