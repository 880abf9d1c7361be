-- The words of messages, by messages.id; empty until somebody searches. Each word stands there as it is compared:
-- without capitals and accents, ideographs one by one. tenant is one word for the tenant, which narrows a search.
-- The words are kept here too (not only in the index), because SQLite before 3.43 cannot otherwise remove them.
CREATE VIRTUAL TABLE message_words USING fts5 (tenant, words, tokenize = 'ascii');

-- Its one row is there from the first search on: then every append brings its words along, and the messages from
-- before, up to the id upto, follow a few at a time, so far up to indexed_to.
CREATE TABLE search_index (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    indexed_to INTEGER NOT NULL,
    upto INTEGER NOT NULL
);

CREATE TRIGGER forget_words AFTER DELETE ON messages WHEN EXISTS (SELECT 1 FROM search_index WHERE id = 1)
BEGIN
    DELETE FROM message_words WHERE rowid = OLD.id;
END;
