-- Statements of an open store. "@" stands for the schema and the table prefix.
-- Calls name the schema of a function, because behind PgBouncer a store cannot set the search path.
-- A null time (milliseconds) means the server's clock. Statements for one thread begin with tenant, thread ID and time. The columns of a thread always have the same order.

-- name: append
-- Writes a batch of turns of different threads.
SELECT turn, outcome, first_seq, next_seq FROM @append(
    $1, 0, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25,
    $26, $27);

-- name: append_one
-- Writes one turn without links to other turns.
SELECT @append_one($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);

-- name: append_rounds
-- Writes a batch with several turns of the same thread.
SELECT turn, outcome, first_seq, next_seq FROM @append_rounds(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25,
    $26, $27, $28, $29);

-- name: read
-- The oldest messages in a range of positions; one row without a message if a thread has none there.
SELECT t.head_seq, t.next_seq, m.seq, m.payload, m.format, m.created_ms, m.turn
FROM @threads t LEFT JOIN LATERAL (
    SELECT seq, pg_catalog.convert_to(payload, 'UTF8') AS payload, format, created_ms, turn
    FROM @messages WHERE thread = t.id AND seq >= greatest($4, t.head_seq) AND seq < $5
    ORDER BY seq LIMIT $6
) m ON true
WHERE t.tenant = $1 AND t.thread_id = $2 AND (t.expires_ms IS NULL OR t.expires_ms > @now($3));

-- name: read_last
-- The newest messages below a position; one row without a message if a thread has none there.
SELECT t.head_seq, t.next_seq, m.seq, m.payload, m.format, m.created_ms, m.turn
FROM @threads t LEFT JOIN LATERAL (
    SELECT seq, pg_catalog.convert_to(payload, 'UTF8') AS payload, format, created_ms, turn
    FROM @messages WHERE thread = t.id AND seq >= t.head_seq AND seq < $4
    ORDER BY seq DESC LIMIT $5
) m ON true
WHERE t.tenant = $1 AND t.thread_id = $2 AND (t.expires_ms IS NULL OR t.expires_ms > @now($3));

-- name: truncate
-- Drops the head, the tail or both.
SELECT removed, head_seq, next_seq FROM @truncate($1, $2, $4, $5, $6, $3);

-- name: rewrite
-- Replaces payloads that are unchanged since they were read.
SELECT @rewrite($1, $2, $4, $5, $6, $7, $8, $9, $3);

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

-- name: list_tenants
-- The next tenants by name, each by one step in the index of threads.
WITH RECURSIVE names (tenant) AS (
    SELECT pg_catalog.min(tenant) FROM @threads WHERE tenant > $1
    UNION ALL
    SELECT (SELECT pg_catalog.min(t.tenant) FROM @threads t WHERE t.tenant > names.tenant) FROM names
    WHERE names.tenant IS NOT NULL
)
SELECT tenant FROM names WHERE tenant IS NOT NULL LIMIT $2;

