-- One row per thread. Each write updates count and size (bytes of payload); reads never count.
-- IDs are never used again (AUTOINCREMENT), so a new thread never gets the remaining rows of a deleted one.
CREATE TABLE threads (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    head_seq INTEGER NOT NULL,
    next_seq INTEGER NOT NULL,
    count INTEGER NOT NULL,
    size INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    title TEXT,
    revision INTEGER NOT NULL DEFAULT 0,
    appends INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant, thread_id)
);

CREATE INDEX threads_by_activity ON threads (tenant, updated_ms, thread_id);

CREATE INDEX threads_by_expiry ON threads (expires_ms) WHERE expires_ms IS NOT NULL;

-- In a separate table, because every append writes the whole row of the thread.
CREATE TABLE metadata (
    thread INTEGER PRIMARY KEY,
    value BLOB NOT NULL
);

-- turn is the position of the first message of the same append. tied is 1 if the thread must not be cut just before the
-- message: a tool call in the same append, or in the last message before that append, has its result here or later.
-- Rows of all threads are in the order of insertion, so that new rows fill the last page. If they were sorted by
-- thread, each turn would split a page in the middle (measured: four times as expensive with 64 threads per
-- transaction).
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    thread INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    tied INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    format TEXT NOT NULL,
    payload BLOB NOT NULL,
    UNIQUE (thread, seq)
);

-- The results of the newest appends, by append ID, to recognize a repeat. threads.appends counts them.
CREATE TABLE appends (
    thread INTEGER NOT NULL,
    append_id TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    next_seq INTEGER NOT NULL,
    PRIMARY KEY (thread, append_id)
) WITHOUT ROWID;

-- A tool call at lo and its result at hi, in a later append: the thread is not cut between them.
CREATE TABLE spans (
    thread INTEGER NOT NULL,
    hi INTEGER NOT NULL,
    lo INTEGER NOT NULL,
    PRIMARY KEY (thread, hi)
) WITHOUT ROWID;

-- Tool calls without a result yet; the newest have the highest id.
CREATE TABLE open_calls (
    id INTEGER PRIMARY KEY,
    thread INTEGER NOT NULL,
    call_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    UNIQUE (thread, call_id)
);

CREATE TABLE documents (
    id INTEGER PRIMARY KEY,
    thread INTEGER NOT NULL,
    name TEXT NOT NULL,
    value BLOB NOT NULL,
    revision INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    UNIQUE (thread, name)
);

-- IDs of deleted and expired threads that still have rows in other tables. Writes remove these a few at a time.
CREATE TABLE garbage (
    thread INTEGER PRIMARY KEY
);

-- For people with a shell.
CREATE VIEW readable_messages AS
SELECT
    threads.tenant,
    threads.thread_id,
    messages.seq,
    datetime(messages.created_ms / 1000, 'unixepoch') AS created,
    messages.format,
    CAST(messages.payload AS TEXT) AS payload
FROM threads
JOIN messages ON messages.thread = threads.id;
