-- One row a thread. count and size (bytes of payload) are kept up to date, never counted.
-- Ids are not given twice (AUTOINCREMENT), so what is left of a deleted thread never meets a new one.
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

-- Apart from the thread, whose row every append writes anew.
CREATE TABLE metadata (
    thread INTEGER PRIMARY KEY,
    value BLOB NOT NULL
);

-- turn is the position of the first message of the same append. tied is 1 where the thread is not to be
-- cut just before the message: a tool call before it, in the same append or at its end, has its result
-- here or after it. Rows lie in the order in which they
-- came, of all threads: new ones fill the last page, where rows that lay by thread would split a page
-- in the middle with every turn (measured: four times dearer with 64 threads a transaction).
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

-- What the newest appends did, by append id, so that a repeat is recognised. threads.appends counts them.
CREATE TABLE appends (
    thread INTEGER NOT NULL,
    append_id TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    next_seq INTEGER NOT NULL,
    PRIMARY KEY (thread, append_id)
) WITHOUT ROWID;

-- A tool call at lo and its result at hi, in an append of its own: the thread is not cut between them.
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

-- Ids of deleted and expired threads whose rows elsewhere are yet to be removed, a few at a time.
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
