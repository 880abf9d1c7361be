-- What is kept twice, compared: each call looks at a bounded part.

-- The threads after one, by their ids: at most 500, and of about 100,000 messages unless it is one.
CREATE OR REPLACE FUNCTION @threads_after(p_after bigint) RETURNS TABLE (id bigint) LANGUAGE sql STABLE AS $$
    SELECT id FROM (
        SELECT id, sum(count) OVER (ORDER BY id) - count AS messages_before
        FROM (SELECT id, count FROM @threads WHERE id > p_after ORDER BY id LIMIT 500) AS next_ones
    ) AS counted
    WHERE messages_before < 100000
$$;

-- What the row of a thread should say, from its messages. The next position never goes back.
CREATE OR REPLACE FUNCTION @counted(p_thread bigint, p_next bigint)
RETURNS TABLE (count bigint, size bigint, head_seq bigint, next_seq bigint) LANGUAGE sql STABLE AS $$
    SELECT count(*), coalesce(sum(octet_length(payload)), 0)::bigint, coalesce(min(seq), p_next),
        greatest(p_next, max(seq) + 1)
    FROM @messages WHERE thread = p_thread
$$;

-- Makes the counts of threads those of their messages; gives how many threads were changed.
CREATE OR REPLACE FUNCTION @recount(p_ids bigint[]) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_done int;
BEGIN
    PERFORM FROM @threads WHERE id = ANY (p_ids) ORDER BY tenant, thread_id FOR UPDATE;
    -- A statement of its own, so that it sees what was committed before the locks were granted.
    UPDATE @threads t SET count = c.count, size = c.size, head_seq = c.head_seq, next_seq = c.next_seq
    FROM @threads o, LATERAL @counted(o.id, o.next_seq) c
    WHERE o.id = ANY (p_ids) AND t.id = o.id
        AND (t.count, t.size, t.head_seq, t.next_seq) <> (c.count, c.size, c.head_seq, c.next_seq);
    GET DIAGNOSTICS v_done = ROW_COUNT;
    RETURN v_done;
END $$;

-- The first thread after one of which anything is kept beside its row, or null.
CREATE OR REPLACE FUNCTION @next_kept(p_after bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT least(
        (SELECT thread FROM @messages WHERE thread > p_after ORDER BY thread LIMIT 1),
        (SELECT thread FROM @appends WHERE thread > p_after ORDER BY thread LIMIT 1),
        (SELECT thread FROM @documents WHERE thread > p_after ORDER BY thread LIMIT 1))
$$;
