-- What the server tells of itself.
--
-- Reply {0, the text of INFO, or '' where this user may not ask}
local text = redis.pcall('INFO')
return { 0, type(text) == 'string' and text or '' }
