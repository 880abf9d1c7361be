-- ARGV  4 name. Reply {0, 1 if there was one}
local _, refusal = load()
if refusal then return refusal end
return { 0, call('HDEL', DOCS, ARGV[4]) }
