-- Replaces payloads that have not changed since they were read.
-- ARGV  4, 5, 6 and so on by threes: position, payload that was read, new payload
-- Reply {0, number of replaced payloads}
require_usable({}, 'LSET')
local thread, refusal = load_to_write(false)
if refusal then return refusal end
local tools, done = seldom(), 0
for at = 4, #ARGV, 3 do
  local seq, old, new = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2]
  local index = tools.index_from(thread, seq)
  if index < thread.count and tools.seq_at(thread, index) == seq and call('LINDEX', LIST, index) == old then
    call('LSET', LIST, index, new)
    -- Facts are indexed from the tail, where they are complete also after an eviction.
    local back = index - thread.count
    local fact = call('LINDEX', FACTS, back) or ''
    local created, offset, bytes, format = string.match(fact, '^(%-?%d*),(%d*),(%d+),(.*)$')
    if bytes then
      call('LSET', FACTS, back, created .. ',' .. offset .. ',' .. #new .. ',' .. format)
      thread.size = thread.size + #new - bytes
    end
    if back == -1 then thread.tail = fingerprint(new) end
    done = done + 1
  end
end
if done > 0 then save(thread) end
return { 0, done }
