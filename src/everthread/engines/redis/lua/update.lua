-- Sets title and metadata. ARGV  4 '=' and the title, or ''  5 '=' and the metadata, or ''  6 expected revision or ''
-- Reply as get.lua
local thread, refusal = load_to_write(false)
if refusal then return refusal end
local expected = tonumber(ARGV[6])
if expected and expected ~= thread.revision then return { 2, thread.revision } end
if ARGV[4] ~= '' then thread.title = string.sub(ARGV[4], 2) end
if ARGV[5] ~= '' then thread.metadata = string.sub(ARGV[5], 2) end
thread.revision = thread.revision + 1
save(thread)
call('HSET', META, 'revision', whole(thread.revision))
if thread.title then call('HSET', META, 'title', thread.title) end
if thread.metadata then call('HSET', META, 'metadata', thread.metadata) end
return describe(thread)
