-- Every statement that runs on an open store. "@" stands for the schema and the table prefix.
-- The time in milliseconds is null where the server's clock is to be used. The columns of a thread always have one order.

-- name: append
-- Writes a batch of turns of different threads.
SELECT turn, outcome, first_seq, next_seq FROM @append(
    $1, 0, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25,
    $26);

-- name: append_one
-- Writes one turn without links to other turns.
SELECT @append_one($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);

-- name: append_rounds
-- Writes a batch of turns of which several are of one thread.
SELECT turn, outcome, first_seq, next_seq FROM @append_rounds(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25,
    $26, $27, $28);

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
SELECT removed, head_seq, next_seq FROM @truncate($1, $2, $3, $4, $5, $6);

-- name: rewrite
-- Puts other payloads in the place of those that still are what was read.
SELECT @rewrite($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: formats
-- The formats of some messages of a live thread.
SELECT m.seq, m.format FROM @threads t JOIN @messages m ON m.thread = t.id
WHERE t.tenant = $1 AND t.thread_id = $2 AND (t.expires_ms IS NULL OR t.expires_ms > @now($3)) AND m.seq = ANY ($4);

-- name: get_thread
-- A live thread.
SELECT thread_id, head_seq, next_seq, count, size, created_ms, updated_ms, title, metadata, revision, expires_ms,
    has_retention, own_most, own_expire
FROM @threads
WHERE tenant = $1 AND thread_id = $2 AND (expires_ms IS NULL OR expires_ms > @now($3));

-- name: list_first
-- The first page of a tenant's live threads, the newest activity first.
SELECT thread_id, head_seq, next_seq, count, size, created_ms, updated_ms, title, metadata, revision, expires_ms,
    has_retention, own_most, own_expire
FROM @threads
WHERE tenant = $1 AND (expires_ms IS NULL OR expires_ms > @now($2))
ORDER BY updated_ms DESC, thread_id DESC LIMIT $3;

-- name: list_after
-- The page that follows a thread's time and id.
SELECT thread_id, head_seq, next_seq, count, size, created_ms, updated_ms, title, metadata, revision, expires_ms,
    has_retention, own_most, own_expire
FROM @threads
WHERE tenant = $1 AND (expires_ms IS NULL OR expires_ms > @now($2)) AND (updated_ms, thread_id) < ($4, $5)
ORDER BY updated_ms DESC, thread_id DESC LIMIT $3;

-- name: update_thread
-- Sets title and metadata (null leaves them) of a live thread that has the expected revision (null: any); and if $7 also
-- whether it has a retention of its own, which, and how long after its last activity it expires.
UPDATE @threads SET
    title = coalesce($4, title), metadata = coalesce($5, metadata), revision = revision + 1,
    has_retention = CASE WHEN $7 THEN $8 ELSE has_retention END,
    own_most = CASE WHEN $7 THEN $9 ELSE own_most END,
    own_expire = CASE WHEN $7 THEN $10 ELSE own_expire END,
    expires_ms = CASE WHEN $7 THEN updated_ms + $11 ELSE expires_ms END
WHERE tenant = $1 AND thread_id = $2 AND (expires_ms IS NULL OR expires_ms > @now($3))
    AND ($6::bigint IS NULL OR revision = $6)
RETURNING thread_id, head_seq, next_seq, count, size, created_ms, updated_ms, title, metadata, revision, expires_ms,
    has_retention, own_most, own_expire;

-- name: restore_times
-- Sets the times of a live thread, and moves its expiry with its last activity.
UPDATE @threads SET created_ms = $4, updated_ms = $5, expires_ms = expires_ms + ($5 - updated_ms)
WHERE tenant = $1 AND thread_id = $2 AND (expires_ms IS NULL OR expires_ms > @now($3))
RETURNING thread_id, head_seq, next_seq, count, size, created_ms, updated_ms, title, metadata, revision, expires_ms,
    has_retention, own_most, own_expire;

-- name: delete_thread
-- Forgets a thread; says whether there was a live one, or where it was kept since it has another next position.
SELECT lived, kept_at FROM @delete_thread($1, $2, $3, $4);

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
-- Messages of a tenant that match, the newest first, after one. Only of those that are shown is the payload read.
SELECT t.thread_id, m.thread, m.seq, m.created_ms, m.format, convert_to(m.payload, 'UTF8') AS payload
FROM (
    SELECT m.thread, m.seq FROM @messages m JOIN @threads t ON t.id = m.thread
    WHERE m.search IS NOT NULL AND m.search @@ @asked($3, $2, $1)
        AND t.tenant = $1 AND (t.expires_ms IS NULL OR t.expires_ms > @now($4))
        AND (m.created_ms, m.thread, m.seq) < ($6, $7, $8)
    ORDER BY m.created_ms DESC, m.thread DESC, m.seq DESC LIMIT $5
) AS newest
JOIN @messages m USING (thread, seq) JOIN @threads t ON t.id = m.thread
ORDER BY m.created_ms DESC, m.thread DESC, m.seq DESC;

-- name: unindexed
-- How many messages some threads have whose words are not in the index, or there in another language; and the position
-- after the last of them.
SELECT id, m.count, m.stop
FROM @threads_after($1), LATERAL (
    SELECT count(*) AS count, max(seq) + 1 AS stop FROM @messages
    WHERE thread = id AND search_language IS DISTINCT FROM $2
) AS m
ORDER BY id;

-- name: unindexed_messages
-- The next of them in a thread, below a position: at most 200, and of 8 MB unless it is one. The version tells whether it was changed.
SELECT seq, version, format, convert_to(payload, 'UTF8') AS payload FROM (
    SELECT *, sum(octet_length(payload)) OVER (ORDER BY seq) - octet_length(payload) AS bytes_before FROM (
        SELECT seq, xmin::text AS version, format, payload FROM @messages
        WHERE thread = $1 AND seq > $2 AND seq < $4 AND search_language IS DISTINCT FROM $3 ORDER BY seq LIMIT 200
    ) AS next_ones
) AS counted
WHERE bytes_before < 8388608 ORDER BY seq;

-- name: index_messages
-- Adds the words of messages that are still as they were read; waits for nobody who writes to them.
WITH free AS MATERIALIZED (
    SELECT seq FROM @messages WHERE thread = $1 AND seq = ANY ($2) ORDER BY seq FOR UPDATE SKIP LOCKED
)
UPDATE @messages m SET search = @words($5::text::regconfig, words.text, t.tenant), search_language = $5
FROM free, @threads t, unnest($2::bigint[], $3::text[], $4::text[]) AS words (seq, version, text)
WHERE m.thread = $1 AND m.seq = free.seq AND t.id = $1 AND words.seq = free.seq AND m.xmin::text = words.version
RETURNING 1;

-- name: reckon
-- Some threads, and whether their counts are not those of their messages.
SELECT t.id, (t.count, t.size, t.head_seq, t.next_seq) <> (c.count, c.size, c.head_seq, c.next_seq) AS is_wrong
FROM @threads_after($1) JOIN @threads t USING (id), LATERAL @counted(t.id, t.next_seq) c ORDER BY t.id;

-- name: recount
-- Makes the counts of threads those of their messages.
SELECT @recount($1);

-- name: remains
-- Of which threads something is kept beside the threads, a thousand at a time, and whether there is no such thread.
WITH RECURSIVE present (thread, number) AS (
    SELECT @next_kept($1), 1
    UNION ALL
    SELECT @next_kept(thread), number + 1 FROM present WHERE thread IS NOT NULL AND number < 1000
)
SELECT p.thread, t.id IS NULL AND e.thread IS NULL AS is_orphan FROM present p
LEFT JOIN @threads t ON t.id = p.thread LEFT JOIN @erased e ON e.thread = p.thread
WHERE p.thread IS NOT NULL ORDER BY p.thread;

-- name: discard
-- Leaves what is kept of threads that are not there to the purge.
INSERT INTO @erased SELECT unnest($1::bigint[]) ON CONFLICT DO NOTHING;

-- name: schema_version
-- The newest migration that has been applied.
SELECT max(version) FROM @migrations;
