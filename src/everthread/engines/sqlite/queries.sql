-- Statements of an open store. The columns of a thread always have the order of Log.

-- name: find_thread
-- A thread's row, also if it has expired.
SELECT id, head_seq, next_seq, count, size, created_ms, updated_ms, expires_ms, CAST(title AS BLOB), revision, appends,
    retention
FROM threads
WHERE tenant = ? AND thread_id = ?;

-- name: list_first
-- The first page of a tenant's threads, newest activity first.
SELECT
    id, head_seq, next_seq, count, size, created_ms, updated_ms, expires_ms, CAST(title AS BLOB), revision, appends,
    retention, thread_id, (SELECT value FROM metadata WHERE thread = threads.id)
FROM threads
WHERE tenant = ? AND (expires_ms IS NULL OR expires_ms > ?)
ORDER BY updated_ms DESC, thread_id DESC
LIMIT ?;

-- name: list_after
-- The page after a thread's time and ID.
SELECT
    id, head_seq, next_seq, count, size, created_ms, updated_ms, expires_ms, CAST(title AS BLOB), revision, appends,
    retention, thread_id, (SELECT value FROM metadata WHERE thread = threads.id)
FROM threads
WHERE tenant = ? AND (expires_ms IS NULL OR expires_ms > ?) AND (updated_ms, thread_id) < (?, ?)
ORDER BY updated_ms DESC, thread_id DESC
LIMIT ?;

-- name: list_tenants
-- The next tenants by name, each by one step in the index of threads.
WITH RECURSIVE names (tenant) AS (
    SELECT min(tenant) FROM threads WHERE tenant > ?
    UNION ALL
    SELECT (SELECT min(threads.tenant) FROM threads WHERE threads.tenant > names.tenant) FROM names
    WHERE names.tenant IS NOT NULL
)
SELECT tenant FROM names WHERE tenant IS NOT NULL LIMIT ?;

-- name: find_metadata
-- A thread's metadata, if it has any.
SELECT value FROM metadata WHERE thread = ?;

-- name: set_metadata
-- Replaces a thread's metadata.
INSERT OR REPLACE INTO metadata (thread, value) VALUES (?, ?);

-- name: begin_thread
-- A new thread without messages.
INSERT INTO threads (tenant, thread_id, head_seq, next_seq, count, size, created_ms, updated_ms)
VALUES (?, ?, 0, 0, 0, 0, ?, ?);

-- name: save_thread
-- Saves the changes of an append or a truncate.
UPDATE threads
SET
    head_seq = ?, next_seq = ?, count = ?, size = ?, updated_ms = ?, expires_ms = ?, title = coalesce(title, ?), appends = ?
WHERE id = ?;

-- name: save_description
-- Saves the changes of update_thread, except metadata.
UPDATE threads SET title = coalesce(?, title), revision = ?, retention = ?, expires_ms = ? WHERE id = ?;

-- name: save_times
-- Saves the changes of restore_times.
UPDATE threads SET created_ms = ?, updated_ms = ?, expires_ms = ? WHERE id = ?;

-- name: add_message
-- Adds a message at a new position.
INSERT INTO messages (thread, seq, turn, tied, created_ms, format, payload) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: read_messages
-- A thread's messages from one position to below another, oldest first.
SELECT seq, CAST(payload AS BLOB), format, created_ms, turn
FROM messages
WHERE thread = ? AND seq >= ? AND seq < ?
ORDER BY seq
LIMIT ?;

-- name: read_last_messages
-- The same, newest first.
SELECT seq, CAST(payload AS BLOB), format, created_ms, turn
FROM messages
WHERE thread = ? AND seq >= ? AND seq < ?
ORDER BY seq DESC
LIMIT ?;

-- name: rewrite_message
-- Replaces a payload that is unchanged since it was read.
UPDATE messages SET payload = ? WHERE thread = ? AND seq = ? AND CAST(payload AS BLOB) = ? RETURNING id, format;

