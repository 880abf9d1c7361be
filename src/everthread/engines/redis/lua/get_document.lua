-- ARGV  4 name. Reply {0, 'revision milliseconds value' or false}
local _, refusal = load()
if refusal then return refusal end
return { 0, call('HGET', DOCS, ARGV[4]) }
