-- What every script begins with: the names, and one thread as it is on the server.
--
-- KEYS  1 messages (list)  2 meta (hash)  3 facts (list beside the messages)  4 spans (zset, score: where it ends)
--       5 open calls (zset, score: position)  6, 7 append ids (two generations of a hash)  8 documents (hash)
--       9 recency index of the tenant (zset, score: milliseconds); not there where it lies in another slot
-- ARGV  1 owner  2 milliseconds since 1970, or '' for the server's  3 thread id  4… the script's own
--
-- A reply begins with 0 (done), 1 (no such thread), 2 (conflict, then the actual value), 3 (another owner's)
-- or 4 (another schema, which follows).
--
-- Measured: a call of the server costs about 0.5 µs, a field of HMGET 0.2, a number turned into text 0.3, and a function
-- defined 0.1 and as much again for the garbage that it is. So the numbers of a thread are one packed field, numbers go
-- into commands as they are, and functions that most calls do without are made by `seldom` (39 to 36 µs of an append).
local call, sub = redis.call, string.sub
local LIST, META, FACTS, SPANS, CALLS, DOCS, RECENT = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[8], KEYS[9]
local OWNER, NOW, NAME = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local SCHEMA, WITH_OWN_RETENTION = 1, 2 -- so that what knows of no retention of a thread's own does not lose it
local CHUNK = 4000 -- unpack() and a command's arguments go through Lua's C stack, which holds 8,000

if not NOW then
  local time = call('TIME')
  NOW = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Tells whether the newest message is still the one that was written here, without hashing all of it.
local function fingerprint(payload)
  local middle = math.floor(#payload / 2)
  return sub(payload, middle, middle + 23) .. sub(payload, -24)
end

local function save(thread)
  local own = thread.own
  local state = cmsgpack.pack(own and WITH_OWN_RETENTION or SCHEMA, thread.next, thread.count,
    thread.dropped, thread.shift, thread.runs, thread.size, thread.created, thread.updated, thread.expires,
    thread.revision, thread.linked, thread.titled, thread.shared, thread.ids, thread.ids_count)
  if own then state = state .. cmsgpack.pack(own.most, own.ttl) end
  call('HSET', META, 'owner', OWNER, 'tail', thread.tail, 'state', state)
end

local function new_thread()
  return { next = 0, count = 0, dropped = 0, shift = 0, runs = '', size = 0, created = NOW, updated = NOW,
    expires = false, revision = 0, linked = false, titled = false, shared = false, ids = 1, ids_count = 0, tail = '',
    is_new = true }
end

-- The functions that few calls need.
local function seldom()
  local tools = {}

  -- Where a message lies in the list follows from its ordinal: how many messages were put before it, the dropped
  -- heads included. Positions equal ordinals until a tail is dropped; each hole begins a run 'ordinal:position'.
  function tools.seq_at(thread, index)
    local ordinal = thread.dropped + index
    local seq = ordinal
    for from, at in string.gmatch(thread.runs, '(%d+):(%d+)') do
      if tonumber(from) > ordinal then break end
      seq = tonumber(at) + ordinal - from
    end
    return seq
  end

  -- The lowest index whose position is at or above seq; the count if there is none.
  function tools.index_from(thread, seq)
    local from, at, ordinal = 0, 0, nil
    for next_from, next_at in string.gmatch(thread.runs, '(%d+):(%d+)') do
      ordinal = from + math.max(seq - at, 0)
      if ordinal < tonumber(next_from) then break end
      from, at, ordinal = tonumber(next_from), tonumber(next_at), nil
    end
    ordinal = ordinal or from + math.max(seq - at, 0)
    return math.min(math.max(ordinal - thread.dropped, 0), thread.count)
  end

  function tools.head_of(thread)
    return thread.count > 0 and tools.seq_at(thread, 0) or thread.next
  end

  -- Makes the next message's position follow from its ordinal, after a hole.
  function tools.begin_run(thread)
    local ordinal = thread.dropped + thread.count
    if thread.next ~= ordinal + thread.shift then
      thread.runs = thread.runs .. ordinal .. ':' .. thread.next .. ' '
      thread.shift = thread.next - ordinal
    end
  end

  -- A fact is 'milliseconds,offset in its turn,bytes,format'; of what others wrote only the bytes are known.
  function tools.bytes_of(facts)
    local bytes = 0
    for _, fact in ipairs(facts or {}) do
      bytes = bytes + (tonumber(string.match(fact, '^%-?%d*,%d*,(%d+)')) or 0)
    end
    return bytes
  end

  function tools.forget_links(from, to)
    call('ZREMRANGEBYSCORE', SPANS, from, to)
    call('ZREMRANGEBYSCORE', CALLS, from, to)
  end

  local function prune_runs(thread)
    local kept, last = '', nil
    for from, at in string.gmatch(thread.runs, '(%d+):(%d+)') do
      if tonumber(from) <= thread.dropped then
        last = from .. ':' .. at .. ' '
      else
        kept = kept .. from .. ':' .. at .. ' '
      end
    end
    thread.runs = (last or '') .. kept
  end

  -- Takes the oldest messages off the books.
  function tools.drop_facts(thread, index)
    if index > 0 then
      thread.size = thread.size - tools.bytes_of(call('LPOP', FACTS, index))
      thread.dropped = thread.dropped + index
      thread.count = thread.count - index
      if thread.runs ~= '' then prune_runs(thread) end
    end
  end

  -- The span that a cut would go through: where it begins and ends.
  function tools.span_around(thread, cut)
    if not thread.linked then return nil end
    local found = call('ZRANGEBYSCORE', SPANS, cut, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    local from = tonumber(found[1])
    if from and from < cut then return from, tonumber(found[2]) end
    return nil
  end

  function tools.drop_head(thread, cut)
    if cut <= tools.head_of(thread) then return end
    local _, to = tools.span_around(thread, cut)
    local seq = to and to + 1 or cut
    local index = tools.index_from(thread, seq)
    if index > 0 then
      call('LTRIM', LIST, index, -1)
      tools.drop_facts(thread, index)
    end
    if thread.linked then tools.forget_links('-inf', '(' .. seq) end
  end

  function tools.expire_all(ttl_ms)
    for index = 1, 8 do
      if ttl_ms then call('PEXPIRE', KEYS[index], ttl_ms) else call('PERSIST', KEYS[index]) end
    end
  end

  -- A key that came into being after the others must go when they go.
  function tools.share_expiry(thread)
    if thread.expires then
      local left = call('PTTL', META)
      if left > 0 then tools.expire_all(left) end
    end
  end

  function tools.wipe()
    call('UNLINK', unpack(KEYS, 1, 8))
    if RECENT then call('ZREM', RECENT, NAME) end
  end

  -- Where in the list the newest message that we know lies now, or -1.
  local function find_tail(thread, length)
    local index = math.min(length, thread.count) - 1
    while index >= 0 do
      local from = math.max(index - 99, 0)
      local chunk = call('LRANGE', LIST, from, index)
      for at = #chunk, 1, -1 do
        if fingerprint(chunk[at]) == thread.tail then return from + at - 1 end
      end
      index = from - 1
    end
    return -1
  end

  local function take_in(thread, from, length)
    tools.begin_run(thread)
    for start = from, length - 1, CHUNK do
      local facts = {}
      for _, payload in ipairs(call('LRANGE', LIST, start, math.min(start + CHUNK, length) - 1)) do
        facts[#facts + 1] = ',0,' .. #payload .. ',?'
        thread.size = thread.size + #payload
        thread.tail = fingerprint(payload)
      end
      call('RPUSH', FACTS, unpack(facts))
      thread.count = thread.count + #facts
      thread.next = thread.next + #facts
    end
  end

  -- Another program trimmed the list or pushed to it: what it dropped goes off the books, what it wrote gets positions.
  function tools.reconcile(thread, length)
    local tail = find_tail(thread, length)
    thread.shared = true
    tools.drop_facts(thread, thread.count - (tail + 1))
    if thread.count == 0 then thread.tail = '' end
    if thread.linked then tools.forget_links('-inf', '(' .. tools.head_of(thread)) end
    if length > tail + 1 then take_in(thread, tail + 1, length) end
    save(thread)
    tools.share_expiry(thread)
  end

  return tools
end

-- From now on the thread is forgotten at this time, or never if that is false.
local function save_with_expiry(thread, expires)
  local before = thread.expires
  thread.expires = expires
  save(thread)
  if expires or before then seldom().expire_all(expires and math.max(expires - NOW, 1)) end
end

-- The thread, or nil and a reply. Readers look at the newest message always, to see whether others wrote.
-- Of a list without meta, which others wrote, nothing is noted down here.
local function load(is_reader)
  local meta = call('HMGET', META, 'owner', 'state', 'tail')
  local length = call('LLEN', LIST)
  if not meta[1] then
    if length == 0 then return nil, { 1 } end
    local thread = new_thread()
    thread.foreign, thread.created, thread.updated = length, 0, 0
    return thread
  end
  if meta[1] ~= OWNER then return nil, { 3 } end
  local schema, next, count, dropped, shift, runs, size, created, updated, expires, revision, linked, titled, shared,
    ids, ids_count, most, ttl = cmsgpack.unpack(meta[2])
  if schema ~= SCHEMA and schema ~= WITH_OWN_RETENTION then return nil, { 4, schema } end
  if expires and expires <= NOW then
    seldom().wipe()
    return nil, { 1 }
  end
  local thread = { next = next, count = count, dropped = dropped, shift = shift, runs = runs, size = size,
    created = created, updated = updated, expires = expires, revision = revision, linked = linked, titled = titled,
    shared = shared, ids = ids, ids_count = ids_count, tail = meta[3],
    own = schema == WITH_OWN_RETENTION and { most = most, ttl = ttl } }
  -- Who trims and pushes may leave the length as it is; of threads that were never trimmed that is not expected.
  local is_suspect = length > 0 and (is_reader or dropped > 0 or shared)
  if length ~= count or (is_suspect and fingerprint(call('LINDEX', LIST, -1)) ~= thread.tail) then
    seldom().reconcile(thread, length)
  end
  return thread
end

-- The thread to write to: a new one if there is none and it may be made; a list that others wrote is taken over.
local function load_to_write(may_be_new)
  local thread, refusal = load()
  if refusal and not (may_be_new and refusal[1] == 1) then return nil, refusal end
  if not thread or thread.foreign then
    local length = thread and thread.foreign
    -- What a lost meta may have left behind would be taken for this thread's.
    call('UNLINK', unpack(KEYS, 2, 8))
    thread = new_thread()
    if length then seldom().reconcile(thread, length) end
  end
  return thread
end

-- For the reply: the index is then brought up to date by a call of its own.
local function apart(time)
  return not RECENT and time or nil
end

local function touch(thread)
  thread.updated = NOW
  if RECENT then call('ZADD', RECENT, NOW, NAME) end
end