-- name: drop_messages
-- Deletes a thread's messages from one position to below another, and returns the size of each.
DELETE FROM messages WHERE thread = ? AND seq >= ? AND seq < ? RETURNING length(payload);

-- name: nth_message
-- The position of a thread's n-th message from a position on (0: the first).
SELECT seq FROM messages WHERE thread = ? AND seq >= ? ORDER BY seq LIMIT 1 OFFSET ?;

-- name: ties_upward
-- Messages from a position on, and whether each is linked to the one before it.
SELECT seq, tied FROM messages WHERE thread = ? AND seq >= ? ORDER BY seq;

-- name: ties_downward
-- The same, from a position down.
SELECT seq, tied FROM messages WHERE thread = ? AND seq <= ? ORDER BY seq DESC;

-- name: remember_append
-- Stores the result of an append, unless its ID is known.
INSERT INTO appends (thread, append_id, first_seq, next_seq) VALUES (?, ?, ?, ?)
ON CONFLICT (thread, append_id) DO NOTHING;

-- name: find_append
-- The result of the append with this ID.
SELECT first_seq, next_seq FROM appends WHERE thread = ? AND append_id = ?;

-- name: forget_appends
-- Deletes all but the newest append IDs of a thread.
DELETE FROM appends WHERE thread = ? AND first_seq <= (
    SELECT first_seq FROM appends WHERE thread = ? ORDER BY first_seq DESC LIMIT 1 OFFSET ?
);

-- name: span_around
-- The first span that ends at or after a position: the only one that can forbid a cut there.
SELECT lo, hi FROM spans WHERE thread = ? AND hi >= ? ORDER BY hi LIMIT 1;

-- name: take_spans
-- Deletes and returns the spans that end at or after a position.
DELETE FROM spans WHERE thread = ? AND hi >= ? RETURNING lo, hi;

-- name: add_span
-- A span that touches no other.
INSERT INTO spans (thread, lo, hi) VALUES (?, ?, ?);

-- name: drop_spans_below
-- Deletes spans that end before a position.
DELETE FROM spans WHERE thread = ? AND hi < ?;

-- name: drop_spans_from
-- Deletes spans that end at or after a position.
DELETE FROM spans WHERE thread = ? AND hi >= ?;

-- name: take_open_call
-- Deletes an unanswered call, and returns its position.
DELETE FROM open_calls WHERE thread = ? AND call_id = ? RETURNING seq;

-- name: add_open_call
-- Stores an unanswered call; replaces an earlier one with the same ID.
INSERT OR REPLACE INTO open_calls (thread, call_id, seq) VALUES (?, ?, ?);

-- name: forget_open_calls
-- Deletes all but the newest unanswered calls of a thread.
DELETE FROM open_calls WHERE thread = ? AND id <= (
    SELECT id FROM open_calls WHERE thread = ? ORDER BY id DESC LIMIT 1 OFFSET ?
);

-- name: drop_open_calls_below
-- Deletes unanswered calls before a position.
DELETE FROM open_calls WHERE thread = ? AND seq < ?;

-- name: drop_open_calls_from
-- Deletes unanswered calls at or after a position.
DELETE FROM open_calls WHERE thread = ? AND seq >= ?;

-- name: find_document
-- A document of a thread.
SELECT name, CAST(value AS BLOB), revision, updated_ms FROM documents WHERE thread = ? AND name = ?;

-- name: put_document
-- Creates or replaces a document.
INSERT INTO documents (thread, name, value, revision, updated_ms) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (thread, name) DO UPDATE SET
    value = excluded.value, revision = excluded.revision, updated_ms = excluded.updated_ms;

-- name: drop_document
-- Deletes a document.
DELETE FROM documents WHERE thread = ? AND name = ?;

-- name: list_documents
-- The names of a thread's documents from one to below another. A blob is above all names.
SELECT name FROM documents WHERE thread = ? AND name >= ? AND name < ? ORDER BY name LIMIT ?;

