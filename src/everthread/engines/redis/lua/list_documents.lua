-- ARGV  4 prefix  5 lowest name  6 limit or ''. Reply {0, names}
--
-- Walks all names, and replies with those of the range, in any order. Selecting the lowest ones costs more than sending
-- all of them, except for a few: of 5,000 names, the lowest takes 1.5 ms, the lowest 200 take 8, and sending all 0.8.
-- They are compared by bytes, because Lua's own order of strings follows the locale of the server.
local _, refusal = load()
if refusal then return refusal end
local PREFIX, START, LIMIT = ARGV[4], ARGV[5], tonumber(ARGV[6])
if not LIMIT or LIMIT > 16 then LIMIT = math.huge end
local LENGTH, byte = #PREFIX, string.byte

-- Names often differ late: eight bytes at a time, because a call costs more than the comparisons.
local function is_below(one, other)
  for at = LENGTH + 1, math.min(#one, #other), 8 do
    local a, b, c, d, e, f, g, h = byte(one, at, at + 7)
    local i, j, k, l, m, n, o, p = byte(other, at, at + 7)
    if a ~= i then return a < i end
    if b ~= j then return (b or -1) < (j or -1) end
    if c ~= k then return (c or -1) < (k or -1) end
    if d ~= l then return (d or -1) < (l or -1) end
    if e ~= m then return (e or -1) < (m or -1) end
    if f ~= n then return (f or -1) < (n or -1) end
    if g ~= o then return (g or -1) < (o or -1) end
    if h ~= p then return (h or -1) < (p or -1) end
  end
  return #one < #other
end

local found = {}
if LIMIT == 0 then return { 0, found } end
for _, name in ipairs(call('HKEYS', DOCS)) do
  if sub(name, 1, LENGTH) == PREFIX and not is_below(name, START) then
    if LIMIT == math.huge then
      found[#found + 1] = name
    elseif #found < LIMIT or is_below(name, found[LIMIT]) then
      local low, high = 1, #found + 1
      while low < high do
        local middle = math.floor((low + high) / 2)
        if is_below(found[middle], name) then low = middle + 1 else high = middle end
      end
      table.insert(found, low, name)
      found[LIMIT + 1] = nil
    end
  end
end
return { 0, found }
