-- Returns messages with their facts.
--
-- ARGV  4 'last'  5 limit  6 position at which to stop, or ''
--    or 4 'from'  5 first position  6 position at which to stop, or ''  7 limit or ''
-- Reply {0, head position, next position, ordinal of the first message, runs, messages, facts}
local thread, refusal = load(true)
if refusal then return refusal end
if thread.foreign then thread.count, thread.next = thread.foreign, thread.foreign end
local tools = seldom()
local below = tonumber(ARGV[6])
local stop = below and tools.index_from(thread, below) or thread.count
local start
if ARGV[4] == 'last' then
  start = math.max(stop - tonumber(ARGV[5]), 0)
else
  start = tools.index_from(thread, tonumber(ARGV[5]))
  stop = math.min(stop, start + (tonumber(ARGV[7]) or thread.count))
end
local head = tools.head_of(thread)
if start >= stop then return { 0, head, thread.next, 0, '', {}, {} } end
-- Facts are indexed from the tail, where they are complete also after an eviction.
local payloads, facts = call('LRANGE', LIST, start, stop - 1), {}
local noted = thread.foreign and 0 or thread.count - (thread.unnoted or 0)
if start < noted then facts = call('LRANGE', FACTS, start - noted, math.min(stop, noted) - 1 - noted) end
for at = math.max(noted - start, 0) + 1, thread.unnoted and #payloads or 0 do
  facts[#facts + 1] = ',0,' .. #payloads[at] .. ',?'
end
local runs = tools.runs_of(thread, thread.dropped + start, thread.dropped + start + #payloads - 1)
return { 0, head, thread.next, thread.dropped + start, runs, payloads, facts }