-- name: bury_thread
-- Marks a thread's rows in other tables as garbage; drop_thread deletes its own in the same transaction.
INSERT INTO garbage (thread) VALUES (?);

-- name: drop_thread
-- Deletes a thread's row.
DELETE FROM threads WHERE id = ?;

-- name: some_of_tenant
-- Some of a tenant's threads, and when each expires.
SELECT id, expires_ms FROM threads WHERE tenant = ? LIMIT ?;

-- name: some_expired
-- Some threads that have expired by a time.
SELECT id FROM threads WHERE expires_ms <= ? LIMIT ?;

-- name: some_garbage
-- A deleted thread that still has rows.
SELECT thread FROM garbage LIMIT 1;

-- name: sweep_messages
-- Deletes some messages of a thread.
DELETE FROM messages WHERE id IN (SELECT id FROM messages WHERE thread = ? LIMIT ?);

-- name: sweep_spans
-- Deletes some spans of a thread.
DELETE FROM spans WHERE thread = ? AND hi IN (SELECT hi FROM spans WHERE thread = ? LIMIT ?);

-- name: sweep_documents
-- Deletes some documents of a thread.
DELETE FROM documents WHERE id IN (SELECT id FROM documents WHERE thread = ? LIMIT ?);

-- name: sweep_appends
-- Deletes a thread's append IDs; their number is bounded.
DELETE FROM appends WHERE thread = ?;

-- name: sweep_open_calls
-- Deletes a thread's unanswered calls; their number is bounded.
DELETE FROM open_calls WHERE thread = ?;

-- name: sweep_metadata
-- Deletes a thread's metadata.
DELETE FROM metadata WHERE thread = ?;

-- name: sweep_done
-- Removes a thread that has no rows left from the garbage.
DELETE FROM garbage WHERE thread = ?;

-- name: is_indexed
-- A row if appends must index their words.
SELECT 1 FROM search_index WHERE id = 1;

-- name: index_progress
-- The last indexed older message, and the last message that is older than the index.
SELECT indexed_to, upto FROM search_index WHERE id = 1;

-- name: begin_index
-- Makes every later append index its words.
INSERT INTO search_index (id, indexed_to, upto) VALUES (1, 0, (SELECT coalesce(max(id), 0) FROM messages))
RETURNING indexed_to, upto;

-- name: next_to_index
-- The next older messages to index, without those of deleted threads.
SELECT messages.id, threads.tenant, messages.format, CAST(messages.payload AS BLOB)
FROM messages
CROSS JOIN threads ON threads.id = messages.thread
WHERE messages.id > ? AND messages.id <= ?
ORDER BY messages.id
LIMIT ?;

-- name: add_old_words
-- Indexes an older message. A new message may have its ID by now, and the same words.
INSERT OR REPLACE INTO message_words (rowid, tenant, words) VALUES (?, ?, ?);

-- name: drop_words
-- Removes a message from the index.
DELETE FROM message_words WHERE rowid = ?;

-- name: merge_words
-- Merges some pages of the index, which drops the words of deleted messages.
INSERT INTO message_words (message_words, rank) VALUES ('merge', ?);

-- name: indexed_to
-- Saves the progress of indexing older messages.
UPDATE search_index SET indexed_to = ? WHERE id = 1;

-- name: add_words
-- Indexes a message that was just added.
INSERT INTO message_words (rowid, tenant, words)
SELECT id, ?, ? FROM messages WHERE thread = ? AND seq = ?;

-- name: search
-- Messages that match, the last stored first.
SELECT threads.thread_id, messages.id, messages.seq, messages.created_ms, messages.format, CAST(messages.payload AS BLOB)
FROM message_words
CROSS JOIN messages ON messages.id = message_words.rowid
CROSS JOIN threads ON threads.id = messages.thread
WHERE message_words MATCH ? AND message_words.rowid < ?
    AND threads.tenant = ? AND (threads.expires_ms IS NULL OR threads.expires_ms > ?)
ORDER BY message_words.rowid DESC
LIMIT ?;
