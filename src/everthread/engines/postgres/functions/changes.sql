-- Truncating, rewriting, documents, deleting and purging: each is one call that locks the thread's row first.

-- Locks the row of a live thread and returns its ID, or nothing.
CREATE OR REPLACE FUNCTION @locked(p_tenant text, p_thread text, p_now bigint) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT id FROM @threads
    WHERE tenant = p_tenant AND thread_id = p_thread AND (expires_ms IS NULL OR expires_ms > @now(p_now))
    FOR UPDATE
$$;

-- Drops a thread's messages at and above the last safe cut at or below a position.
CREATE OR REPLACE FUNCTION @drop_tail(p_thread bigint, p_stop bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_stop bigint := p_stop;
    v_span record;
BEGIN
    SELECT seq, tied_to INTO v_span FROM @messages
    WHERE thread = p_thread AND tied_to IS NOT NULL AND seq >= p_stop ORDER BY seq LIMIT 1;
    IF v_span.tied_to < p_stop THEN
        v_stop := v_span.tied_to;
    END IF;
    WITH dropped AS (
        DELETE FROM @messages WHERE thread = p_thread AND seq >= v_stop RETURNING octet_length(payload) AS size
    ), totals AS (
        SELECT count(*) AS count, coalesce(sum(size), 0) AS size FROM dropped
    )
    UPDATE @threads t SET
        count = t.count - totals.count,
        size = t.size - totals.size,
        head_seq = CASE WHEN t.count = totals.count THEN t.next_seq ELSE t.head_seq END,
        open_ids = ARRAY(SELECT o.id FROM unnest(open_ids, open_at) WITH ORDINALITY AS o (id, at, n)
                         WHERE o.at < v_stop ORDER BY o.n),
        open_at = ARRAY(SELECT o.at FROM unnest(open_ids, open_at) WITH ORDINALITY AS o (id, at, n)
                        WHERE o.at < v_stop ORDER BY o.n)
    FROM totals WHERE t.id = p_thread;
END $$;

-- Keeps the positions from p_start to below p_stop; returns no row for an unknown thread.
-- If the next position is not p_expected (null: any), drops nothing and returns null as the number of dropped messages.
CREATE OR REPLACE FUNCTION @truncate(
    p_tenant text, p_thread text, p_start bigint, p_stop bigint, p_expected bigint, p_now bigint
) RETURNS TABLE (removed bigint, head_seq bigint, next_seq bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_thread bigint := @locked(p_tenant, p_thread, p_now);
    v_before bigint;
    v_head bigint;
    v_next bigint;
BEGIN
    SELECT t.count, t.head_seq, t.next_seq INTO v_before, v_head, v_next FROM @threads t WHERE t.id = v_thread;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF p_expected <> v_next THEN
        RETURN QUERY SELECT NULL::bigint, v_head, v_next;
        RETURN;
    END IF;
    PERFORM @drop_head(v_thread, p_start);
    IF p_stop < v_next THEN
        PERFORM @drop_tail(v_thread, p_stop);
    END IF;
    RETURN QUERY UPDATE @threads t
        SET updated_ms = CASE WHEN p_stop IS NULL THEN updated_ms ELSE greatest(@now(p_now), created_ms) END WHERE t.id = v_thread
        RETURNING v_before - t.count, t.head_seq, t.next_seq;
END $$;

-- Replaces payloads that still equal p_old, and their words; returns how many.
CREATE OR REPLACE FUNCTION @rewrite(
    p_tenant text, p_thread text, p_seqs bigint[], p_old bytea[], p_new bytea[], p_formats text[], p_texts text[],
    p_language text, p_now bigint
) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    v_thread bigint := @locked(p_tenant, p_thread, p_now);
    v_language regconfig := CASE WHEN p_texts IS NOT NULL THEN @configuration(p_language) END;
    v_done bigint;
    v_more bigint;
BEGIN
    WITH changed AS (
        UPDATE @messages m SET
            payload = convert_from(c.new, 'UTF8'),
            search = CASE WHEN c.text IS NOT NULL THEN @words(v_language, c.text, p_tenant) END,
            search_language = CASE WHEN c.text IS NOT NULL THEN p_language END
        FROM unnest(p_seqs, p_old, p_new, p_formats, p_texts) AS c (seq, old, new, format, text)
        WHERE m.thread = v_thread AND m.seq = c.seq AND (c.text IS NULL OR m.format = c.format)
            AND convert_to(m.payload, 'UTF8') = c.old
        RETURNING octet_length(c.new) - octet_length(c.old) AS more
    )
    SELECT count(*), coalesce(sum(more), 0) INTO v_done, v_more FROM changed;
    UPDATE @threads SET size = size + v_more WHERE id = v_thread AND v_more <> 0;
    RETURN v_done;
END $$;

-- Writes a document that has the revision p_expected; returns whether it was written, and its revision.
CREATE OR REPLACE FUNCTION @put_document(p_tenant text, p_thread text, p_name text, p_value bytea, p_expected bigint, p_now bigint)
RETURNS TABLE (written boolean, revision bigint, updated_ms bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_new bigint[] := @claim(ARRAY[p_tenant], ARRAY[p_thread], @now(p_now));
    v_now bigint := @now(p_now);
    v_thread bigint;
    v_revision bigint;
BEGIN
    SELECT t.id INTO v_thread FROM @threads t WHERE t.tenant = p_tenant AND t.thread_id = p_thread;
    SELECT d.revision INTO v_revision FROM @documents d WHERE d.thread = v_thread AND d.name = p_name;
    v_revision := coalesce(v_revision, 0);
    IF p_expected <> v_revision THEN
        DELETE FROM @threads t WHERE t.id = ANY (v_new);
        RETURN QUERY SELECT false, v_revision, v_now;
    ELSE
        INSERT INTO @documents AS d (thread, name, value, revision, updated_ms)
        VALUES (v_thread, p_name, convert_from(p_value, 'UTF8'), v_revision + 1, v_now)
        ON CONFLICT (thread, name) DO UPDATE SET
            value = excluded.value, revision = excluded.revision, updated_ms = excluded.updated_ms;
        RETURN QUERY SELECT true, v_revision + 1, v_now;
    END IF;
END $$;

-- Deletes threads and their rows in other tables. The threads come last: rights to those rows can depend on them.
CREATE OR REPLACE FUNCTION @erase(p_ids bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM @messages WHERE thread = ANY (p_ids);
    DELETE FROM @appends WHERE thread = ANY (p_ids);
    DELETE FROM @documents WHERE thread = ANY (p_ids);
    DELETE FROM @threads WHERE id = ANY (p_ids);
END $$;

-- Deletes a thread if its next position is p_expected (null: any). Returns whether a live one existed; and its next
-- position if that is not the expected one.
CREATE OR REPLACE FUNCTION @delete_thread(p_tenant text, p_thread text, p_expected bigint, p_now bigint)
RETURNS TABLE (lived boolean, kept_at bigint) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_row record;
BEGIN
    SELECT id, expires_ms, next_seq INTO v_row FROM @threads
    WHERE tenant = p_tenant AND thread_id = p_thread FOR UPDATE;
    lived := FOUND AND (v_row.expires_ms IS NULL OR v_row.expires_ms > @now(p_now));
    IF lived AND p_expected <> v_row.next_seq THEN
        kept_at := v_row.next_seq;
    ELSIF FOUND THEN
        PERFORM @erase(ARRAY[v_row.id]);
    END IF;
    RETURN NEXT;
END $$;

-- Deletes a tenant's next p_limit threads after p_after; returns how many were live, and the last (null at the end).
CREATE OR REPLACE FUNCTION @delete_tenant(p_tenant text, p_after text, p_limit int, p_now bigint)
RETURNS TABLE (lived bigint, last_thread text) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_ids bigint[];
BEGIN
    WITH locked AS MATERIALIZED (
        SELECT id, thread_id, expires_ms FROM @threads
        WHERE tenant = p_tenant AND (p_after IS NULL OR thread_id > p_after) ORDER BY thread_id LIMIT p_limit FOR UPDATE
    )
    SELECT array_agg(id), count(*) FILTER (WHERE expires_ms IS NULL OR expires_ms > @now(p_now)), max(thread_id)
    INTO v_ids, lived, last_thread FROM locked;
    PERFORM @erase(v_ids);
    RETURN NEXT;
END $$;

-- Deletes at most p_limit messages of expired threads; returns whether there may be more.
CREATE OR REPLACE FUNCTION @purge(p_limit int, p_now bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_thread bigint;
    v_removed int;
    v_left int := p_limit;
BEGIN
    WITH expired AS (
        DELETE FROM @threads WHERE id IN (
            SELECT id FROM @threads WHERE expires_ms <= @now(p_now) ORDER BY expires_ms LIMIT p_limit
            FOR UPDATE SKIP LOCKED)
        RETURNING id
    )
    INSERT INTO @erased SELECT id FROM expired ON CONFLICT DO NOTHING;
    DELETE FROM @erased e USING @threads t WHERE t.id = e.thread;
    FOR v_thread IN SELECT thread FROM @erased ORDER BY thread LIMIT p_limit FOR UPDATE SKIP LOCKED LOOP
        -- A row of this table does not prove that the thread was deleted: a new thread may have the same number.
        -- So each statement looks for the thread in its own snapshot, which has the thread if it has the thread's rows.
        DELETE FROM @messages WHERE thread = v_thread AND seq IN (
            SELECT seq FROM @messages WHERE thread = v_thread ORDER BY seq LIMIT v_left)
            AND NOT EXISTS (SELECT FROM @threads WHERE id = v_thread);
        GET DIAGNOSTICS v_removed = ROW_COUNT;
        v_left := v_left - v_removed;
        IF v_left = 0 THEN
            RETURN true;
        END IF;
        DELETE FROM @appends WHERE thread = v_thread AND NOT EXISTS (SELECT FROM @threads WHERE id = v_thread);
        DELETE FROM @documents WHERE thread = v_thread AND NOT EXISTS (SELECT FROM @threads WHERE id = v_thread);
        DELETE FROM @erased WHERE thread = v_thread;
    END LOOP;
    RETURN EXISTS (SELECT FROM @erased);
END $$;
