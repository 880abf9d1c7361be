-- Returns a thread without its messages.
--
-- Reply {0, head position, next position, count, bytes, created, updated, revision, expires or -1, title, metadata,
-- its own retention}: title and metadata are '' or '=' and the value, the last is '' or 'messages,milliseconds'.
local thread, refusal = load(true)
if refusal then
  -- A user who may only read does not change the index.
  if refusal[1] == 1 and RECENT and not READ_ONLY then redis.pcall('ZREM', RECENT, NAME) end
  return refusal
end
return describe(thread)
