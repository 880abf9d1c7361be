-- Comparisons of redundant data: each call looks at a bounded part.

-- Returns the next threads by ID: at most 500, with about 100,000 messages together unless it is one thread.
CREATE OR REPLACE FUNCTION @threads_after(p_after bigint) RETURNS TABLE (id bigint)
LANGUAGE sql SET search_path = pg_catalog, pg_temp STABLE AS $$
    SELECT id FROM (
        SELECT id, sum(count) OVER (ORDER BY id) - count AS messages_before
        FROM (SELECT id, count FROM @threads WHERE id > p_after ORDER BY id LIMIT 500) AS next_ones
    ) AS counted
    WHERE messages_before < 100000
$$;

-- Counts the messages of a thread. The next position never goes back.
CREATE OR REPLACE FUNCTION @counted(p_thread bigint, p_next bigint)
RETURNS TABLE (count bigint, size bigint, head_seq bigint, next_seq bigint)
LANGUAGE sql SET search_path = pg_catalog, pg_temp STABLE AS $$
    SELECT count(*), coalesce(sum(octet_length(payload)), 0)::bigint, coalesce(min(seq), p_next),
        greatest(p_next, max(seq) + 1)
    FROM @messages WHERE thread = p_thread
$$;

-- Corrects the counts of threads; returns how many threads were changed.
CREATE OR REPLACE FUNCTION @recount(p_ids bigint[]) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_done int;
BEGIN
    PERFORM FROM @threads WHERE id = ANY (p_ids) ORDER BY tenant, thread_id FOR UPDATE;
    -- A separate statement, so that it sees all that was committed before the locks were granted.
    UPDATE @threads t SET count = c.count, size = c.size, head_seq = c.head_seq, next_seq = c.next_seq
    FROM @threads o, LATERAL @counted(o.id, o.next_seq) c
    WHERE o.id = ANY (p_ids) AND t.id = o.id
        AND (t.count, t.size, t.head_seq, t.next_seq) <> (c.count, c.size, c.head_seq, c.next_seq);
    GET DIAGNOSTICS v_done = ROW_COUNT;
    RETURN v_done;
END $$;

-- The first thread after one that has rows in other tables, or null.
CREATE OR REPLACE FUNCTION @next_kept(p_after bigint) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp STABLE AS $$
    SELECT least(
        (SELECT thread FROM @messages WHERE thread > p_after ORDER BY thread LIMIT 1),
        (SELECT thread FROM @appends WHERE thread > p_after ORDER BY thread LIMIT 1),
        (SELECT thread FROM @documents WHERE thread > p_after ORDER BY thread LIMIT 1))
$$;
