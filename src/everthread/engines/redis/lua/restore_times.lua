-- Sets the times of a thread's beginning and last activity; its expiry moves by as much.
--
-- ARGV  4, 5 these times in milliseconds
-- Reply as get.lua, then, if the index is apart, the previous time of its last activity
local thread, refusal = load_to_write(false)
if refusal then return refusal end
local created, updated, before = tonumber(ARGV[4]), tonumber(ARGV[5]), thread.updated
thread.created, thread.updated = created, updated
if RECENT then call('ZADD', RECENT, updated, NAME) end
save_with_expiry(thread, thread.expires and thread.expires + updated - before)
local reply = describe_and_expire(thread)
reply[#reply + 1] = apart(before)
return reply
