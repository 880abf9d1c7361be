-- Messages with their facts.
--
-- ARGV  4 'last'  5 how many  6 below which position, or ''
--    or 4 'from'  5 first position  6 below which position, or ''  7 at most how many, or ''
-- Reply {0, head position, next position, ordinal of the first message given, runs, messages, facts}
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
-- Facts are counted from the tail: that is where they are complete, whatever was evicted.
local back, last = start - thread.count, stop - 1 - thread.count
return { 0, head, thread.next, thread.dropped + start, thread.runs, call('LRANGE', LIST, start, stop - 1),
  thread.foreign and {} or call('LRANGE', FACTS, back, last) }
