-- A thread's own retention, and the language in which a message is indexed.
-- (Versions 2 and 3 created functions, which each migration now creates again: see the folder functions.)

ALTER TABLE @threads
    ADD COLUMN has_retention boolean NOT NULL DEFAULT false,
    ADD COLUMN own_most      bigint,   -- maximum number of messages; null: no limit
    ADD COLUMN own_expire    bigint;   -- milliseconds after the last activity; null: never

ALTER TABLE @messages ADD COLUMN search_language text;  -- null if it is not indexed
