-- Searching: the words of a message, and what is asked for.

-- The lexeme that narrows a search to one tenant; the tenant itself is checked beside it.
CREATE OR REPLACE FUNCTION @mark(p_tenant text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT 'tenant' || left(encode(sha256(convert_to(p_tenant, 'UTF8')), 'hex'), 16)
$$;

-- What the index keeps of a message.
CREATE OR REPLACE FUNCTION @words(p_language regconfig, p_text text, p_tenant text) RETURNS tsvector LANGUAGE sql STABLE AS $$
    SELECT to_tsvector(p_language, p_text) || array_to_tsvector(ARRAY[@mark(p_tenant)])
$$;

-- The query for messages of a tenant that hold every phrase; null, which finds nothing, where no phrase has a word.
CREATE OR REPLACE FUNCTION @asked(p_language text, p_phrases text[], p_tenant text) RETURNS tsquery LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_query tsquery := '';
    v_phrase text;
BEGIN
    FOREACH v_phrase IN ARRAY p_phrases LOOP
        -- Nothing in a phrase is an operator here.
        v_query := v_query && phraseto_tsquery(p_language::regconfig, v_phrase);
    END LOOP;
    RETURN CASE WHEN numnode(v_query) > 0 THEN v_query && @mark(p_tenant)::tsquery END;
END $$;
