-- The thread's own retention, as JSON: {"max_messages": 100, "expire_after": "P30D"}. NULL: the store's retention.
-- Adding a column without a default writes no row, however large the file is.
ALTER TABLE threads ADD COLUMN retention TEXT;
