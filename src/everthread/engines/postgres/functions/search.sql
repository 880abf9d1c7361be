-- Searching: the words of a message, and the query.

-- The lexeme that narrows a search to one tenant; the search also compares the tenant itself.
CREATE OR REPLACE FUNCTION @mark(p_tenant text) RETURNS text
LANGUAGE sql SET search_path = pg_catalog, pg_temp IMMUTABLE AS $$
    SELECT 'tenant' || left(encode(sha256(convert_to(p_tenant, 'UTF8')), 'hex'), 16)
$$;

-- A text search configuration by its name. Without a schema it is one of PostgreSQL's own, or else one in public.
CREATE OR REPLACE FUNCTION @configuration(p_name text) RETURNS regconfig
LANGUAGE sql SET search_path = pg_catalog, pg_temp STABLE AS $$
    SELECT CASE
        WHEN p_name LIKE '%.%' OR EXISTS (
            SELECT FROM pg_ts_config WHERE cfgname = p_name AND cfgnamespace = 'pg_catalog'::regnamespace)
        THEN p_name ELSE 'public.' || p_name END::regconfig
$$;

-- The lexemes of a message in the index.
CREATE OR REPLACE FUNCTION @words(p_language regconfig, p_text text, p_tenant text) RETURNS tsvector
LANGUAGE sql SET search_path = pg_catalog, pg_temp STABLE AS $$
    SELECT to_tsvector(p_language, p_text) || array_to_tsvector(ARRAY[@mark(p_tenant)])
$$;

-- The query for messages of a tenant that hold every phrase; null, which finds nothing, if no phrase has a word.
CREATE OR REPLACE FUNCTION @asked(p_language text, p_phrases text[], p_tenant text) RETURNS tsquery
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp STABLE AS $$
DECLARE
    v_language regconfig := @configuration(p_language);
    v_query tsquery := '';
    v_phrase text;
BEGIN
    FOREACH v_phrase IN ARRAY p_phrases LOOP
        -- Nothing in a phrase is an operator here.
        v_query := v_query && phraseto_tsquery(v_language, v_phrase);
    END LOOP;
    RETURN CASE WHEN numnode(v_query) > 0 THEN v_query && @mark(p_tenant)::tsquery END;
END $$;
