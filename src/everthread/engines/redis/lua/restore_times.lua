-- Sets when a thread was begun and last active; an expiry moves along.
--
-- ARGV  4, 5 these times in milliseconds
-- Reply as get.lua, and then, if the index is apart, when it was last active before
local thread, refusal = load_to_write(false)
if refusal then return refusal end
local created, updated, before = tonumber(ARGV[4]), tonumber(ARGV[5]), thread.updated
thread.created, thread.updated = created, updated
if RECENT then call('ZADD', RECENT, updated, NAME) end
save_with_expiry(thread, thread.expires and thread.expires + updated - before)
local reply = describe_and_forget(thread)
reply[#reply + 1] = apart(before)
return reply
