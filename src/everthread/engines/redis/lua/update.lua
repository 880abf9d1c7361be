-- Sets title and metadata. ARGV  4 '=' and the title, or ''  5 '=' and the metadata, or ''  6 expected revision or ''
-- Reply as get.lua
local thread, refusal = load_to_write(false)
if refusal then return refusal end
local expected = tonumber(ARGV[6])
if expected and expected ~= thread.revision then return { 2, thread.revision } end
thread.revision = thread.revision + 1
thread.titled = thread.titled or ARGV[4] ~= ''
save(thread)
if ARGV[4] ~= '' then call('HSET', META, 'title', sub(ARGV[4], 2)) end
if ARGV[5] ~= '' then call('HSET', META, 'metadata', sub(ARGV[5], 2)) end
return describe(thread)
