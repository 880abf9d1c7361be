-- Moves the next position forward, unless it is there already. Creates a thread that does not exist.
--
-- ARGV  4 next position  5 expected position  6 milliseconds to live, or '' to leave the expiry unchanged
-- Reply {0, time of activity if the index is apart}
local thread, refusal = load_to_write(true)
if refusal then return refusal end
local next = tonumber(ARGV[4])
if thread.next == next then return { 0 } end
if thread.next ~= tonumber(ARGV[5]) then return { 2, thread.next } end
thread.next = next
touch(thread)
save_with_expiry(thread, ARGV[6] ~= '' and thread.updated + ARGV[6] or thread.expires)
return { 0, apart(thread.updated) }
