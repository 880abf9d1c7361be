-- The times at which a tenant's recency index has threads. Runs by itself, on the index alone.
--
-- KEYS  1 recency index
-- ARGV  thread ids
-- Reply {milliseconds or '' for each}
local reply = {}
for at, member in ipairs(ARGV) do reply[at] = redis.call('ZSCORE', KEYS[1], member) or '' end
return reply
