-- Price plans, as JSON (crates/bill/src/price.rs). The empty tenant: everybody's. Nothing refers to other tables, because what a
-- tenant used is billed after it has gone.
CREATE TABLE price_plans (
    tenant_id TEXT NOT NULL,
    valid_from_ms BIGINT NOT NULL,
    plan TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, valid_from_ms)
);

-- All limits of a tenant by period, as JSON (crates/bill/src/budget.rs): they are read and changed together.
CREATE TABLE budgets (
    tenant_id TEXT NOT NULL PRIMARY KEY REFERENCES tenants (id) ON DELETE CASCADE,
    generation BIGINT NOT NULL,
    limits TEXT NOT NULL
);

-- The thresholds that were told, so that a restart tells none again: of each limit and period the highest. `limit_key` is the
-- limit's key as JSON.
CREATE TABLE budget_marks (
    tenant_id TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    limit_key TEXT NOT NULL,
    window_ms BIGINT NOT NULL,
    percent BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, limit_key, window_ms)
);
