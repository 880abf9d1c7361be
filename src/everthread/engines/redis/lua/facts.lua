-- What the server tells of itself. Runs by itself.
--
-- Reply: the text of INFO, or '' where this user may not ask
local text = redis.pcall('INFO')
return type(text) == 'string' and text or ''
