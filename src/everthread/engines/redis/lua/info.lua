-- Runs INFO. Runs alone, without thread.lua.
--
-- Reply: the text, or '' if this user may not run it
local text = redis.pcall('INFO')
return type(text) == 'string' and text or ''
