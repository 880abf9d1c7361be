-- What the thread itself forgets, as JSON: {"max_messages": 100, "expire_after": "P30D"}. NULL: what the store does.
-- A column without a default is added without touching a row, however large the file is.
ALTER TABLE threads ADD COLUMN retention TEXT;
