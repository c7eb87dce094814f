-- The keys of tenants' files, each wrapped by a master key that is not here. A tenant's newest generation seals what is written
-- now; older ones open what was written before, and go when everything was rewritten. With the tenant all of them go, and with
-- them every copy of its files anywhere.
-- `master_key` names the key that wrapped it, `wrapped` is what that made of it, as text.
CREATE TABLE data_keys (
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    generation BIGINT NOT NULL,
    master_key TEXT NOT NULL,
    wrapped TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, generation)
);
CREATE INDEX data_keys_by_master_key ON data_keys (master_key);
