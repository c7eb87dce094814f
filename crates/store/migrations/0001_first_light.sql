-- One dialect for SQLite and Postgres: TEXT and BIGINT only, times in milliseconds since the Unix epoch, JSON as TEXT.
-- Identifiers are the printed form (`ten_...`), so that a row can be read beside a log line.

-- Numbers of the store itself. `revision` counts committed changes; every writing transaction begins by raising it,
-- which also makes writers queue for this one row on both databases.
CREATE TABLE store_numbers (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO store_numbers (name, value) VALUES ('revision', 0);

CREATE TABLE tenants (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    operator BIGINT NOT NULL,
    created_ms BIGINT NOT NULL
);

CREATE TABLE api_keys (
    id TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    role TEXT NOT NULL,
    label TEXT NOT NULL,
    secret_sha256 TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT,
    revoked_ms BIGINT
);
CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id);

CREATE TABLE models (
    id TEXT NOT NULL PRIMARY KEY,
    owner_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    framework TEXT NOT NULL,
    dependencies TEXT NOT NULL,
    sharing TEXT NOT NULL,
    next_version BIGINT NOT NULL,
    search_text TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    UNIQUE (owner_id, name)
);

CREATE TABLE model_tags (
    model_id TEXT NOT NULL REFERENCES models (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (model_id, name)
);

CREATE TABLE versions (
    id TEXT NOT NULL PRIMARY KEY,
    model_id TEXT NOT NULL REFERENCES models (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    digest TEXT NOT NULL,
    description TEXT NOT NULL,
    tags TEXT NOT NULL,
    quality TEXT NOT NULL,
    settings TEXT NOT NULL,
    deploy BIGINT NOT NULL,
    state TEXT NOT NULL,
    refusal TEXT,
    registration TEXT,
    optimised_key TEXT,
    optimised_digest TEXT,
    optimised_bytes BIGINT,
    search_text TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    UNIQUE (model_id, number)
);

CREATE TABLE version_files (
    version_id TEXT NOT NULL REFERENCES versions (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (version_id, position)
);
CREATE INDEX version_files_by_digest ON version_files (digest);

CREATE TABLE aliases (
    model_id TEXT NOT NULL REFERENCES models (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (model_id, name),
    FOREIGN KEY (model_id, version) REFERENCES versions (model_id, number)
);

CREATE TABLE deployments (
    id TEXT NOT NULL PRIMARY KEY,
    model_id TEXT NOT NULL UNIQUE REFERENCES models (id) ON DELETE CASCADE,
    generation BIGINT NOT NULL,
    version BIGINT,
    previous BIGINT,
    min_replicas BIGINT NOT NULL,
    max_replicas BIGINT NOT NULL,
    idle_after_ms BIGINT
);
