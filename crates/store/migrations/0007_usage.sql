-- Usage: every attempt to use a device, once. `usage_records` has them one by one, `usage_days` what they add up to, and
-- `usage_boots` up to where the log of each start of a node has been carried over. Nothing refers to other tables, because a bill
-- outlives what it is for.
-- Rows are small, because there is one for each request: who pays and the start's and the tenant's numbers are columns, the rest
-- is `record`, in the form of the log (crates/store/src/ledger/frame.rs). The key (node, boot, sequence) is (usage_boots.id, sequence).
CREATE TABLE usage_records (
    boot_id BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    tenant_number BIGINT NOT NULL,
    record BYTEA NOT NULL,
    PRIMARY KEY (boot_id, sequence)
);
CREATE INDEX usage_records_by_tenant ON usage_records (tenant_number, boot_id, sequence);

-- Tenants by numbers of the ledger's own; a tenant that is gone keeps its.
CREATE TABLE usage_tenants (
    number BIGINT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL UNIQUE
);

-- Days are counted from the Unix epoch, in UTC, by when an attempt ended. No deployment: the empty text.
CREATE TABLE usage_days (
    day BIGINT NOT NULL,
    tenant_id TEXT NOT NULL,
    deployment_id TEXT NOT NULL,
    model TEXT NOT NULL,
    version BIGINT NOT NULL,
    tier TEXT NOT NULL,
    kind TEXT NOT NULL,
    outcome TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    duration_ns BIGINT NOT NULL,
    queue_ns BIGINT NOT NULL,
    compute_ns BIGINT NOT NULL,
    padding_ns BIGINT NOT NULL,
    load_ns BIGINT NOT NULL,
    aborted_ns BIGINT NOT NULL,
    cpu_ns BIGINT NOT NULL,
    bytes_in BIGINT NOT NULL,
    bytes_out BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    PRIMARY KEY (day, tenant_id, deployment_id, model, version, tier, kind, outcome)
);
CREATE INDEX usage_days_by_tenant ON usage_days (tenant_id, day);

-- `slots` is 0 as long as nothing is known of them.
CREATE TABLE usage_boots (
    id BIGINT NOT NULL UNIQUE,
    node TEXT NOT NULL,
    boot TEXT NOT NULL,
    file BIGINT NOT NULL,
    position BIGINT NOT NULL,
    done BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    wall_ns BIGINT NOT NULL,
    slots BIGINT NOT NULL,
    busy_ns BIGINT NOT NULL,
    system_ns BIGINT NOT NULL,
    ended BIGINT NOT NULL,
    -- What its records add up to.
    records BIGINT NOT NULL,
    interrupted BIGINT NOT NULL,
    charged_ns BIGINT NOT NULL,
    PRIMARY KEY (node, boot)
);
