-- Sets title, metadata and the thread's own retention.
--
-- ARGV  4 '=' and the title, or ''  5 '=' and the metadata, or ''  6 expected revision or ''
--       7 '=' to set its own retention to 8 (messages to keep or '') and 9, '-' to remove it, or ''
--       9 milliseconds to live after the last activity, by the retention that applies then, or ''
-- Reply as get.lua
local thread, refusal = load_to_write(false)
if refusal then return refusal end
local expected = tonumber(ARGV[6])
if expected and expected ~= thread.revision then return { 2, thread.revision } end
thread.revision = thread.revision + 1
thread.titled = thread.titled or ARGV[4] ~= ''
local expires = thread.expires
if ARGV[7] ~= '' then
  thread.own = ARGV[7] == '=' and { most = ARGV[8], ttl = ARGV[9] }
  expires = ARGV[9] ~= '' and thread.updated + ARGV[9]
end
if ARGV[4] ~= '' then call('HSET', META, 'title', sub(ARGV[4], 2)) end
if ARGV[5] ~= '' then call('HSET', META, 'metadata', sub(ARGV[5], 2)) end
save_with_expiry(thread, expires)
return describe_and_expire(thread)
