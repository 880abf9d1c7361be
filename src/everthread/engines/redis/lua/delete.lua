-- Forgets a thread and all that belongs to it. Reply {0, 1 if there was one, the time if the index is apart}
local thread, refusal = load()
if refusal and refusal[1] ~= 1 then return refusal end
wipe()
return { 0, thread and 1 or 0, apart(NOW) }
