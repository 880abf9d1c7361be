-- Updates a recency index in another slot than the threads. Runs alone, without thread.lua.
--
-- KEYS  1 recency index
-- ARGV  a note and a thread ID by turns; the note is 'milliseconds' of an activity, '-milliseconds' at which the thread
--       was gone, or 'milliseconds-milliseconds', its new time and the one before
local call = redis.call
for at = 1, #ARGV, 2 do
  local when, member = ARGV[at], ARGV[at + 1]
  local restored, before = string.match(when, '^(%d+)-(%d+)$')
  local known = tonumber(call('ZSCORE', KEYS[1], member) or nil)
  if string.sub(when, 1, 1) == '-' then
    -- A thread that was active since then stays, also one that began again in the same millisecond.
    if known and known < tonumber(string.sub(when, 2)) then call('ZREM', KEYS[1], member) end
  elseif restored then
    -- A thread that was active since then has the right time.
    if not known or known <= tonumber(before) then call('ZADD', KEYS[1], restored, member) end
  elseif not known or known < tonumber(when) then
    call('ZADD', KEYS[1], when, member)
  end
end
return 0
