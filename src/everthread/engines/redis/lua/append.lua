-- Appends one turn and trims the head.
--
-- ARGV  4 append ID  5 expected position or '', or 'expected:first' to skip positions  6 messages to keep or ''  7 milliseconds to live or ''
--       8 '1' if 6 and 7 take precedence over the thread's own retention, or ''
--       9 '=' and the title, which only the first append to a thread sets, or ''
--       10 links of calls and results: '', 's' and two bytes for each span, or packed  11 bytes of all messages  12… messages, then a fact for each, without its time if that is now
-- Reply {0, first position, next position, 1 if this was a repetition, time of activity if the index is apart}
local MAX_IDS, MAX_CALLS = 1000, 1000
local FIRST = 12

-- Returns {spans, open calls, results of calls in earlier turns}, each with offsets in the turn, or nil.
local function unpacked_links(text)
  if string.byte(text) ~= 115 then return text ~= '' and cmsgpack.unpack(text) or nil end
  local spans = {}
  for at = 2, #text, 2 do spans[#spans + 1] = { string.byte(text, at, at + 1) } end
  return { spans, {}, {} }
end

local thread, refusal = load_to_write(true, true)
if refusal then return refusal end

local append_id, before = ARGV[4], nil
if not thread.is_new then
  before = call('HGET', KEYS[5 + thread.ids], append_id)
    or (thread.ids_count >= MAX_IDS and call('HGET', KEYS[8 - thread.ids], append_id))
end
if before then
  -- A write without a change: a WAIT after it waits until the replicas have the append, also one by another connection.
  call('HSET', META, 'owner', OWNER)
  local first, count = string.match(before, '(%d+),(%d+)')
  return { 0, tonumber(first), first + count, 1, apart(thread.updated) }
end
local expected, skipped_to = string.match(ARGV[5], '^(%d+):?(%d*)$')
if expected and tonumber(expected) ~= thread.next then return { 2, thread.next } end

local most, ttl = ARGV[6], ARGV[7]
if thread.own and ARGV[8] == '' then most, ttl = thread.own.most, thread.own.ttl end
local count = (#ARGV - FIRST + 1) / 2
local first, ordinal = tonumber(skipped_to) or thread.next, thread.dropped + thread.count
local trims = most ~= '' and thread.count + count > tonumber(most)
local links = unpacked_links(ARGV[10])

-- Commands that cannot be undone below must not fail.
local must_rotate = thread.ids_count > 0 and thread.ids_count % MAX_IDS == 0
if links then
  require_usable({ 4, 5 }, 'ZADD')
  if #links[2] > 0 then require_usable({}, 'ZREMRANGEBYRANK') end
  if #links[3] > 0 then require_usable({}, 'ZREM', 'ZSCORE', 'ZREVRANGE') end
end
if trims then require_usable({}, 'LTRIM', 'LPOP') end
if trims and (thread.linked or links) then require_usable({ 4, 5 }, 'ZREMRANGEBYSCORE', 'ZRANGEBYSCORE') end
if ttl ~= '' or thread.expires then require_usable({}, 'PEXPIRE', 'PERSIST') end
if (thread.runs ~= '' or thread.scattered) and (trims or first ~= ordinal + thread.shift) then
  require_usable({ 9 }, 'ZADD', 'ZREMRANGEBYRANK', 'UNLINK', 'ZCOUNT', 'ZREVRANGE')
end
if must_rotate then require_usable({ 10 }, 'UNLINK', 'HSET', 'ZADD') end

-- The facts of the messages.
local now, facts = NOW .. '', {}
for at = 1, count do
  local fact = ARGV[FIRST + count + at - 1]
  facts[at] = string.byte(fact) == 44 and now .. fact or fact
end

-- Adds the links of calls and results, by the rules of everthread.messages.tool_links.resolve.
local function add_links(spans, open, results)
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

  -- Adds the spans of results of calls in earlier turns, and merges overlapping spans.
  local function answer()
    local answered = {}
    for _, result in ipairs(results) do
      local called = not answered[result[1]] and tonumber(call('ZSCORE', CALLS, result[1]))
      -- A result of an unknown call is linked to the message before it.
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
    -- Spans of one turn are merged already, and do not overlap older ones.
    for _, span in ipairs(spans) do call('ZADD', SPANS, first + span[2], first + span[1]) end
  end
  for _, each in ipairs(open) do call('ZADD', CALLS, first + each[2], each[1]) end
  if #open > 0 then call('ZREMRANGEBYRANK', CALLS, 0, -MAX_CALLS - 1) end
  thread.linked = true
end

local updated, is_titled, noted, pushed = thread.updated, thread.titled, 0, 0

local function write()
  local beside
  for start = 1, count, CHUNK do
    local stop = math.min(start + CHUNK - 1, count)
    beside = call('RPUSH', FACTS, unpack(facts, start, stop))
    noted = stop
    call('RPUSH', LIST, unpack(ARGV, FIRST + start - 1, FIRST + stop - 1))
    pushed = stop
  end
  -- An eviction may have removed the facts alone.
  local total = thread.count + count
  for _ = beside + 1, total do call('LPUSH', FACTS, ',0,0,?') end
  if beside > total then call('LTRIM', FACTS, -total, -1) end

  -- Append IDs have two generations. The older is dropped when the newer is full, so at least MAX_IDS are known.
  if must_rotate then
    thread.ids = 3 - thread.ids
    call('UNLINK', KEYS[5 + thread.ids])
  end
  thread.ids_count = thread.ids_count + 1
  call('HSET', KEYS[5 + thread.ids], append_id, first .. ',' .. count)
  if ARGV[9] ~= '' and first == 0 and not thread.titled then
    thread.titled = true
    call('HSET', META, 'title', sub(ARGV[9], 2))
  end
  touch(thread)

  -- From here on, no command fails.
  if first ~= ordinal + thread.shift then
    thread.next = first
    seldom().begin_run(thread)
  end
  thread.count = total
  thread.next = first + count
  thread.size = thread.size + ARGV[11]
  thread.tail = fingerprint(ARGV[FIRST + count - 1])
  if links then add_links(links[1], links[2], links[3]) end
  if trims then
    local tools, left = seldom(), tonumber(most)
    tools.drop_head(thread, left > 0 and tools.seq_at(thread, thread.count - left) or thread.next)
    if thread.count == 0 then thread.tail = '' end
  end
  save_with_expiry(thread, ttl ~= '' and thread.updated + ttl)
end

local is_written, trouble = pcall(write)
if not is_written then
  redis.pcall('LTRIM', LIST, 0, -pushed - 1)
  redis.pcall('LTRIM', FACTS, 0, -noted - 1)
  redis.pcall('HDEL', KEYS[5 + thread.ids], append_id)
  if thread.titled and not is_titled then redis.pcall('HDEL', META, 'title') end
  if RECENT and thread.is_new then redis.pcall('ZREM', RECENT, NAME) end
  if RECENT and not thread.is_new then redis.pcall('ZADD', RECENT, 'XX', updated, NAME) end
  return { err = type(trouble) == 'table' and trouble.err or trouble }
end
return { 0, first, thread.next, 0, apart(thread.updated) }
