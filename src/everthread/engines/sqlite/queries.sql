-- Every statement that runs on an open store. A thread's columns are always in the same order, that of Log.

-- name: find_thread
-- A thread's row, also if it has expired.
SELECT id, head_seq, next_seq, count, size, created_ms, updated_ms, expires_ms, title, revision, appends, retention
FROM threads
WHERE tenant = ? AND thread_id = ?;

-- name: list_first
-- The first page of a tenant's threads, the newest activity first.
SELECT
    id, head_seq, next_seq, count, size, created_ms, updated_ms, expires_ms, title, revision, appends, retention,
    thread_id, (SELECT value FROM metadata WHERE thread = threads.id)
FROM threads
WHERE tenant = ? AND (expires_ms IS NULL OR expires_ms > ?)
ORDER BY updated_ms DESC, thread_id DESC
LIMIT ?;

-- name: list_after
-- The page that follows a thread's time and id.
SELECT
    id, head_seq, next_seq, count, size, created_ms, updated_ms, expires_ms, title, revision, appends, retention,
    thread_id, (SELECT value FROM metadata WHERE thread = threads.id)
FROM threads
WHERE tenant = ? AND (expires_ms IS NULL OR expires_ms > ?) AND (updated_ms, thread_id) < (?, ?)
ORDER BY updated_ms DESC, thread_id DESC
LIMIT ?;

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
-- What an append or a truncate changes of a thread.
UPDATE threads
SET head_seq = ?, next_seq = ?, count = ?, size = ?, updated_ms = ?, expires_ms = ?, title = ?, appends = ?
WHERE id = ?;

-- name: save_description
-- What update_thread changes of a thread, beside its metadata.
UPDATE threads SET title = ?, revision = ?, retention = ?, expires_ms = ? WHERE id = ?;

-- name: save_times
-- What restore_times changes of a thread.
UPDATE threads SET created_ms = ?, updated_ms = ?, expires_ms = ? WHERE id = ?;

-- name: add_message
-- One message, whose position must be new.
INSERT INTO messages (thread, seq, turn, tied, created_ms, format, payload) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: read_messages
-- A thread's messages from one position up to but without another, the oldest first.
SELECT seq, CAST(payload AS BLOB), format, created_ms, turn
FROM messages
WHERE thread = ? AND seq >= ? AND seq < ?
ORDER BY seq
LIMIT ?;

-- name: read_last_messages
-- The same, the newest first.
SELECT seq, CAST(payload AS BLOB), format, created_ms, turn
FROM messages
WHERE thread = ? AND seq >= ? AND seq < ?
ORDER BY seq DESC
LIMIT ?;

-- name: rewrite_message
-- Puts another payload in the place of the one that was read, if it is still there.
UPDATE messages SET payload = ? WHERE thread = ? AND seq = ? AND CAST(payload AS BLOB) = ? RETURNING id, format;

-- name: drop_messages
-- Removes a thread's messages from one position up to but without another, and gives the size of each.
DELETE FROM messages WHERE thread = ? AND seq >= ? AND seq < ? RETURNING length(payload);

-- name: nth_message
-- The position of a thread's n-th message from a position on (0: the first).
SELECT seq FROM messages WHERE thread = ? AND seq >= ? ORDER BY seq LIMIT 1 OFFSET ?;

-- name: ties_upward
-- Messages from a position on, and whether each is tied to the one before it.
SELECT seq, tied FROM messages WHERE thread = ? AND seq >= ? ORDER BY seq;

-- name: ties_downward
-- The same, from a position down.
SELECT seq, tied FROM messages WHERE thread = ? AND seq <= ? ORDER BY seq DESC;

-- name: remember_append
-- Keeps what an append did, unless its id is known.
INSERT INTO appends (thread, append_id, first_seq, next_seq) VALUES (?, ?, ?, ?)
ON CONFLICT (thread, append_id) DO NOTHING;

-- name: find_append
-- What the append of this id did.
SELECT first_seq, next_seq FROM appends WHERE thread = ? AND append_id = ?;

-- name: forget_appends
-- Forgets all but the newest appends of a thread.
DELETE FROM appends WHERE thread = ?1 AND first_seq <= (
    SELECT first_seq FROM appends WHERE thread = ?1 ORDER BY first_seq DESC LIMIT 1 OFFSET ?2
);

-- name: span_around
-- The first span that ends at or after a position: if any span forbids a cut there, it is this one.
SELECT lo, hi FROM spans WHERE thread = ? AND hi >= ? ORDER BY hi LIMIT 1;

-- name: take_spans
-- Removes the spans that end at or after a position, and gives them.
DELETE FROM spans WHERE thread = ? AND hi >= ? RETURNING lo, hi;

-- name: add_span
-- A span that touches no other.
INSERT INTO spans (thread, lo, hi) VALUES (?, ?, ?);

-- name: drop_spans_below
-- Forgets spans that end before a position.
DELETE FROM spans WHERE thread = ? AND hi < ?;

-- name: drop_spans_from
-- Forgets spans that end at or after a position.
DELETE FROM spans WHERE thread = ? AND hi >= ?;

-- name: take_open_call
-- Removes an unanswered call, and gives its position.
DELETE FROM open_calls WHERE thread = ? AND call_id = ? RETURNING seq;

