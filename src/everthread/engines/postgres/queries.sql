-- Every statement that runs on an open store. "@" stands for the schema and the table prefix.
-- The time in milliseconds is null where the server's clock is to be used. The columns of a thread always have one order.

-- name: append
-- Writes a batch of turns of different threads.
SELECT turn, outcome, first_seq, next_seq FROM @append(
    $1, 0, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25);

-- name: append_one
-- Writes one turn without links to other turns.
SELECT @append_one($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12);

-- name: append_rounds
-- Writes a batch of turns of which several are of one thread.
SELECT turn, outcome, first_seq, next_seq FROM @append_rounds(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25,
    $26, $27);

-- name: read
-- The oldest messages in a range of positions; one row without a message if a thread has none there.
SELECT t.head_seq, t.next_seq, m.seq, m.payload, m.format, m.created_ms, m.turn
FROM @threads t LEFT JOIN LATERAL (
    SELECT seq, convert_to(payload, 'UTF8') AS payload, format, created_ms, turn
    FROM @messages WHERE thread = t.id AND seq >= greatest($3, t.head_seq) AND seq < $4
    ORDER BY seq LIMIT $5
) m ON true
WHERE t.tenant = $1 AND t.thread_id = $2 AND (t.expires_ms IS NULL OR t.expires_ms > @now($6));

-- name: read_last
-- The newest messages below a position; one row without a message if a thread has none there.
SELECT t.head_seq, t.next_seq, m.seq, m.payload, m.format, m.created_ms, m.turn
FROM @threads t LEFT JOIN LATERAL (
    SELECT seq, convert_to(payload, 'UTF8') AS payload, format, created_ms, turn
    FROM @messages WHERE thread = t.id AND seq >= t.head_seq AND seq < $3
    ORDER BY seq DESC LIMIT $4
) m ON true
WHERE t.tenant = $1 AND t.thread_id = $2 AND (t.expires_ms IS NULL OR t.expires_ms > @now($5));

-- name: truncate
-- Drops the head, the tail or both.
SELECT removed, head_seq, next_seq FROM @truncate($1, $2, $3, $4, $5);

-- name: get_thread
-- A live thread.
SELECT thread_id, head_seq, next_seq, count, size, created_ms, updated_ms, title, metadata, revision, expires_ms
FROM @threads
WHERE tenant = $1 AND thread_id = $2 AND (expires_ms IS NULL OR expires_ms > @now($3));

-- name: list_first
-- The first page of a tenant's live threads, the newest activity first.
SELECT thread_id, head_seq, next_seq, count, size, created_ms, updated_ms, title, metadata, revision, expires_ms
FROM @threads
WHERE tenant = $1 AND (expires_ms IS NULL OR expires_ms > @now($2))
ORDER BY updated_ms DESC, thread_id DESC LIMIT $3;

-- name: list_after
-- The page that follows a thread's time and id.
SELECT thread_id, head_seq, next_seq, count, size, created_ms, updated_ms, title, metadata, revision, expires_ms
FROM @threads
WHERE tenant = $1 AND (expires_ms IS NULL OR expires_ms > @now($2)) AND (updated_ms, thread_id) < ($4, $5)
ORDER BY updated_ms DESC, thread_id DESC LIMIT $3;

-- name: update_thread
-- Sets title and metadata (null leaves them) of a live thread that has the expected revision (null: any).
UPDATE @threads SET title = coalesce($4, title), metadata = coalesce($5, metadata), revision = revision + 1
WHERE tenant = $1 AND thread_id = $2 AND (expires_ms IS NULL OR expires_ms > @now($3))
    AND ($6::bigint IS NULL OR revision = $6)
RETURNING thread_id, head_seq, next_seq, count, size, created_ms, updated_ms, title, metadata, revision, expires_ms;

-- name: delete_thread
-- Forgets a thread; says whether there was a live one.
SELECT @delete_thread($1, $2, $3);

-- name: delete_tenant
-- Forgets some threads of a tenant, after one and in the order of their ids.
SELECT lived, last_thread FROM @delete_tenant($1, $2, $3, $4);

-- name: get_document
-- A document of a live thread.
SELECT convert_to(d.value, 'UTF8') AS value, d.revision, d.updated_ms
FROM @threads t JOIN @documents d ON d.thread = t.id
WHERE t.tenant = $1 AND t.thread_id = $2 AND (t.expires_ms IS NULL OR t.expires_ms > @now($3)) AND d.name = $4;

-- name: put_document
-- Writes a document if it has the expected revision (null: any).
SELECT written, revision, updated_ms FROM @put_document($1, $2, $3, $4, $5, $6);

-- name: delete_document
-- Forgets a document of a live thread.
DELETE FROM @documents WHERE name = $4 AND thread = (
    SELECT id FROM @threads
    WHERE tenant = $1 AND thread_id = $2 AND (expires_ms IS NULL OR expires_ms > @now($3)))
RETURNING true;

-- name: list_documents
-- The names of a live thread's documents, sorted.
SELECT d.name FROM @threads t JOIN @documents d ON d.thread = t.id
WHERE t.tenant = $1 AND t.thread_id = $2 AND (t.expires_ms IS NULL OR t.expires_ms > @now($3))
ORDER BY d.name;

-- name: purge
-- Removes a bounded part of what expired; says whether there may be more.
SELECT @purge($1, $2);

-- name: search
-- Messages of a tenant that match, the newest first, after one.
SELECT t.thread_id, m.thread, m.seq, m.created_ms, m.format, convert_to(m.payload, 'UTF8') AS payload
FROM @messages m JOIN @threads t ON t.id = m.thread
WHERE numnode(websearch_to_tsquery($3::regconfig, $2)) > 0 AND m.search IS NOT NULL
    AND m.search @@ (websearch_to_tsquery($3::regconfig, $2) && @mark($1)::tsquery)
    AND t.tenant = $1 AND (t.expires_ms IS NULL OR t.expires_ms > @now($4))
    AND (m.created_ms, m.thread, m.seq) < ($6, $7, $8)
ORDER BY m.created_ms DESC, m.thread DESC, m.seq DESC LIMIT $5;

-- name: schema_version
-- The newest migration that has been applied.
SELECT max(version) FROM @migrations;