-- name: list_first
-- The first page of a tenant's live threads, newest activity first.
WITH page AS (
    SELECT thread_id, head_seq, next_seq, count, size, created_ms, updated_ms, title, metadata, revision, expires_ms,
        has_retention, own_most, own_expire
    FROM @threads
    WHERE tenant = $1 AND (expires_ms IS NULL OR expires_ms > @now($2))
    ORDER BY updated_ms DESC, thread_id DESC LIMIT $3
), weighed AS (
    SELECT *, pg_catalog.sum(pg_catalog.octet_length(metadata)) OVER (
        ORDER BY updated_ms DESC, thread_id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS weight FROM page
)
SELECT * FROM weighed WHERE weight - pg_catalog.octet_length(metadata) < $4 ORDER BY updated_ms DESC, thread_id DESC;

-- name: list_after
-- The page after a thread's time and ID.
WITH page AS (
    SELECT thread_id, head_seq, next_seq, count, size, created_ms, updated_ms, title, metadata, revision, expires_ms,
        has_retention, own_most, own_expire
    FROM @threads
    WHERE tenant = $1 AND (expires_ms IS NULL OR expires_ms > @now($2)) AND (updated_ms, thread_id) < ($4, $5)
    ORDER BY updated_ms DESC, thread_id DESC LIMIT $3
), weighed AS (
    SELECT *, pg_catalog.sum(pg_catalog.octet_length(metadata)) OVER (
        ORDER BY updated_ms DESC, thread_id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS weight FROM page
)
SELECT * FROM weighed WHERE weight - pg_catalog.octet_length(metadata) < $6 ORDER BY updated_ms DESC, thread_id DESC;

-- name: update_thread
-- Sets title and metadata (null: unchanged) of a live thread that has the expected revision (null: any). If $7, also
-- sets or removes its own retention, and sets the time to live after its last activity.
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

-- name: claim
-- Creates a thread that does not exist or has expired.
SELECT @claim(ARRAY[$1], ARRAY[$2], @now($3));

-- name: restore_position
-- Moves the next position of a live thread forward from the expected one.
UPDATE @threads SET next_seq = $4, head_seq = CASE WHEN count = 0 THEN $4 ELSE head_seq END,
    updated_ms = greatest(@now($3), created_ms),
    expires_ms = CASE WHEN $6::bigint IS NULL THEN expires_ms ELSE greatest(@now($3), created_ms) + $6 END
WHERE tenant = $1 AND thread_id = $2 AND (expires_ms IS NULL OR expires_ms > @now($3)) AND next_seq = $5
RETURNING true;

-- name: restore_times
-- Sets the times of a live thread, and moves its expiry with its last activity.
UPDATE @threads SET created_ms = $4, updated_ms = $5, expires_ms = expires_ms + ($5 - updated_ms)
WHERE tenant = $1 AND thread_id = $2 AND (expires_ms IS NULL OR expires_ms > @now($3))
RETURNING thread_id, head_seq, next_seq, count, size, created_ms, updated_ms, title, metadata, revision, expires_ms,
    has_retention, own_most, own_expire;

-- name: delete_thread
-- Deletes a thread; returns whether it was live, or its next position if that is not the expected one.
SELECT lived, kept_at FROM @delete_thread($1, $2, $4, $3);

-- name: delete_tenant
-- Deletes some threads of a tenant, in the order of their IDs, after an ID.
SELECT lived, last_thread FROM @delete_tenant($1, $2, $3, $4);

-- name: get_document
-- A document of a live thread.
SELECT pg_catalog.convert_to(d.value, 'UTF8') AS value, d.revision, d.updated_ms
FROM @threads t JOIN @documents d ON d.thread = t.id
WHERE t.tenant = $1 AND t.thread_id = $2 AND (t.expires_ms IS NULL OR t.expires_ms > @now($3)) AND d.name = $4;

-- name: put_document
-- Writes a document if it has the expected revision (null: any).
SELECT written, revision, updated_ms FROM @put_document($1, $2, $4, $5, $6, $3);

-- name: delete_document
-- Deletes a document of a live thread.
DELETE FROM @documents WHERE name = $4 AND thread = (
    SELECT id FROM @threads
    WHERE tenant = $1 AND thread_id = $2 AND (expires_ms IS NULL OR expires_ms > @now($3)))
RETURNING true;

-- name: list_documents
-- The names of a live thread's documents from one to below another (null: to the last), sorted.
SELECT d.name FROM @threads t JOIN @documents d ON d.thread = t.id
WHERE t.tenant = $1 AND t.thread_id = $2 AND (t.expires_ms IS NULL OR t.expires_ms > @now($3))
    AND d.name >= $4 AND ($5::text IS NULL OR d.name < $5)
ORDER BY d.name LIMIT $6;

-- name: purge
-- Deletes some rows of expired threads; returns whether there may be more.
SELECT @purge($1, $2);

-- name: search
-- A tenant's matching messages after one, newest first. Reads the payloads of the returned messages only.
SELECT t.thread_id, m.thread, m.seq, m.created_ms, m.format, pg_catalog.convert_to(m.payload, 'UTF8') AS payload
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
-- The number of messages of some threads that are not indexed, or indexed in another language, and the position after
-- the last of them.
SELECT id, m.count, m.stop
FROM @threads_after($1), LATERAL (
    SELECT pg_catalog.count(*) AS count, pg_catalog.max(seq) + 1 AS stop FROM @messages
    WHERE thread = id AND search_language IS DISTINCT FROM $2
) AS m
ORDER BY id;

-- name: unindexed_messages
-- The next of them in a thread, below a position: at most 200, and 8 MB unless it is one. The version reveals changes.
SELECT seq, version, format, pg_catalog.convert_to(payload, 'UTF8') AS payload FROM (
    SELECT *, pg_catalog.sum(pg_catalog.octet_length(payload)) OVER (ORDER BY seq) - pg_catalog.octet_length(payload) AS bytes_before FROM (
        SELECT seq, xmin::text AS version, format, payload FROM @messages
        WHERE thread = $1 AND seq > $2 AND seq < $4 AND search_language IS DISTINCT FROM $3 ORDER BY seq LIMIT 200
    ) AS next_ones
) AS counted
WHERE bytes_before < 8388608 ORDER BY seq;

-- name: index_messages
-- Indexes messages that are unchanged since they were read; skips locked rows.
WITH free AS MATERIALIZED (
    SELECT seq FROM @messages WHERE thread = $1 AND seq = ANY ($2) ORDER BY seq FOR UPDATE SKIP LOCKED
)
UPDATE @messages m SET search = @words(@configuration($5), words.text, t.tenant), search_language = $5
FROM free, @threads t, ROWS FROM (
    pg_catalog.unnest($2::bigint[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[])
) AS words (seq, version, text)
WHERE m.thread = $1 AND m.seq = free.seq AND t.id = $1 AND words.seq = free.seq AND m.xmin::text = words.version
RETURNING 1;

-- name: reckon
-- Some threads, and whether their counts differ from those of their messages.
SELECT t.id, (t.count, t.size, t.head_seq, t.next_seq) <> (c.count, c.size, c.head_seq, c.next_seq) AS is_wrong
FROM @threads_after($1) JOIN @threads t USING (id), LATERAL @counted(t.id, t.next_seq) c ORDER BY t.id;

-- name: recount
-- Corrects the counts of threads.
SELECT @recount($1);

-- name: remains
-- Threads that have rows in other tables, a thousand at a time, and whether the thread itself is missing.
WITH RECURSIVE present (thread, number) AS (
    SELECT @next_kept($1), 1
    UNION ALL
    SELECT @next_kept(thread), number + 1 FROM present WHERE thread IS NOT NULL AND number < 1000
)
SELECT p.thread, t.id IS NULL AND e.thread IS NULL AS is_orphan FROM present p
LEFT JOIN @threads t ON t.id = p.thread LEFT JOIN @erased e ON e.thread = p.thread
WHERE p.thread IS NOT NULL ORDER BY p.thread;

-- name: discard
-- Marks rows of missing threads for the purge.
INSERT INTO @erased SELECT pg_catalog.unnest($1::bigint[]) ON CONFLICT DO NOTHING;

-- name: schema_version
-- The newest migration that has been applied.
SELECT pg_catalog.max(version) FROM @migrations;

-- name: health
-- Settings, rights and sizes of the server.
SELECT
    pg_catalog.current_setting('server_version') AS version,
    coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid()), false) AS encrypted,
    (SELECT s.version FROM pg_stat_ssl AS s WHERE pid = pg_catalog.pg_backend_pid()) AS tls,
    (SELECT a IS NULL OR a << '127.0.0.0/8' OR a = '::1' FROM pg_catalog.inet_server_addr() AS a) AS local,
    current_user::text AS role,
    pg_catalog.has_schema_privilege($1, 'CREATE') AS may_create,
    coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = current_user), false) AS is_super,
    pg_catalog.pg_is_in_recovery() AS is_replica,
    pg_catalog.current_setting('transaction_read_only') = 'on' AS is_read_only,
    pg_catalog.current_setting('synchronous_commit') AS synchronous_commit,
    pg_catalog.current_setting('fsync') AS fsync,
    pg_catalog.pg_database_size(pg_catalog.current_database()) AS size,
    (SELECT pg_catalog.count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
    pg_catalog.current_setting('max_connections')::int AS max_connections,
    pg_catalog.row_security_active(pg_catalog.format('%I.%I', $1::text, $2::text || 'threads')) AS is_bound,
    (SELECT pg_catalog.count(DISTINCT role) FROM pg_policies, pg_catalog.unnest(roles) AS role
        WHERE schemaname = $1 AND tablename = $2::text || 'threads') AS bound_roles,
    (SELECT pg_catalog.string_agg(pg_catalog.format('%s in %I', coalesce(rolname, 'anyone'), nspname), ', ')
        FROM pg_namespace, pg_catalog.aclexplode(nspacl) LEFT JOIN pg_roles r ON r.oid = grantee
        WHERE privilege_type = 'CREATE' AND (nspname = 'public' AND grantee = 0::oid
            OR nspname = $1 AND grantee <> nspowner AND rolname IS DISTINCT FROM current_user)
    ) AS creators,
    (SELECT pg_catalog.string_agg(pg_catalog.format('%s on %s', privilege, tables), '; ') FROM (
        SELECT privilege, pg_catalog.string_agg(name, ', ') AS tables
        FROM pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege,
            pg_catalog.unnest(ARRAY['threads', 'messages', 'appends', 'documents', 'erased']) AS name,
            pg_catalog.format('%I.%I', $1::text, $2::text || name) AS place
        WHERE NOT CASE privilege
            WHEN 'DELETE' THEN pg_catalog.has_table_privilege(place, privilege)
            ELSE pg_catalog.has_any_column_privilege(place, privilege) END
        GROUP BY privilege
    ) AS rights) AS missing;

-- name: missing
-- The missing ones of some tables, and whether one of some functions is missing.
SELECT
    ARRAY(
        SELECT name FROM pg_catalog.unnest($3::text[]) AS name
        WHERE pg_catalog.to_regclass(pg_catalog.format('%I.%I', $1::text, $2::text || name)) IS NULL
    ) AS tables,
    EXISTS (
        SELECT FROM pg_catalog.unnest($4::text[]) AS name WHERE NOT EXISTS (
            SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
            WHERE n.nspname = $1::text AND p.proname = $2::text || name)
    ) AS functions;

-- name: may_create
-- Whether this role may create the tables in a schema, which may not exist yet.
SELECT coalesce(
    pg_catalog.has_schema_privilege(pg_catalog.to_regnamespace($1)::oid, 'CREATE'),
    pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'));

-- name: blocking
-- The session that a migration waits for, and its transaction.
SELECT l.pid, a.state, extract(epoch FROM pg_catalog.now() - a.xact_start)::int AS seconds
FROM pg_catalog.pg_locks AS l LEFT JOIN pg_catalog.pg_stat_activity AS a USING (pid)
WHERE l.granted AND l.pid <> pg_catalog.pg_backend_pid() AND (
    l.locktype = 'advisory' AND l.objid::bigint = $3
    OR l.relation IN (
        SELECT pg_catalog.to_regclass(pg_catalog.format('%I.%I', $1::text, $2::text || name))
        FROM pg_catalog.unnest($4::text[]) AS name))
ORDER BY seconds DESC NULLS LAST LIMIT 1;
