-- Reply {0, names}
local _, refusal = load()
if refusal then return refusal end
return { 0, call('HKEYS', DOCS) }
