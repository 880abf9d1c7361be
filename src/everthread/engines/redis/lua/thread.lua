-- The beginning of every script on a thread: the names of the keys, and the state of the thread.
--
-- KEYS  1 messages (list)  2 meta (hash)  3 facts (list, one for each message)  4 spans (zset, score: where it ends)
--       5 open calls (zset, score: position)  6, 7 append ids (two generations of a hash)  8 documents (hash)
--       9 runs (zset, score: ordinal), if there are many
--       10 recency index of the tenant (zset, score: milliseconds), unless it is in another slot
-- ARGV  1 owner  2 milliseconds since 1970, or '' for the server's time; after 'r' if the script may not write
--       3 thread ID  4… the script's own arguments
--
-- A reply begins with 0 (done), 1 (no such thread), 2 (conflict, then the actual value), 3 (another owner)
-- or 4 (another schema, then its number).
--
-- Measured: a command takes about 0.5 µs, a field of HMGET 0.2, converting a number to text 0.3, and defining and
-- freeing a function 0.2. So the numbers of a thread are one packed field, numbers go into commands without conversion,
-- and `seldom` makes the functions that few calls need (an append takes 36 µs instead of 39).
local call, sub = redis.call, string.sub
local LIST, META, FACTS, SPANS, CALLS, DOCS, RUNS, RECENT = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[8],
  KEYS[9], KEYS[10]
local OWNER, NOW, NAME = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local READ_ONLY = sub(ARGV[2], 1, 1) == 'r'
-- Each of these adds to the schema, so that an older version refuses the thread instead of losing the data.
local SCHEMA, OWN_RETENTION, SCATTERED = 1, 1, 2
local MAX_IN_STATE = 250 -- bytes of runs (20 to 40 of them), which every call reads; RUNS holds more
local CHUNK = 4000 -- Lua's C stack holds 8,000 values of unpack() and of a command's arguments

if READ_ONLY then NOW = tonumber(sub(ARGV[2], 2)) end
if not NOW then
  local time = call('TIME')
  NOW = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Identifies the newest message without a hash of all of it.
