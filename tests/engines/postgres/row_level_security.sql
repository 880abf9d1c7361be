-- Lets a role reach one tenant's threads only. Run it as the owner of the tables, once for each role,
-- and again after a migration.

ALTER TABLE @threads ENABLE ROW LEVEL SECURITY;
ALTER TABLE @messages ENABLE ROW LEVEL SECURITY;
ALTER TABLE @appends ENABLE ROW LEVEL SECURITY;
ALTER TABLE @documents ENABLE ROW LEVEL SECURITY;
ALTER TABLE @erased ENABLE ROW LEVEL SECURITY;

GRANT USAGE ON SCHEMA :schema TO :role;
GRANT SELECT ON @migrations TO :role;
GRANT SELECT, INSERT, UPDATE, DELETE ON @messages, @appends, @documents, @erased TO :role;
-- Not on id: whoever could choose it could reach what an expired thread of another tenant left behind.
GRANT SELECT, DELETE ON @threads TO :role;
GRANT INSERT (
    tenant, thread_id, next_seq, count, size, appends, created_ms, updated_ms, expires_ms, title
) ON @threads TO :role;
GRANT UPDATE (
    head_seq, next_seq, count, size, appends, created_ms, updated_ms, expires_ms, revision, title, metadata, open_ids,
    open_at, has_retention, own_most, own_expire
) ON @threads TO :role;

DROP POLICY IF EXISTS :role ON @threads;
CREATE POLICY :role ON @threads TO :role USING (tenant = :tenant);
DROP POLICY IF EXISTS :role ON @messages;
CREATE POLICY :role ON @messages TO :role USING (EXISTS (SELECT FROM @threads t WHERE t.id = thread));
DROP POLICY IF EXISTS :role ON @appends;
CREATE POLICY :role ON @appends TO :role USING (EXISTS (SELECT FROM @threads t WHERE t.id = thread));
DROP POLICY IF EXISTS :role ON @documents;
CREATE POLICY :role ON @documents TO :role USING (EXISTS (SELECT FROM @threads t WHERE t.id = thread));
-- It may leave expired threads to the owner's purge, and see nothing there.
DROP POLICY IF EXISTS :role ON @erased;
CREATE POLICY :role ON @erased FOR INSERT TO :role WITH CHECK (true);