-- name: add_open_call
-- An unanswered call; an earlier one of the same id is forgotten.
INSERT OR REPLACE INTO open_calls (thread, call_id, seq) VALUES (?, ?, ?);

-- name: forget_open_calls
-- Forgets all but the newest unanswered calls of a thread.
DELETE FROM open_calls WHERE thread = ?1 AND id <= (
    SELECT id FROM open_calls WHERE thread = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2
);

-- name: drop_open_calls_below
-- Forgets unanswered calls before a position.
DELETE FROM open_calls WHERE thread = ? AND seq < ?;

-- name: drop_open_calls_from
-- Forgets unanswered calls at or after a position.
DELETE FROM open_calls WHERE thread = ? AND seq >= ?;

-- name: find_document
-- A document of a thread.
SELECT name, CAST(value AS BLOB), revision, updated_ms FROM documents WHERE thread = ? AND name = ?;

-- name: put_document
-- Writes a document, whether there was one or not.
INSERT INTO documents (thread, name, value, revision, updated_ms) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (thread, name) DO UPDATE SET
    value = excluded.value, revision = excluded.revision, updated_ms = excluded.updated_ms;

-- name: drop_document
-- Removes a document.
DELETE FROM documents WHERE thread = ? AND name = ?;

-- name: list_documents
-- The names of a thread's documents.
SELECT name FROM documents WHERE thread = ? ORDER BY name;

-- name: bury_thread
-- Makes a thread's remains garbage; its row goes with drop_thread, in the same transaction.
INSERT INTO garbage (thread) VALUES (?);

-- name: drop_thread
-- Makes a thread unknown.
DELETE FROM threads WHERE id = ?;

-- name: some_of_tenant
-- Some of a tenant's threads, and when each expires.
SELECT id, expires_ms FROM threads WHERE tenant = ? LIMIT ?;

-- name: some_expired
-- Some threads that have expired at a time.
SELECT id FROM threads WHERE expires_ms <= ? LIMIT ?;

-- name: some_garbage
-- One thread whose remains are to be removed.
SELECT thread FROM garbage LIMIT 1;

-- name: sweep_messages
-- Removes some messages of a thread.
DELETE FROM messages WHERE id IN (SELECT id FROM messages WHERE thread = ? LIMIT ?);

-- name: sweep_spans
-- Removes some spans of a thread.
DELETE FROM spans WHERE thread = ?1 AND hi IN (SELECT hi FROM spans WHERE thread = ?1 LIMIT ?2);

-- name: sweep_documents
-- Removes some documents of a thread.
DELETE FROM documents WHERE id IN (SELECT id FROM documents WHERE thread = ? LIMIT ?);

-- name: sweep_appends
-- Removes what is remembered of a thread's appends, which is bounded.
DELETE FROM appends WHERE thread = ?;

-- name: sweep_open_calls
-- Removes a thread's unanswered calls, which are bounded.
DELETE FROM open_calls WHERE thread = ?;

-- name: sweep_metadata
-- Removes a thread's metadata.
DELETE FROM metadata WHERE thread = ?;

-- name: sweep_done
-- Nothing of the thread is left.
DELETE FROM garbage WHERE thread = ?;

-- name: is_indexed
-- A row if appends have to bring their words along.
SELECT 1 FROM search_index WHERE id = 1;

-- name: index_progress
-- Up to which message the index has come, and up to which the appends leave it to the builder.
SELECT indexed_to, upto FROM search_index WHERE id = 1;

-- name: begin_index
-- From here on every append brings its words along.
INSERT INTO search_index (id, indexed_to, upto) VALUES (1, 0, (SELECT coalesce(max(id), 0) FROM messages))
RETURNING indexed_to, upto;

-- name: next_to_index
-- The messages that follow in the building of the index; those of deleted threads are left out.
SELECT messages.id, threads.tenant, messages.format, CAST(messages.payload AS BLOB)
FROM messages
CROSS JOIN threads ON threads.id = messages.thread
WHERE messages.id > ? AND messages.id <= ?
ORDER BY messages.id
LIMIT ?;

-- name: add_old_words
-- The words of a message from before the index; a new message may have its id by now, and the same words.
INSERT OR REPLACE INTO message_words (rowid, tenant, words) VALUES (?, ?, ?);

-- name: drop_words
-- Forgets the words of a message.
DELETE FROM message_words WHERE rowid = ?;

-- name: indexed_to
-- How far the building of the index has come.
UPDATE search_index SET indexed_to = ? WHERE id = 1;

-- name: add_words
-- The words of a message that was just added.
INSERT INTO message_words (rowid, tenant, words)
SELECT id, ?, ? FROM messages WHERE thread = ? AND seq = ?;

-- name: search
-- Messages with certain words, the last stored first.
SELECT threads.thread_id, messages.id, messages.seq, messages.created_ms, messages.format, CAST(messages.payload AS BLOB)
FROM message_words
CROSS JOIN messages ON messages.id = message_words.rowid
CROSS JOIN threads ON threads.id = messages.thread
WHERE message_words MATCH ? AND message_words.rowid < ?
    AND threads.tenant = ? AND (threads.expires_ms IS NULL OR threads.expires_ms > ?)
ORDER BY message_words.rowid DESC
LIMIT ?;
