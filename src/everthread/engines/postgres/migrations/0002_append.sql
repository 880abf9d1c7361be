-- Appending: one call writes a batch of turns to any threads, each turn succeeding or failing by itself.

-- The time by the server's clock, unless the client gives one.
CREATE FUNCTION @now(p_now bigint) RETURNS bigint LANGUAGE sql AS $$
    SELECT coalesce(p_now, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
$$;

-- The lexeme that narrows a search to one tenant; the tenant itself is checked beside it.
CREATE FUNCTION @mark(p_tenant text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT 'tenant' || left(encode(sha256(convert_to(p_tenant, 'UTF8')), 'hex'), 16)
$$;

-- Locks the rows of threads, and makes those that do not exist or have expired anew.
-- All callers lock in the order of (tenant, thread_id), so no two wait for each other.
-- Gives the ids of the rows that are new.
CREATE FUNCTION @claim(p_tenants text[], p_threads text[], p_now bigint) RETURNS bigint[]
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_new bigint[];
    v_expired bigint[];
BEGIN
    WITH claimed AS (
        INSERT INTO @threads AS t (tenant, thread_id, created_ms, updated_ms)
        SELECT DISTINCT asked.tenant COLLATE "C", asked.thread_id COLLATE "C", p_now, p_now
        FROM unnest(p_tenants, p_threads) AS asked (tenant, thread_id)
        ORDER BY 1, 2
        -- Every row is locked, but only those that hold the condition are written and returned.
        ON CONFLICT (tenant, thread_id) DO UPDATE SET expires_ms = t.expires_ms WHERE t.expires_ms <= p_now
        RETURNING t.id, t.expires_ms
    )
    SELECT array_agg(id) FILTER (WHERE expires_ms IS NULL), array_agg(id) FILTER (WHERE expires_ms IS NOT NULL)
    INTO v_new, v_expired FROM claimed;
    IF v_expired IS NOT NULL THEN
        v_new := v_new || @begin_anew(v_expired, p_now);
    END IF;
    RETURN v_new;
END $$;

-- Puts new threads in the place of expired ones whose rows are locked; gives the new rows' ids.
CREATE FUNCTION @begin_anew(p_expired bigint[], p_now bigint) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    v_tenants text[];
    v_threads text[];
    v_new bigint[];
BEGIN
    INSERT INTO @erased SELECT unnest(p_expired);
    WITH gone AS (DELETE FROM @threads WHERE id = ANY (p_expired) RETURNING tenant, thread_id)
    SELECT array_agg(tenant), array_agg(thread_id) INTO v_tenants, v_threads FROM gone;
    WITH made AS (
        INSERT INTO @threads (tenant, thread_id, created_ms, updated_ms)
        SELECT tenant, thread_id, p_now, p_now FROM unnest(v_tenants, v_threads) AS gone (tenant, thread_id)
        RETURNING id
    )
    SELECT array_agg(id) INTO v_new FROM made;
    RETURN v_new;
END $$;

-- Notes that a thread may not be cut between two positions; joins this with the spans that it touches.
CREATE FUNCTION @tie(p_thread bigint, p_lo bigint, p_hi bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_lo bigint;
    v_hi bigint;
BEGIN
    WITH joined AS (
        UPDATE @messages SET tied_to = NULL FROM (
            SELECT seq, tied_to FROM @messages
            WHERE thread = p_thread AND tied_to IS NOT NULL AND seq >= p_lo AND tied_to <= p_hi
        ) AS touched
        WHERE thread = p_thread AND @messages.seq = touched.seq
        RETURNING touched.seq, touched.tied_to
    )
    SELECT least(p_lo, min(tied_to)), greatest(p_hi, max(seq)) INTO v_lo, v_hi FROM joined;
    UPDATE @messages SET tied_to = v_lo WHERE thread = p_thread AND seq = v_hi;
END $$;

-- Drops a thread's messages below the first safe cut at or above a position.
CREATE FUNCTION @drop_head(p_thread bigint, p_start bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_span record;
    v_start bigint := p_start;
BEGIN
    IF p_start <= (SELECT head_seq FROM @threads WHERE id = p_thread) THEN
        RETURN;
    END IF;
    SELECT seq, tied_to INTO v_span FROM @messages
    WHERE thread = p_thread AND tied_to IS NOT NULL AND seq >= p_start ORDER BY seq LIMIT 1;
    IF v_span.tied_to < p_start THEN
        v_start := v_span.seq + 1;
    END IF;
    WITH dropped AS (
        -- From head_seq on, not from 0: index entries of rows that went before may still be there to step over.
        DELETE FROM @messages m USING @threads t
        WHERE t.id = p_thread AND m.thread = p_thread AND m.seq >= t.head_seq AND m.seq < v_start
        RETURNING octet_length(m.payload) AS size
    ), totals AS (
        SELECT count(*) AS count, coalesce(sum(size), 0) AS size FROM dropped
    )
    UPDATE @threads t SET
        count = t.count - totals.count,
        size = t.size - totals.size,
        head_seq = coalesce(
            (SELECT m.seq FROM @messages m WHERE m.thread = p_thread AND m.seq >= greatest(v_start, t.head_seq)
             ORDER BY m.seq LIMIT 1),
            t.next_seq),
        open_ids = CASE WHEN v_start <= ALL (open_at) THEN open_ids ELSE
            ARRAY(SELECT o.id FROM unnest(open_ids, open_at) WITH ORDINALITY AS o (id, at, n)
                  WHERE o.at >= v_start ORDER BY o.n) END,
        open_at = CASE WHEN v_start <= ALL (open_at) THEN open_at ELSE
            ARRAY(SELECT o.at FROM unnest(open_ids, open_at) WITH ORDINALITY AS o (id, at, n)
                  WHERE o.at >= v_start ORDER BY o.n) END
    FROM totals WHERE t.id = p_thread;
END $$;

-- Ties the results of a new turn to calls of earlier turns, and keeps the list of open calls (at most the newest 1,000).
CREATE FUNCTION @link(
    p_thread bigint, p_first bigint, p_early_ids bytea[], p_early_at int[], p_open_ids bytea[], p_open_at int[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_ids bytea[];
    v_at bigint[];
    v_call int;
BEGIN
    SELECT open_ids, open_at INTO v_ids, v_at FROM @threads WHERE id = p_thread;
    FOR i IN 1 .. cardinality(p_early_ids) LOOP
        v_call := array_position(v_ids, p_early_ids[i]);
        IF v_call IS NOT NULL AND array_position(p_early_ids, p_early_ids[i]) = i THEN
            PERFORM @tie(p_thread, v_at[v_call], p_first + p_early_at[i]);
        ELSE
            -- Its call is not known: it must at least not stand at the head.
            PERFORM @tie(p_thread, p_first + p_early_at[i] - 1, p_first + p_early_at[i]);
        END IF;
    END LOOP;
    SELECT coalesce(array_agg(id ORDER BY n), '{}'), coalesce(array_agg(at ORDER BY n), '{}') INTO v_ids, v_at FROM (
        SELECT o.id, o.at, o.n FROM unnest(v_ids, v_at) WITH ORDINALITY AS o (id, at, n)
        WHERE o.id <> ALL (p_early_ids) AND o.id <> ALL (p_open_ids)
        UNION ALL
        SELECT o.id, p_first + o.at, 1000000 + o.n FROM unnest(p_open_ids, p_open_at) WITH ORDINALITY AS o (id, at, n)
        ORDER BY 3 DESC LIMIT 1000
    ) AS newest;
    UPDATE @threads SET open_ids = v_ids, open_at = v_at WHERE id = p_thread;
END $$;

-- Drops the oldest messages until at most p_most are kept.
CREATE FUNCTION @trim(p_thread bigint, p_most bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_head bigint;
    v_next bigint;
    v_excess bigint;
BEGIN
    SELECT head_seq, next_seq, count - p_most INTO v_head, v_next, v_excess FROM @threads WHERE id = p_thread;
    IF v_excess > 0 THEN
        -- Steps over just the rows that are dropped: dropped tails leave holes, so that the position cannot be computed.
        PERFORM @drop_head(p_thread, coalesce(
            (SELECT seq FROM @messages WHERE thread = p_thread AND seq >= v_head ORDER BY seq OFFSET v_excess LIMIT 1),
            v_next));
    END IF;
END $$;

-- Appends a batch of turns. Arrays run over turns (p_tenants … p_titles), over all their messages (p_owners …
-- p_texts; p_owners says which turn each belongs to), over results of earlier calls, and over calls left open.
-- Turns of one thread come in ascending rounds: a round holds each thread once.
-- Gives for each turn: 0 written, 1 written before, 2 not the expected position; and its first and next position.
CREATE FUNCTION @append(
    p_now bigint, p_tenants text[], p_threads text[], p_appends text[], p_rounds int[], p_counts int[], p_sizes bigint[],
    p_expected bigint[], p_most bigint[], p_expire bigint[], p_titles text[],
    p_owners int[], p_at int[], p_payloads bytea[], p_formats text[], p_created bigint[], p_ties int[],
    p_texts text[], p_language regconfig,
    p_early_owners int[], p_early_ids bytea[], p_early_at int[], p_open_owners int[], p_open_ids bytea[], p_open_at int[]
) RETURNS TABLE (turn int, outcome int, first_seq bigint, next_seq bigint)
-- A cached plan is not made anew when tables grow: it must be one that is good then.
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    v_new bigint[] := @claim(p_tenants, p_threads, @now(p_now));
    v_now bigint := @now(p_now);
    v_round int := 1;
    v_outcome int[];   -- null for turns of other rounds
    v_write bigint[];  -- the thread's id for turns that are written, else null
    v_first bigint[];
    v_next bigint[];
    v_number bigint[];
    v_settle int[];
    v_left boolean;
    i int;
BEGIN
    LOOP
        SELECT
            array_agg(q.outcome ORDER BY q.n), array_agg(CASE WHEN q.outcome = 0 THEN q.id END ORDER BY q.n),
            array_agg(q.first_seq ORDER BY q.n), array_agg(q.next_seq ORDER BY q.n), array_agg(q.number ORDER BY q.n),
            array_agg(q.n ORDER BY q.n) FILTER (WHERE q.outcome = 0 AND (
                q.kept > q.most OR q.n = ANY (p_early_owners) OR q.n = ANY (p_open_owners) OR q.number % 100 = 0)),
            coalesce(bool_or(q.round > v_round), false)
        INTO v_outcome, v_write, v_first, v_next, v_number, v_settle, v_left
        FROM (
            SELECT
                r.n::int, t.id, r.most, r.round, t.count + r.count AS kept, t.appends + 1 AS number,
                CASE WHEN r.round <> v_round THEN NULL WHEN a.thread IS NOT NULL THEN 1
                     WHEN r.expected <> t.next_seq THEN 2 ELSE 0 END AS outcome,
                coalesce(a.first_seq, t.next_seq) AS first_seq,
                coalesce(a.next_seq, CASE WHEN r.expected <> t.next_seq THEN t.next_seq ELSE t.next_seq + r.count END)
                    AS next_seq
            FROM unnest(p_tenants, p_threads, p_appends, p_rounds, p_counts, p_expected, p_most) WITH ORDINALITY
                AS r (tenant, thread_id, append_id, round, count, expected, most, n)
            JOIN @threads t ON t.tenant = r.tenant AND t.thread_id = r.thread_id
            LEFT JOIN @appends a ON a.thread = t.id AND a.append_id = r.append_id
        ) AS q;

        INSERT INTO @messages (thread, seq, turn, format, payload, created_ms, tied_to, search)
        SELECT
            v_write[m.owner], v_first[m.owner] + m.at, v_first[m.owner], m.format, convert_from(m.payload, 'UTF8'),
            coalesce(m.created, v_now), v_first[m.owner] + m.tie,
            to_tsvector(p_language, m.text) || array_to_tsvector(ARRAY[@mark(p_tenants[m.owner])])
        FROM unnest(p_owners, p_at, p_payloads, p_formats, p_created, p_ties, p_texts)
            AS m (owner, at, payload, format, created, tie, text)
        WHERE v_write[m.owner] IS NOT NULL;

        INSERT INTO @appends (thread, append_id, number, first_seq, next_seq)
        SELECT v_write[r.n], r.append_id, v_number[r.n], v_first[r.n], v_next[r.n]
        FROM unnest(p_appends) WITH ORDINALITY AS r (append_id, n) WHERE v_write[r.n] IS NOT NULL;

        UPDATE @threads t SET
            next_seq = v_next[r.n], count = t.count + r.count, size = t.size + r.size, appends = v_number[r.n],
            updated_ms = v_now, expires_ms = v_now + r.expire, title = coalesce(t.title, r.title)
        FROM unnest(p_counts, p_sizes, p_expire, p_titles) WITH ORDINALITY AS r (count, size, expire, title, n)
        WHERE t.id = v_write[r.n];

        FOREACH i IN ARRAY coalesce(v_settle, '{}') LOOP
            IF i = ANY (p_early_owners) OR i = ANY (p_open_owners) THEN
                PERFORM @link(v_write[i], v_first[i],
                    ARRAY(SELECT id FROM unnest(p_early_owners, p_early_ids) AS e (owner, id) WHERE owner = i),
                    ARRAY(SELECT at FROM unnest(p_early_owners, p_early_at) AS e (owner, at) WHERE owner = i),
                    ARRAY(SELECT id FROM unnest(p_open_owners, p_open_ids) AS o (owner, id) WHERE owner = i),
                    ARRAY(SELECT at FROM unnest(p_open_owners, p_open_at) AS o (owner, at) WHERE owner = i));
            END IF;
            IF p_most[i] IS NOT NULL THEN
                PERFORM @trim(v_write[i], p_most[i]);
            END IF;
            IF v_number[i] % 100 = 0 THEN
                DELETE FROM @appends a WHERE a.thread = v_write[i] AND a.number <= v_number[i] - 1000;
            END IF;
        END LOOP;

        RETURN QUERY SELECT r.n::int, r.o, r.f, r.x FROM unnest(v_outcome, v_first, v_next) WITH ORDINALITY
            AS r (o, f, x, n) WHERE r.o IS NOT NULL;
        EXIT WHEN NOT v_left;
        v_round := v_round + 1;
    END LOOP;
    IF v_new IS NOT NULL THEN
        -- Rows that were made for turns of which none was written.
        DELETE FROM @threads t WHERE t.id = ANY (v_new) AND t.appends = 0;
    END IF;
END $$;
