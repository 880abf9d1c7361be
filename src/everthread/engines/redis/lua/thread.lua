-- What every script begins with: the names, and one thread as it is on the server.
--
-- KEYS  1 messages (list)  2 meta (hash)  3 facts (list beside the messages)  4 spans (zset, score: where it ends)
--       5 open calls (zset, score: position)  6, 7 append ids (two generations of a hash)  8 documents (hash)
--       9 recency index of the tenant (zset, score: milliseconds); not there where it lies in another slot
-- ARGV  1 owner  2 milliseconds since 1970, or '' for the server's  3 thread id  4… the script's own
--
-- A reply begins with 0 (done), 1 (no such thread), 2 (conflict, then the actual value), 3 (another owner's)
-- or 4 (another schema, which follows).
local call = redis.call
local LIST, META, FACTS, SPANS, CALLS, DOCS, RECENT = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[8], KEYS[9]
local OWNER, NOW, NAME = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local SCHEMA = '1'
local CHUNK = 4000 -- unpack() and a command's arguments go through Lua's C stack, which holds 8,000

local function server_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
NOW = NOW or server_ms()

-- Lua writes numbers of more than 14 digits with an exponent.
local function whole(number)
  return string.format('%.0f', number)
end

-- Tells whether the newest message is still the one that was written here, without hashing all of it.
local function fingerprint(payload)
  local middle = math.floor(#payload / 2)
  return #payload .. ':' .. string.sub(payload, middle, middle + 23) .. string.sub(payload, -24)
end

-- Where a message lies in the list follows from its ordinal: how many messages were put before it, the dropped
-- heads included. Positions equal ordinals until a tail is dropped; each hole begins a run 'ordinal:position'.
local function seq_at(thread, index)
  local ordinal = thread.dropped + index
  local seq = ordinal
  for from, at in string.gmatch(thread.runs, '(%d+):(%d+)') do
    if tonumber(from) > ordinal then break end
    seq = tonumber(at) + ordinal - from
  end
  return seq
end

-- The lowest index whose position is at or above seq; the count if there is none.
local function index_from(thread, seq)
  local from, at, ordinal = 0, 0, nil
  for next_from, next_at in string.gmatch(thread.runs, '(%d+):(%d+)') do
    ordinal = from + math.max(seq - at, 0)
    if ordinal < tonumber(next_from) then break end
    from, at, ordinal = tonumber(next_from), tonumber(next_at), nil
  end
  ordinal = ordinal or from + math.max(seq - at, 0)
  return math.min(math.max(ordinal - thread.dropped, 0), thread.count)
end

local function head_of(thread)
  return thread.count > 0 and seq_at(thread, 0) or thread.next
end

-- Makes the next message's position follow from its ordinal, after a hole.
local function begin_run(thread)
  local ordinal = thread.dropped + thread.count
  if thread.next ~= ordinal + thread.shift then
    thread.runs = thread.runs .. whole(ordinal) .. ':' .. whole(thread.next) .. ' '
    thread.shift = thread.next - ordinal
  end
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

-- A fact is 'milliseconds,offset in its turn,bytes,format'; of what others wrote only the bytes are known.
local function bytes_of(facts)
  local bytes = 0
  for _, fact in ipairs(facts or {}) do
    bytes = bytes + (tonumber(string.match(fact, '^%-?%d*,%d*,(%d+)')) or 0)
  end
  return bytes
end

local function forget_links(from, to)
  call('ZREMRANGEBYSCORE', SPANS, from, to)
  call('ZREMRANGEBYSCORE', CALLS, from, to)
end

local function drop_facts(thread, index)
  if index > 0 then
    thread.size = thread.size - bytes_of(call('LPOP', FACTS, index))
    thread.dropped = thread.dropped + index
    thread.count = thread.count - index
    if thread.runs ~= '' then prune_runs(thread) end
  end
end

-- The span that a cut would go through: where it begins and ends.
local function span_around(thread, cut)
  if not thread.linked then return nil end
  local found = call('ZRANGEBYSCORE', SPANS, whole(cut), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  local from = tonumber(found[1])
  if from and from < cut then return from, tonumber(found[2]) end
  return nil
end

local function safe_start(thread, cut)
  local _, to = span_around(thread, cut)
  return to and to + 1 or cut
end

local function drop_head(thread, cut)
  if cut <= head_of(thread) then return end
  local seq = safe_start(thread, cut)
  local index = index_from(thread, seq)
  if index > 0 then
    call('LTRIM', LIST, index, -1)
    drop_facts(thread, index)
  end
  if thread.linked then forget_links('-inf', '(' .. whole(seq)) end
end

local function safe_stop(thread, cut)
  return span_around(thread, cut) or cut
end

local function expire_all(ttl_ms)
  for index = 1, 8 do
    if ttl_ms then call('PEXPIRE', KEYS[index], whole(ttl_ms)) else call('PERSIST', KEYS[index]) end
  end
end

-- A key that came into being after the others must go when they go.
local function share_expiry(thread)
  if thread.expires then
    local left = call('PTTL', META)
    if left > 0 then expire_all(left) end
  end
end

local function save(thread)
  call('HSET', META, 'owner', OWNER, 'schema', SCHEMA, 'next', whole(thread.next), 'count', thread.count,
    'dropped', whole(thread.dropped), 'shift', whole(thread.shift), 'runs', thread.runs, 'size', whole(thread.size),
    'tail', thread.tail, 'created', whole(thread.created), 'updated', whole(thread.updated),
    'linked', thread.linked and '1' or '', 'ids', thread.ids, 'ids_count', thread.ids_count)
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
  begin_run(thread)
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

-- Another program trimmed the list or pushed to it: what it dropped goes from the books, what it wrote gets positions.
local function reconcile(thread, length)
  local tail = find_tail(thread, length)
  drop_facts(thread, thread.count - (tail + 1))
  if thread.count == 0 then thread.tail = '' end
  if thread.linked then forget_links('-inf', '(' .. whole(head_of(thread))) end
  if length > tail + 1 then take_in(thread, tail + 1, length) end
  save(thread)
  share_expiry(thread)
end

local function new_thread()
  return { next = 0, count = 0, dropped = 0, shift = 0, runs = '', size = 0, tail = '', ids = 1, ids_count = 0,
    created = NOW, updated = NOW, revision = 0, is_new = true }
end

local function wipe()
  call('UNLINK', unpack(KEYS, 1, 8))
  if RECENT then call('ZREM', RECENT, NAME) end
end

-- The thread, or nil and a reply. Of a list without meta, which others wrote, nothing is noted down here.
local function load()
  local f = call('HMGET', META, 'owner', 'schema', 'next', 'count', 'dropped', 'shift', 'runs', 'size', 'tail',
    'ids', 'ids_count', 'created', 'updated', 'expires', 'revision', 'title', 'metadata', 'linked')
  local length = call('LLEN', LIST)
  if not f[1] then
    if length == 0 then return nil, { 1 } end
    local thread = new_thread()
    thread.foreign, thread.created, thread.updated = length, 0, 0
    return thread
  end
  if f[1] ~= OWNER then return nil, { 3 } end
  if f[2] ~= SCHEMA then return nil, { 4, f[2] } end
  local expires = tonumber(f[14])
  if expires and expires <= NOW then
    wipe()
    return nil, { 1 }
  end
  local thread = { next = tonumber(f[3]), count = tonumber(f[4]), dropped = tonumber(f[5]), shift = tonumber(f[6]),
    runs = f[7], size = tonumber(f[8]), tail = f[9], ids = tonumber(f[10] or 1), ids_count = tonumber(f[11] or 0),
    created = tonumber(f[12]), updated = tonumber(f[13]), expires = expires, revision = tonumber(f[15] or 0),
    title = f[16], metadata = f[17], linked = f[18] == '1' }
  if length ~= thread.count or (length > 0 and fingerprint(call('LINDEX', LIST, -1)) ~= thread.tail) then
    reconcile(thread, length)
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
    if length then take_in(thread, 0, length) end
  end
  return thread
end

local function touch(thread)
  thread.updated = NOW
  if RECENT then call('ZADD', RECENT, whole(NOW), NAME) end
end

local function optional(value)
  return value and '=' .. value or ''
end

-- The reply that says what is known of a thread.
local function describe(thread)
  if thread.foreign then
    thread.count, thread.next = thread.foreign, thread.foreign
    for start = 0, thread.count - 1, CHUNK do
      for _, payload in ipairs(call('LRANGE', LIST, start, start + CHUNK - 1)) do
        thread.size = thread.size + #payload
      end
    end
  end
  return { 0, head_of(thread), thread.next, thread.count, thread.size, thread.created, thread.updated,
    thread.revision, thread.expires or -1, optional(thread.title), optional(thread.metadata) }
end
