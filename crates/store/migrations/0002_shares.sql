-- Organisations: tenants under one share.
CREATE TABLE organisations (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_ms BIGINT NOT NULL
);

-- The settings of nodes of the share tree; a node without a row has the default ones. `scope` says what kind of node it
-- is, `subject` is the printed form of the ids on the way to it. The ids are there once more, so that the settings go
-- with what they are for. A tenant's row names its organisation, which therefore cannot be deleted before the tenant
-- has left it.
CREATE TABLE shares (
    scope TEXT NOT NULL,
    subject TEXT NOT NULL,
    of_organisation TEXT REFERENCES organisations (id) ON DELETE CASCADE,
    of_tenant TEXT REFERENCES tenants (id) ON DELETE CASCADE,
    of_deployment TEXT REFERENCES deployments (id) ON DELETE CASCADE,
    of_key TEXT REFERENCES api_keys (id) ON DELETE CASCADE,
    member_of TEXT REFERENCES organisations (id),
    generation BIGINT NOT NULL,
    settings TEXT NOT NULL,
    PRIMARY KEY (scope, subject)
);
CREATE INDEX shares_by_tenant ON shares (of_tenant);
CREATE INDEX shares_by_deployment ON shares (of_deployment);
CREATE INDEX shares_by_key ON shares (of_key);
CREATE INDEX shares_by_organisation ON shares (member_of);

-- How long a request to this model may take when the client names no timeout.
ALTER TABLE deployments ADD COLUMN default_timeout_ms BIGINT;
