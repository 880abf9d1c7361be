-- Writes one turn and trims the head.
--
-- ARGV  4 append id  5 expected position or ''  6 messages to keep or ''  7 milliseconds to live or ''
--       8 '1' if 6 and 7 go before the thread's own retention, or ''
--       9 '=' and the title for a thread without one, or ''  10 how calls and results hang together, or ''
--       11 bytes of all messages  12… messages, then a fact for each, without its time where that is now
-- Reply {0, first position, next position, 1 if this had been written before, time of activity if the index is apart}
local MOST_IDS, MOST_CALLS = 1000, 1000
local FIRST = 12

local thread, refusal = load_to_write(true)
if refusal then return refusal end

local append_id, before = ARGV[4], nil
if not thread.is_new then
  before = call('HGET', KEYS[5 + thread.ids], append_id)
    or (thread.ids_count >= MOST_IDS and call('HGET', KEYS[8 - thread.ids], append_id))
end
if before then
  -- Written again as it is: a WAIT behind this then waits until the replicas have come as far, whoever wrote it first.
  call('HSET', META, 'owner', OWNER)
  local first, count = string.match(before, '(%d+),(%d+)')
  return { 0, tonumber(first), first + count, 1, apart(thread.updated) }
end
local expected = tonumber(ARGV[5])
if expected and expected ~= thread.next then return { 2, thread.next } end

-- The messages, and beside them their facts.
local count = (#ARGV - FIRST + 1) / 2
local first = thread.next
if first ~= thread.dropped + thread.count + thread.shift then seldom().begin_run(thread) end
local now, facts = NOW .. '', {}
for at = 1, count do
  local fact = ARGV[FIRST + count + at - 1]
  facts[at] = string.byte(fact) == 44 and now .. fact or fact
end
local beside
for start = 1, count, CHUNK do
  local stop = math.min(start + CHUNK - 1, count)
  call('RPUSH', LIST, unpack(ARGV, FIRST + start - 1, FIRST + stop - 1))
  beside = call('RPUSH', FACTS, unpack(facts, start, stop))
end
thread.count = thread.count + count
thread.next = first + count
thread.size = thread.size + ARGV[11]
thread.tail = fingerprint(ARGV[FIRST + count - 1])
-- The server may have evicted the facts alone, if its policy says so.
for _ = beside + 1, thread.count do call('LPUSH', FACTS, ',0,0,?') end
if beside > thread.count then call('LTRIM', FACTS, -thread.count, -1) end

-- How calls and results hang together: the same rules as everthread.retention.resolve.
if ARGV[10] ~= '' then
  local links = cmsgpack.unpack(ARGV[10])
  local spans, open, results = links[1], links[2], links[3]

  -- Adds the spans of results whose calls are in earlier turns, and merges all with those they touch.
  local function answer()
    -- None of the other spans ends after this one.
    local function add_span(from, to)
      while from < to do
        local last = call('ZREVRANGE', SPANS, 0, 0, 'WITHSCORES')
        if not last[1] or tonumber(last[2]) < from then break end
        call('ZREM', SPANS, last[1])
        from, to = math.min(from, tonumber(last[1])), math.max(to, tonumber(last[2]))
      end
      if from < to then call('ZADD', SPANS, to, from) end
    end

    local answered = {}
    for _, result in ipairs(results) do
      local called = not answered[result[1]] and tonumber(call('ZSCORE', CALLS, result[1]))
      -- A result whose call is not known is tied to what stands before it.
      spans[#spans + 1] = { (called or first + result[2] - 1) - first, result[2] }
      answered[result[1]] = true
    end
    table.sort(spans, function(one, other) return one[2] < other[2] end)
    for _, span in ipairs(spans) do add_span(first + span[1], first + span[2]) end
    for id in pairs(answered) do call('ZREM', CALLS, id) end
  end

  if #results > 0 then
    answer()
  else
    -- Within one turn they are merged already, and they touch none that are older.
    for _, span in ipairs(spans) do call('ZADD', SPANS, first + span[2], first + span[1]) end
  end
  for _, each in ipairs(open) do call('ZADD', CALLS, first + each[2], each[1]) end
  if #open > 0 then call('ZREMRANGEBYRANK', CALLS, 0, -MOST_CALLS - 1) end
  thread.linked = true
end

-- Retention.
local most, ttl = ARGV[6], ARGV[7]
if thread.own and ARGV[8] == '' then most, ttl = thread.own.most, thread.own.ttl end
if most ~= '' and thread.count > tonumber(most) then
  local tools, left = seldom(), tonumber(most)
  tools.drop_head(thread, left > 0 and tools.seq_at(thread, thread.count - left) or thread.next)
  if thread.count == 0 then thread.tail = '' end
end

-- The append id, in two generations: the older is dropped when the newer is full, so at least MOST_IDS are remembered.
if thread.ids_count > 0 and thread.ids_count % MOST_IDS == 0 then
  thread.ids = 3 - thread.ids
  call('UNLINK', KEYS[5 + thread.ids])
end
thread.ids_count = thread.ids_count + 1
call('HSET', KEYS[5 + thread.ids], append_id, first .. ',' .. count)

if ARGV[9] ~= '' and not thread.titled then
  thread.titled = true
  call('HSET', META, 'title', sub(ARGV[9], 2))
end
touch(thread)
save_with_expiry(thread, ttl ~= '' and NOW + ttl)
return { 0, first, thread.next, 0, apart(NOW) }
