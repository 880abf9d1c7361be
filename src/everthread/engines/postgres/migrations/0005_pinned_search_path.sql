-- Functions of earlier versions, which processes of the release before still call, get the pinned search path too.
-- (The functions in the folder functions have it already. Their purge looks for the thread before it deletes rows.)

DO $$
DECLARE
    v_function regprocedure;
BEGIN
    FOR v_function IN
        SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname || '.' || p.proname IN (
            '@claim', '@begin_anew', '@tie', '@drop_head', '@link', '@trim', '@settle', '@append', '@append_one',
            '@append_rounds', '@locked', '@drop_tail', '@truncate', '@rewrite', '@put_document', '@erase',
            '@delete_thread', '@delete_tenant', '@purge', '@words', '@asked')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp', v_function);
    END LOOP;
END $$;
