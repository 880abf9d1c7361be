-- Looks for lists of messages whose thread is not in its tenant's recency index; changes nothing.
--
-- KEYS  1 recency index
-- ARGV  1 where SCAN goes on  2 what the keys of the lists begin with  3 the same as a pattern
-- Reply {where SCAN goes on, thread id, …}
local found = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[3], 'COUNT', 1000, 'TYPE', 'list')
local reply = { found[1] }
for _, key in ipairs(found[2]) do
  local member = string.sub(key, #ARGV[2] + 1)
  if member ~= '' and not redis.call('ZSCORE', KEYS[1], member) then reply[#reply + 1] = member end
end
return reply
