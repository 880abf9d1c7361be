-- The tables. "@" stands for the schema and the table prefix.

-- One row per thread. Its lock serializes the writers of a thread.
-- Identifiers are text that sorts by bytes; NUL, which PostgreSQL's text lacks, is escaped by the client.
CREATE TABLE @threads (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant      text COLLATE "C" NOT NULL,
    thread_id   text COLLATE "C" NOT NULL,
    head_seq    bigint NOT NULL DEFAULT 0,   -- oldest kept position; next_seq when nothing is kept
    next_seq    bigint NOT NULL DEFAULT 0,   -- never goes back
    count       bigint NOT NULL DEFAULT 0,
    size        bigint NOT NULL DEFAULT 0,   -- bytes of all payloads
    appends     bigint NOT NULL DEFAULT 0,   -- numbers the remembered append ids
    created_ms  bigint NOT NULL,             -- milliseconds since 1970, as all times here
    updated_ms  bigint NOT NULL,
    expires_ms  bigint,
    revision    bigint NOT NULL DEFAULT 0,
    title       text,
    metadata    text NOT NULL DEFAULT '{}',
    open_ids    bytea[] NOT NULL DEFAULT '{}',   -- tool calls without a result yet, oldest first
    open_at     bigint[] NOT NULL DEFAULT '{}',  -- and the position of each
    UNIQUE (tenant, thread_id)
) WITH (fillfactor = 80);

CREATE INDEX ON @threads (tenant, updated_ms, thread_id);
CREATE INDEX ON @threads (expires_ms) WHERE expires_ms IS NOT NULL;

-- One row per message. The payload is text and not jsonb, so that it is returned byte for byte.
CREATE TABLE @messages (
    thread     bigint NOT NULL,
    seq        bigint NOT NULL,
    turn       bigint NOT NULL,   -- position of the first message of its turn
    format     text NOT NULL,
    payload    text NOT NULL,
    created_ms bigint NOT NULL,
    tied_to    bigint,            -- the thread may not be cut between this position and the row's own
    search     tsvector,          -- null unless search is on
    PRIMARY KEY (thread, seq)
);

CREATE INDEX ON @messages (thread, seq) INCLUDE (tied_to) WHERE tied_to IS NOT NULL;
CREATE INDEX ON @messages USING gin (search) WHERE search IS NOT NULL;

-- The newest append ids of each thread, to recognize a repeated append even after its messages were trimmed.
CREATE TABLE @appends (
    thread    bigint NOT NULL,
    append_id text COLLATE "C" NOT NULL,
    number    bigint NOT NULL,
    first_seq bigint NOT NULL,
    next_seq  bigint NOT NULL,
    PRIMARY KEY (thread, append_id)
);

CREATE TABLE @documents (
    thread     bigint NOT NULL,
    name       text COLLATE "C" NOT NULL,
    value      text NOT NULL,
    revision   bigint NOT NULL,
    updated_ms bigint NOT NULL,
    PRIMARY KEY (thread, name)
);

-- Expired threads: readers no longer see their rows in the other tables; a purge deletes these.
CREATE TABLE @erased (thread bigint PRIMARY KEY);
