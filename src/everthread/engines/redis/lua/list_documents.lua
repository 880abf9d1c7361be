-- ARGV  4 prefix  5 lowest name  6 limit or ''. Reply {0, names}
--
-- Walks all names, and replies with those of the range. They are compared by bytes: Lua's own order of strings follows
-- the locale of the server.
local _, refusal = load()
if refusal then return refusal end
local PREFIX, START, LIMIT = ARGV[4], ARGV[5], tonumber(ARGV[6]) or math.huge
local LENGTH, byte = #PREFIX, string.byte

local function is_below(one, other)
  for at = LENGTH + 1, math.min(#one, #other) do
    local a, b = byte(one, at), byte(other, at)
    if a ~= b then return a < b end
  end
  return #one < #other
end

local found = {}
if LIMIT == 0 then return { 0, found } end
for _, name in ipairs(call('HKEYS', DOCS)) do
  if sub(name, 1, LENGTH) == PREFIX and not is_below(name, START) then
    if LIMIT == math.huge then
      found[#found + 1] = name -- the client sorts them
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
