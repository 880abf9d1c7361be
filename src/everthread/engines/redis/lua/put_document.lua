-- ARGV  4 name  5 value  6 expected revision or ''. Reply {0, revision, milliseconds}
local thread, refusal = load_to_write(true)
if refusal then return refusal end
local stored = call('HGET', DOCS, ARGV[4])
local revision = stored and tonumber(string.match(stored, '^%d+')) or 0
local expected = tonumber(ARGV[6])
if expected and expected ~= revision then return { 2, revision } end
if thread.is_new then
  touch(thread)
  save(thread)
end
call('HSET', DOCS, ARGV[4], revision + 1 .. ' ' .. NOW .. ' ' .. ARGV[5])
seldom().share_expiry(thread)
return { 0, revision + 1, NOW, thread.is_new and apart(NOW) }
