-- Keeps positions from 4 to below 5 (or '' for no end), adjusted so that no result is separated from its call.
-- ARGV  6 expected position or ''
-- Reply {0, number of dropped messages, head position, next position, time of activity if the index is apart}
local tools = seldom()

local function drop_tail(thread, seq)
  local keep = tools.index_from(thread, seq)
  local gone = thread.count - keep
  if gone > 0 then
    thread.size = thread.size - tools.bytes_of(call('RPOP', FACTS, gone))
    if keep > 0 then call('LTRIM', LIST, 0, keep - 1) else call('UNLINK', LIST) end
    thread.count = keep
    tools.drop_late_runs(thread)
  end
  if thread.linked then tools.drop_links(seq, '+inf') end
end

local thread, refusal = load_to_write(false)
if refusal then return refusal end
local expected = tonumber(ARGV[6])
if expected and expected ~= thread.next then return { 2, thread.next } end
local count = thread.count
tools.drop_head(thread, tonumber(ARGV[4]))
local stop = tonumber(ARGV[5])
if stop and stop < thread.next then drop_tail(thread, tools.span_around(thread, stop) or stop) end
thread.tail = thread.count > 0 and fingerprint(call('LINDEX', LIST, -1)) or ''
-- A list that was adopted just now is not in the index yet.
if stop or thread.is_new then touch(thread) end
save(thread)
return { 0, count - thread.count, tools.head_of(thread), thread.next, apart(thread.updated) }
