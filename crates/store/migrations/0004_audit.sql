-- Who did what, and what happened to whom: rows are only ever added, and go when they are too old or too many. Nothing refers
-- to other tables, because a record outlives what it is about. `sequence` has no gaps but those of what went.
CREATE TABLE audit (
    sequence BIGINT NOT NULL PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    actor_tenant TEXT,
    actor_key TEXT,
    actor_role TEXT,
    tenant_id TEXT,
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX audit_by_tenant ON audit (tenant_id, sequence);
INSERT INTO store_numbers (name, value) VALUES ('audit', 0);
