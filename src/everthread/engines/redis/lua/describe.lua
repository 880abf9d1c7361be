
local function optional(value)
  return value and '=' .. value or ''
end

-- Returns the reply of get.lua.
local function describe(thread)
  if thread.foreign then
    thread.count, thread.next = thread.foreign, thread.foreign
    for start = 0, thread.count - 1, CHUNK do
      for _, payload in ipairs(call('LRANGE', LIST, start, start + CHUNK - 1)) do
        thread.size = thread.size + #payload
      end
    end
  end
  local texts = call('HMGET', META, 'title', 'metadata')
  return { 0, seldom().head_of(thread), thread.next, thread.count, thread.size, thread.created, thread.updated,
    thread.revision, thread.expires or -1, optional(texts[1]), optional(texts[2]),
    thread.own and thread.own.most .. ',' .. thread.own.ttl or '' }
end

-- Returns the same and deletes the thread if its new expiry is in the past.
local function describe_and_expire(thread)
  local reply = describe(thread)
  if thread.expires and thread.expires <= NOW then seldom().wipe() end
  return reply
end
