-- The words of messages, by messages.id; empty until the first search. Words are stored in the form that is compared:
-- without capitals and accents, ideographs one by one. tenant is one word for the tenant, which narrows a search.
-- The words are also stored here (not only in the index), because SQLite before 3.43 cannot otherwise remove them.
CREATE VIRTUAL TABLE message_words USING fts5 (tenant, words, tokenize = 'ascii');

-- Has one row after the first search. From then on, every append indexes its words. Older messages, up to the ID upto,
-- are indexed a few at a time; the last indexed one is indexed_to.
CREATE TABLE search_index (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    indexed_to INTEGER NOT NULL,
    upto INTEGER NOT NULL
);

CREATE TRIGGER forget_words AFTER DELETE ON messages WHEN EXISTS (SELECT 1 FROM search_index WHERE id = 1)
BEGIN
    DELETE FROM message_words WHERE rowid = OLD.id;
END;
