-- Deletes a thread and all its keys. ARGV  4 expected position or ''
-- Reply {0, 1 if there was one, the time if the index is apart}
local thread, refusal = load()
if refusal and refusal[1] ~= 1 then return refusal end
local expected, next = tonumber(ARGV[4]), thread and (thread.foreign or thread.next)
if expected and next and expected ~= next then return { 2, next } end
seldom().wipe()
return { 0, thread and 1 or 0, apart(NOW) }
