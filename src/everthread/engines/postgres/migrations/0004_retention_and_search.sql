-- A thread's own retention, and in which language the words of a message were taken.
-- (Versions 2 and 3 made functions, which are now made anew with each version: see the folder beside.)

ALTER TABLE @threads
    ADD COLUMN has_retention boolean NOT NULL DEFAULT false,
    ADD COLUMN own_most      bigint,   -- at most so many messages; null: no limit
    ADD COLUMN own_expire    bigint;   -- milliseconds after the last activity; null: never

ALTER TABLE @messages ADD COLUMN search_language text;  -- null where no words were taken
