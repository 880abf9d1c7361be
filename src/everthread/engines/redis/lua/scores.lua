-- Returns the times of threads in a tenant's recency index. Runs alone, without thread.lua.
--
-- KEYS  1 recency index
-- ARGV  thread IDs
-- Reply {milliseconds or '' for each}
local reply = {}
for at, member in ipairs(ARGV) do reply[at] = redis.call('ZSCORE', KEYS[1], member) or '' end
return reply
