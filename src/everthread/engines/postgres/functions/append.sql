-- Appends: one call writes a batch of turns to any threads. Each turn succeeds or fails alone.
-- All functions pin the search path, so that roles that may create objects elsewhere cannot plant functions to call.

-- Returns the client's time, or the time of the server's clock.
CREATE OR REPLACE FUNCTION @now(p_now bigint) RETURNS bigint LANGUAGE sql AS $$
    -- Names its schema instead of pinning the path, so that it is inlined.
    SELECT coalesce(
        p_now, pg_catalog.floor(extract(epoch FROM pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1000)::bigint)
$$;

-- Locks the rows of threads, and creates those that do not exist or have expired.
-- All callers lock in the order of (tenant, thread_id), so no two wait for each other.
-- Returns the IDs of the new rows.
CREATE OR REPLACE FUNCTION @claim(p_tenants text[], p_threads text[], p_now bigint) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_new bigint[];
    v_expired bigint[];
BEGIN
    WITH claimed AS (
        INSERT INTO @threads AS t (tenant, thread_id, created_ms, updated_ms)
        SELECT DISTINCT asked.tenant COLLATE "C", asked.thread_id COLLATE "C", p_now, p_now
        FROM unnest(p_tenants, p_threads) AS asked (tenant, thread_id)
        ORDER BY 1, 2
        -- Locks every row, but writes and returns only those that meet the condition.
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

-- Replaces expired threads by new ones; the caller has locked their rows. Returns the IDs of the new rows.
CREATE OR REPLACE FUNCTION @begin_anew(p_expired bigint[], p_now bigint) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_tenants text[];
    v_threads text[];
    v_new bigint[];
BEGIN
    INSERT INTO @erased SELECT unnest(p_expired) ON CONFLICT DO NOTHING;
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

-- Forbids cuts of a thread between two positions; merges this span with those that it touches.
CREATE OR REPLACE FUNCTION @tie(p_thread bigint, p_lo bigint, p_hi bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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
CREATE OR REPLACE FUNCTION @drop_head(p_thread bigint, p_start bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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
        -- From head_seq on, not from 0: the index may still have entries of rows that were deleted before.
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

-- Links results of a new turn to calls of earlier turns, and updates the open calls (at most the newest 1,000).
CREATE OR REPLACE FUNCTION @link(
    p_thread bigint, p_first bigint, p_early_ids bytea[], p_early_at int[], p_open_ids bytea[], p_open_at int[]
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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
            -- Its call is not known: link it to the message before it, so that it cannot become the first message.
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

-- Drops the oldest messages until at most p_most are left.
CREATE OR REPLACE FUNCTION @trim(p_thread bigint, p_most bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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

-- Completes the writing of a turn: links to earlier turns, trimming, deletion of old append IDs.
CREATE OR REPLACE FUNCTION @settle(
    p_thread bigint, p_turn int, p_first bigint, p_number bigint, p_most bigint,
    p_early_owners int[], p_early_ids bytea[], p_early_at int[], p_open_owners int[], p_open_ids bytea[], p_open_at int[]
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_turn = ANY (p_early_owners) OR p_turn = ANY (p_open_owners) THEN
        PERFORM @link(p_thread, p_first,
            ARRAY(SELECT id FROM unnest(p_early_owners, p_early_ids) AS e (owner, id) WHERE owner = p_turn),
            ARRAY(SELECT at FROM unnest(p_early_owners, p_early_at) AS e (owner, at) WHERE owner = p_turn),
            ARRAY(SELECT id FROM unnest(p_open_owners, p_open_ids) AS o (owner, id) WHERE owner = p_turn),
            ARRAY(SELECT at FROM unnest(p_open_owners, p_open_at) AS o (owner, at) WHERE owner = p_turn));
    END IF;
    IF p_most IS NOT NULL THEN
        PERFORM @trim(p_thread, p_most);
    END IF;
    IF p_number % 100 = 0 THEN
        DELETE FROM @appends WHERE thread = p_thread AND number <= p_number - 1000;
    END IF;
END $$;

-- Appends turns of different threads. Arrays run over the turns (p_tenants … p_titles), over all their messages
-- (p_owners … p_texts; p_owners has the turn of each message), over results of earlier calls, and over calls left
-- open. Empty ones are null. Messages with a null format have the format p_format. p_before is subtracted from all
-- owners. A position in p_skips is that of a turn's first message; p_expected has the lower one that is expected.
-- Returns for each turn: 0 written, 1 written before, 2 not the expected position; and its first and next position.
CREATE OR REPLACE FUNCTION @append(
    p_now bigint, p_before int,
    p_tenants text[], p_threads text[], p_appends text[], p_counts int[], p_sizes bigint[],
    p_expected bigint[], p_skips bigint[], p_most bigint[], p_expire bigint[], p_overrides boolean[], p_titles text[],
    p_owners int[], p_at int[], p_payloads bytea[], p_format text, p_formats text[], p_created bigint[], p_ties int[],
    p_texts text[], p_language text,
    p_early_owners int[], p_early_ids bytea[], p_early_at int[], p_open_owners int[], p_open_ids bytea[], p_open_at int[]
) RETURNS TABLE (turn int, outcome int, first_seq bigint, next_seq bigint)
-- PostgreSQL does not replace a cached plan when tables grow: it must be a plan that suits large tables.
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_turns int := cardinality(p_tenants);
    v_threads bigint[] := array_fill(NULL::bigint, ARRAY[v_turns]);  -- null for turns that are not written
    v_first bigint[] := v_threads;
    v_number bigint[] := v_threads;
    v_times bigint[] := v_threads;
    v_most bigint[] := v_threads;
    v_language regconfig := CASE WHEN p_texts IS NOT NULL THEN @configuration(p_language) END;
    v_settle int[] := '{}';
    v_new bigint[];
    v_row record;
    v_written int := 0;
    v_turn int;
BEGIN
    v_new := @claim(p_tenants, p_threads, @now(p_now));
    FOR v_row IN
        UPDATE @threads t SET
            next_seq = coalesce(r.skip, t.next_seq) + r.count, count = t.count + r.count, size = t.size + r.size,
            head_seq = CASE WHEN t.count = 0 THEN coalesce(r.skip, t.head_seq) ELSE t.head_seq END,
            appends = t.appends + 1, updated_ms = greatest(@now(p_now), t.created_ms),
            -- The clock may have been set back since the thread was created.
            expires_ms = greatest(@now(p_now), t.created_ms) +
                CASE WHEN t.has_retention AND r.overrides IS NOT true THEN t.own_expire ELSE r.expire END,
            title = CASE WHEN t.next_seq = 0 AND r.skip IS NULL THEN coalesce(t.title, r.title) ELSE t.title END
        FROM unnest(
            p_tenants, p_threads, p_appends, p_counts, p_sizes, p_expected, p_skips, p_most, p_expire, p_overrides,
            p_titles
        ) WITH ORDINALITY
            AS r (tenant, thread_id, append_id, count, size, expected, skip, most, expire, overrides, title, n)
        WHERE t.tenant = r.tenant AND t.thread_id = r.thread_id
            AND (r.expected IS NULL OR r.expected = t.next_seq)
            -- Not NOT EXISTS, which may become a join that reads all append IDs of the thread.
            AND (SELECT a.number FROM @appends a WHERE a.thread = t.id AND a.append_id = r.append_id) IS NULL
        RETURNING r.n::int, t.id, t.next_seq - r.count AS first, t.appends, t.count, t.updated_ms,
            CASE WHEN t.has_retention AND r.overrides IS NOT true THEN t.own_most ELSE r.most END AS most
    LOOP
        v_written := v_written + 1;
        v_threads[v_row.n] := v_row.id;
        v_first[v_row.n] := v_row.first;
        v_number[v_row.n] := v_row.appends;
        v_times[v_row.n] := v_row.updated_ms;
        v_most[v_row.n] := v_row.most;
        IF v_row.count > v_row.most OR v_row.appends % 100 = 0
            OR v_row.n + p_before = ANY (p_early_owners) OR v_row.n + p_before = ANY (p_open_owners) THEN
            v_settle := v_settle || v_row.n;
        END IF;
    END LOOP;

    IF v_written > 0 THEN
        INSERT INTO @appends (thread, append_id, number, first_seq, next_seq)
        SELECT v_threads[r.n], r.append_id, v_number[r.n], v_first[r.n], v_first[r.n] + r.count
        FROM unnest(p_appends, p_counts) WITH ORDINALITY AS r (append_id, count, n) WHERE v_threads[r.n] IS NOT NULL;
        INSERT INTO @messages (thread, seq, turn, format, payload, created_ms, tied_to, search, search_language)
        SELECT
            v_threads[m.turn], v_first[m.turn] + m.at, v_first[m.turn], coalesce(m.format, p_format),
            convert_from(m.payload, 'UTF8'), coalesce(m.created, v_times[m.turn]), v_first[m.turn] + m.tie,
            CASE WHEN m.text IS NOT NULL THEN @words(v_language, m.text, p_tenants[m.turn]) END,
            CASE WHEN m.text IS NOT NULL THEN p_language END
        FROM (
            SELECT owner - p_before AS turn, at, payload, format, created, tie, text
            FROM unnest(p_owners, p_at, p_payloads, p_formats, p_created, p_ties, p_texts)
                AS u (owner, at, payload, format, created, tie, text)
        ) AS m
        WHERE v_threads[m.turn] IS NOT NULL;
        FOREACH v_turn IN ARRAY v_settle LOOP
            PERFORM @settle(v_threads[v_turn], v_turn + p_before, v_first[v_turn], v_number[v_turn], v_most[v_turn],
                p_early_owners, p_early_ids, p_early_at, p_open_owners, p_open_ids, p_open_at);
        END LOOP;
    END IF;

    RETURN QUERY
        SELECT r.n::int, 0, r.first, r.first + r.count FROM unnest(v_threads, v_first, p_counts) WITH ORDINALITY
            AS r (thread, first, count, n) WHERE r.thread IS NOT NULL;
    IF v_written < v_turns THEN
        RETURN QUERY
            SELECT r.n::int, CASE WHEN a.thread IS NULL THEN 2 ELSE 1 END, coalesce(a.first_seq, t.next_seq),
                coalesce(a.next_seq, t.next_seq)
            FROM unnest(v_threads, p_tenants, p_threads, p_appends) WITH ORDINALITY
                AS r (written, tenant, thread_id, append_id, n)
            JOIN @threads t ON t.tenant = r.tenant AND t.thread_id = r.thread_id
            LEFT JOIN @appends a ON a.thread = t.id AND a.append_id = r.append_id
            WHERE r.written IS NULL;
        -- Deletes rows that were created for threads to which no turn was written.
        DELETE FROM @threads t WHERE t.id = ANY (v_new) AND t.appends = 0;
    END IF;
END $$;

-- Appends one turn that holds no results of earlier calls and leaves no calls open: the usual case, with the least work.
-- Returns the row of append for one turn, as an array.
CREATE OR REPLACE FUNCTION @append_one(
    p_now bigint, p_tenant text, p_thread text, p_append text, p_size bigint, p_expected bigint, p_most bigint,
    p_expire bigint, p_overrides boolean, p_title text, p_payloads bytea[], p_format text, p_ties int[]
) RETURNS bigint[] LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_count int := cardinality(p_payloads);
    v_row record;
    v_first bigint;
BEGIN
    UPDATE @threads t SET
        next_seq = next_seq + v_count, count = count + v_count, size = size + p_size, appends = appends + 1,
        updated_ms = greatest(@now(p_now), created_ms),
        title = CASE WHEN next_seq = 0 THEN coalesce(title, p_title) ELSE title END,
        expires_ms = greatest(@now(p_now), created_ms) + CASE WHEN has_retention AND NOT p_overrides THEN own_expire ELSE p_expire END
    WHERE tenant = p_tenant AND thread_id = p_thread AND (expires_ms IS NULL OR expires_ms > @now(p_now))
        AND (p_expected IS NULL OR p_expected = next_seq)
        AND (SELECT a.number FROM @appends a WHERE a.thread = t.id AND a.append_id = p_append) IS NULL
    RETURNING id, next_seq, appends, count, updated_ms,
        CASE WHEN has_retention AND NOT p_overrides THEN own_most ELSE p_most END AS most INTO v_row;
    IF NOT FOUND AND coalesce(p_expected, 0) = 0 THEN
        INSERT INTO @threads AS t (
            tenant, thread_id, next_seq, count, size, appends, created_ms, updated_ms, expires_ms, title)
        VALUES (p_tenant, p_thread, v_count, v_count, p_size, 1, @now(p_now), @now(p_now), @now(p_now) + p_expire, p_title)
        ON CONFLICT (tenant, thread_id) DO NOTHING
        RETURNING id, next_seq, appends, count, updated_ms, p_most AS most INTO v_row;
    END IF;
    IF NOT FOUND THEN
        -- The thread has expired, or this append was written before, or its expected position is wrong.
        RETURN (SELECT ARRAY[1, outcome, first_seq, next_seq] FROM @append(
            p_now, 0, ARRAY[p_tenant], ARRAY[p_thread], ARRAY[p_append], ARRAY[v_count], ARRAY[p_size],
            ARRAY[p_expected], NULL, ARRAY[p_most], ARRAY[p_expire], ARRAY[p_overrides], ARRAY[p_title],
            array_fill(1, ARRAY[v_count]), ARRAY(SELECT generate_series(0, v_count - 1)), p_payloads, p_format, NULL, NULL, p_ties, NULL, NULL,
            NULL, NULL, NULL, NULL, NULL, NULL));
    END IF;
    v_first := v_row.next_seq - v_count;
    INSERT INTO @appends (thread, append_id, number, first_seq, next_seq)
    VALUES (v_row.id, p_append, v_row.appends, v_first, v_row.next_seq)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        -- Another session wrote it while this one waited for the row. A repeat finds it.
        RAISE 'the same append is written by another session' USING ERRCODE = 'serialization_failure';
    END IF;
    INSERT INTO @messages (thread, seq, turn, format, payload, created_ms, tied_to)
    SELECT v_row.id, v_first + m.n - 1, v_first, p_format, convert_from(m.payload, 'UTF8'), v_row.updated_ms, v_first + m.tie
    FROM unnest(p_payloads, p_ties) WITH ORDINALITY AS m (payload, tie, n);
    IF v_row.count > v_row.most OR v_row.appends % 100 = 0 THEN
        PERFORM @settle(v_row.id, 1, v_first, v_row.appends, v_row.most, NULL, NULL, NULL, NULL, NULL, NULL);
    END IF;
    RETURN ARRAY[1, 0, v_first, v_row.next_seq];
END $$;

-- Appends turns, several of them to the same thread. They are sorted by rounds that hold each thread once; p_ends and
-- p_message_ends are the ends of the turns and the messages of each round. The other arguments are those of append.
CREATE OR REPLACE FUNCTION @append_rounds(
    p_ends int[], p_message_ends int[], p_now bigint,
    p_tenants text[], p_threads text[], p_appends text[], p_counts int[], p_sizes bigint[],
    p_expected bigint[], p_skips bigint[], p_most bigint[], p_expire bigint[], p_overrides boolean[], p_titles text[],
    p_owners int[], p_at int[], p_payloads bytea[], p_format text, p_formats text[], p_created bigint[], p_ties int[],
    p_texts text[], p_language text,
    p_early_owners int[], p_early_ids bytea[], p_early_at int[], p_open_owners int[], p_open_ids bytea[], p_open_at int[]
) RETURNS TABLE (turn int, outcome int, first_seq bigint, next_seq bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    i int := 1;  -- the round's first and last turn
    j int;
    k int := 1;  -- and message
    l int;
BEGIN
    FOR v_round IN 1 .. cardinality(p_ends) LOOP
        j := p_ends[v_round];
        l := p_message_ends[v_round];
        RETURN QUERY SELECT a.turn + i - 1, a.outcome, a.first_seq, a.next_seq FROM @append(
            p_now, i - 1,
            p_tenants[i:j], p_threads[i:j], p_appends[i:j], p_counts[i:j], p_sizes[i:j],
            p_expected[i:j], p_skips[i:j], p_most[i:j], p_expire[i:j], p_overrides[i:j], p_titles[i:j],
            p_owners[k:l], p_at[k:l], p_payloads[k:l], p_format, p_formats[k:l], p_created[k:l], p_ties[k:l],
            p_texts[k:l], p_language,
            p_early_owners, p_early_ids, p_early_at, p_open_owners, p_open_ids, p_open_at) a;
        i := j + 1;
        k := l + 1;
    END LOOP;
END $$;
