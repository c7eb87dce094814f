-- What a key is confined to (JSON; an empty object: nothing), and when it was last used, to the minute.
ALTER TABLE api_keys ADD COLUMN scope TEXT NOT NULL DEFAULT '{}';
ALTER TABLE api_keys ADD COLUMN last_used_ms BIGINT;
-- Who a client's certificate says he is, for a key that has no secret: whoever proves to be that is its holder. Empty: it has
-- a secret.
ALTER TABLE api_keys ADD COLUMN certificate TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX api_keys_by_certificate ON api_keys (certificate) WHERE certificate <> '' AND revoked_ms IS NULL;

-- Roles that tenants made for themselves. `actions` and `models` are JSON; no models: all.
CREATE TABLE custom_roles (
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    actions TEXT NOT NULL,
    models TEXT,
    description TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, name)
);

-- The tenants a model is shared with, where it is shared with some. By name, so that nobody learns from naming one whether
-- it exists; a tenant that is deleted takes its name from here with it.
CREATE TABLE model_tenants (
    model_id TEXT NOT NULL REFERENCES models (id) ON DELETE CASCADE,
    tenant_name TEXT NOT NULL,
    PRIMARY KEY (model_id, tenant_name)
);
CREATE INDEX model_tenants_by_tenant ON model_tenants (tenant_name);