local function fingerprint(payload)
  local middle = math.floor(#payload / 2)
  return sub(payload, middle, middle + 23) .. sub(payload, -24)
end

-- Raises an error if a key (by its index) has another type, or if the user may not run a command. The server does not
-- undo the writes of a script that fails, so scripts call this first. Before Redis 7, they cannot check rights.
local function require_usable(indexes, ...)
  local probes = { 'LINDEX', 'HGET', 'LINDEX', 'ZSCORE', 'ZSCORE', 'HGET', 'HGET', 'HGET', 'ZSCORE', 'ZSCORE' }
  for _, index in ipairs(indexes) do
    if KEYS[index] then call(probes[index], KEYS[index], 0) end
  end
  for _, command in ipairs(redis.acl_check_cmd and { ... } or {}) do
    if not redis.acl_check_cmd(command, META, META, META) then
      error("NOPERM this user has no permissions to run the '" .. string.lower(command) .. "' command", 0)
    end
  end
end

local function require_all_usable()
  require_usable({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, 'HSET', 'HDEL', 'RPUSH', 'LPUSH', 'LTRIM', 'LPOP', 'RPOP', 'ZADD',
    'ZREM', 'ZREMRANGEBYSCORE', 'ZREMRANGEBYRANK', 'PEXPIRE', 'PERSIST', 'PTTL', 'UNLINK', 'LRANGE', 'LINDEX', 'ZCOUNT',
    'ZREVRANGE', 'ZRANGEBYSCORE')
end

local function save(thread)
  local own = thread.own
  local schema = SCHEMA + (own and OWN_RETENTION or 0) + (thread.scattered and SCATTERED or 0)
  local state = cmsgpack.pack(schema, thread.next, thread.count,
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

  -- The ordinal of a message is the number of messages before it, dropped heads included; it gives the index in the
  -- list. Positions equal ordinals until a tail is dropped; after each hole, a run 'ordinal:position' begins.
  -- If there are many runs, they are scattered: RUNS holds them. This is the last one that begins by an ordinal.
  local function run_at(ordinal)
    local later = call('ZCOUNT', RUNS, '(' .. ordinal, '+inf')
    return string.match(call('ZREVRANGE', RUNS, later, later)[1] or '0:0', '(%d+):(%d+)')
  end

  function tools.seq_at(thread, index)
    local ordinal = thread.dropped + index
    if thread.scattered then
      local from, at = run_at(ordinal)
      return tonumber(at) + ordinal - from
    end
    local seq = ordinal
    for from, at in string.gmatch(thread.runs, '(%d+):(%d+)') do
      if tonumber(from) > ordinal then break end
      seq = tonumber(at) + ordinal - from
    end
    return seq
  end

  -- The ordinal of the lowest position from seq on. Ranks count from the newest run; this is a binary search.
  local function ordinal_among_scattered(seq)
    local function run(rank) return string.match(call('ZREVRANGE', RUNS, rank, rank)[1] or '0:0', '(%d+):(%d+)') end
    local low, high = 0, call('ZCOUNT', RUNS, '-inf', '+inf')
    while low < high do
      local middle = math.floor((low + high) / 2)
      local _, at = run(middle)
      if tonumber(at) <= seq then high = middle else low = middle + 1 end
    end
    local from, at = run(low)
    local ordinal = from + math.max(seq - at, 0)
    return low > 0 and math.min(ordinal, tonumber((run(low - 1)))) or ordinal
  end

  local function ordinal_of(thread, seq)
    if thread.scattered then return ordinal_among_scattered(seq) end
    local from, at = 0, 0
    for next_from, next_at in string.gmatch(thread.runs, '(%d+):(%d+)') do
      local ordinal = from + math.max(seq - at, 0)
      if ordinal < tonumber(next_from) then return ordinal end
      from, at = tonumber(next_from), tonumber(next_at)
    end
    return from + math.max(seq - at, 0)
  end

  -- The lowest index with a position of at least seq, or the count.
  function tools.index_from(thread, seq)
    return math.min(math.max(ordinal_of(thread, seq) - thread.dropped, 0), thread.count)
  end

  function tools.head_of(thread)
    return thread.count > 0 and tools.seq_at(thread, 0) or thread.next
  end

  -- Begins a run if the next message comes after a hole.
  function tools.begin_run(thread)
    local ordinal = thread.dropped + thread.count
    if thread.next == ordinal + thread.shift then return end
    thread.shift = thread.next - ordinal
    thread.runs = thread.runs .. ordinal .. ':' .. thread.next .. ' '
    if thread.scattered or #thread.runs > MAX_IN_STATE then
      for run, from in string.gmatch(thread.runs, '((%d+):%d+)') do call('ZADD', RUNS, from, run) end
      thread.runs, thread.scattered = '', true
    end
  end

  -- After runs were removed from RUNS: moves the last one back to the state.
  local function gather_runs(thread)
    local left = call('ZREVRANGE', RUNS, 0, 1)
    if #left > 1 then return end
    thread.runs, thread.scattered = left[1] and left[1] .. ' ' or '', false
    call('UNLINK', RUNS)
  end

  -- Removes the runs of a dropped tail.
  function tools.drop_late_runs(thread)
    local stop, last = thread.dropped + thread.count, nil
    if thread.scattered then
      call('ZREMRANGEBYSCORE', RUNS, stop, '+inf')
      last = call('ZREVRANGE', RUNS, 0, 0)[1]
      gather_runs(thread)
    else
      local kept = ''
      for run, from in string.gmatch(thread.runs, '((%d+):%d+)') do
        if tonumber(from) >= stop then break end
        kept, last = kept .. run .. ' ', run
      end
      thread.runs = kept
    end
    local from, at = string.match(last or '0:0', '(%d+):(%d+)')
    thread.shift = at - from
  end

  -- A fact is 'milliseconds,offset in its turn,bytes,format'; of other programs' messages, only the bytes are known.
  function tools.bytes_of(facts)
    local bytes = 0
    for _, fact in ipairs(facts or {}) do
      bytes = bytes + (tonumber(string.match(fact, '^%-?%d*,%d*,(%d+)')) or 0)
    end
    return bytes
  end

  function tools.drop_links(from, to)
    call('ZREMRANGEBYSCORE', SPANS, from, to)
    call('ZREMRANGEBYSCORE', CALLS, from, to)
  end

  local function prune_runs(thread)
    if thread.scattered then
      local later = call('ZCOUNT', RUNS, '(' .. thread.dropped, '+inf')
      call('ZREMRANGEBYRANK', RUNS, 0, -later - 2)
      return gather_runs(thread)
    end
    local kept, last = '', nil
    for run, from in string.gmatch(thread.runs, '((%d+):%d+)') do
      if tonumber(from) <= thread.dropped then last = run .. ' ' else kept = kept .. run .. ' ' end
    end
    thread.runs = (last or '') .. kept
  end

  -- The runs of some messages, in the form of the state.
  function tools.runs_of(thread, first, last)
    if not thread.scattered then return thread.runs end
    local found, runs = call('ZREVRANGE', RUNS, call('ZCOUNT', RUNS, '(' .. last, '+inf'),
      call('ZCOUNT', RUNS, '(' .. first, '+inf')), {}
    for at = #found, 1, -1 do runs[#runs + 1] = found[at] end
    return table.concat(runs, ' ')
  end

  -- Removes the facts and runs of the oldest messages.
  function tools.drop_facts(thread, index)
    if index > 0 then
      local facts = READ_ONLY and call('LRANGE', FACTS, 0, index - 1) or call('LPOP', FACTS, index)
      thread.size = thread.size - tools.bytes_of(facts)
      thread.dropped = thread.dropped + index
      thread.count = thread.count - index
      if thread.scattered or thread.runs ~= '' then prune_runs(thread) end
    end
  end

  -- The beginning and end of the span that a cut would divide.
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
    if thread.linked then tools.drop_links('-inf', '(' .. seq) end
  end

  function tools.expire_all(ttl_ms)
    for index = 1, 9 do
      if ttl_ms then call('PEXPIRE', KEYS[index], ttl_ms) else call('PERSIST', KEYS[index]) end
    end
  end

  -- Gives a new key the expiry of the others.
  function tools.share_expiry(thread)
    if thread.expires then
      local left = call('PTTL', META)
      if left > 0 then tools.expire_all(left) end
    end
  end

  function tools.wipe()
    require_usable({ 10 }, 'UNLINK', 'ZREM')
    call('UNLINK', unpack(KEYS, 1, 9))
    if RECENT then call('ZREM', RECENT, NAME) end
  end

  -- The index of the newest known message in the list, or -1.
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

  local function adopt(thread, from, length)
    tools.begin_run(thread)
    for start = from, length - 1, CHUNK do
      local facts = {}
      for _, payload in ipairs(call('LRANGE', LIST, start, math.min(start + CHUNK, length) - 1)) do
        facts[#facts + 1] = ',0,' .. #payload .. ',?'
        thread.size = thread.size + #payload
        thread.tail = fingerprint(payload)
      end
      if READ_ONLY then thread.unnoted = (thread.unnoted or 0) + #facts else call('RPUSH', FACTS, unpack(facts)) end
      thread.count = thread.count + #facts
      thread.next = thread.next + #facts
    end
  end

  -- Another program trimmed the list or pushed to it: drops the facts of messages that are gone, and numbers new ones.
  function tools.reconcile(thread, length)
    if not READ_ONLY then require_all_usable() end
    local tail = find_tail(thread, length)
    thread.shared = true
    tools.drop_facts(thread, thread.count - (tail + 1))
    if thread.count == 0 then thread.tail = '' end
    if READ_ONLY then
      if length > tail + 1 then adopt(thread, tail + 1, length) end
      return
    end
    if thread.linked then tools.drop_links('-inf', '(' .. tools.head_of(thread)) end
    if length > tail + 1 then adopt(thread, tail + 1, length) end
    save(thread)
    tools.share_expiry(thread)
  end

  return tools
end

-- Saves the thread and sets its expiry; `false` means never.
local function save_with_expiry(thread, expires)
  local before = thread.expires
  thread.expires = expires
  save(thread)
  if expires or before then seldom().expire_all(expires and math.max(expires - NOW, 1)) end
end

-- Returns the thread, or nil and a reply. Readers always compare the newest message, to notice other writers.
-- This writes nothing about a list without meta, which another program wrote.
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
  if schema > SCHEMA + OWN_RETENTION + SCATTERED then return nil, { 4, schema } end
  if expires and expires <= NOW then
    if not READ_ONLY then seldom().wipe() end
    return nil, { 1 }
  end
  local thread = { next = next, count = count, dropped = dropped, shift = shift, runs = runs, size = size,
    created = created, updated = updated, expires = expires, revision = revision, linked = linked, titled = titled,
    shared = shared, ids = ids, ids_count = ids_count, tail = meta[3],
    scattered = schema >= SCHEMA + SCATTERED, own = (schema - SCHEMA) % 2 == 1 and { most = most, ttl = ttl } }
  -- Another program may trim and push without a change of length. Only trimmed or shared threads are suspected.
  local is_suspect = length > 0 and (is_reader or dropped > 0 or shared)
  if length ~= count or (is_suspect and fingerprint(call('LINDEX', LIST, -1)) ~= thread.tail) then
    seldom().reconcile(thread, length)
  end
  return thread
end

-- Returns the thread to write to, or nil and a reply. Creates it if it may be new; adopts a list of another program.
local function load_to_write(may_be_new, checks_itself)
  if not checks_itself then require_all_usable() end
  local thread, refusal = load()
  if refusal and not (may_be_new and refusal[1] == 1) then return nil, refusal end
  if not thread or thread.foreign then
    local length = thread and thread.foreign
    -- If the meta was lost, the other companions are not of this thread.
    call('UNLINK', unpack(KEYS, 2, 9))
    thread = new_thread()
    if length then seldom().reconcile(thread, length) end
  end
  return thread
end

-- Returns a time for the reply if another call has to update the index.
local function apart(time)
  return not RECENT and time or nil
end

local function touch(thread)
  -- The clock may have been set back since the thread began.
  thread.updated = math.max(NOW, thread.created)
  if RECENT then call('ZADD', RECENT, thread.updated, NAME) end
end
