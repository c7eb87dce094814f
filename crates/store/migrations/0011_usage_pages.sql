-- Usage records many to a row: a page holds what ended of one tenant between two times the books were brought up to date, in the order
-- in which it ended (`data`, crates/store/src/ledger/page.rs). A row for each record was most of what recording cost. A page is written
-- in the transaction that moves its start's mark (usage_boots), so that no record comes twice; the keys are a second lock on that.
CREATE TABLE usage_pages (
    boot_id BIGINT NOT NULL,
    page BIGINT NOT NULL,
    tenant_number BIGINT NOT NULL,
    first_sequence BIGINT NOT NULL,
    last_sequence BIGINT NOT NULL,
    records BIGINT NOT NULL,
    data BYTEA NOT NULL,
    PRIMARY KEY (boot_id, page),
    UNIQUE (boot_id, tenant_number, first_sequence)
);
CREATE INDEX usage_pages_by_tenant ON usage_pages (tenant_number, boot_id, page);
CREATE INDEX usage_pages_by_sequence ON usage_pages (boot_id, first_sequence);

INSERT INTO usage_pages (boot_id, page, tenant_number, first_sequence, last_sequence, records, data)
SELECT r.boot_id, ROW_NUMBER() OVER (PARTITION BY r.boot_id ORDER BY r.sequence), r.tenant_number, r.sequence, r.sequence, 1, r.record
FROM usage_records r;
DROP TABLE usage_records;

ALTER TABLE usage_days ADD COLUMN resident_byte_seconds BIGINT NOT NULL DEFAULT 0;
