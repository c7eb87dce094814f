-- Each record of the audit trail holds the hash of the one before it and its own, so that what is changed or taken out is
-- found. Records from before this are chained when the store is opened next, by the program, because SQL has no hashes.
-- `generation`: the store's revision that the write made which the record tells of; absent for what was no write.
ALTER TABLE audit ADD COLUMN source TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN generation BIGINT;
ALTER TABLE audit ADD COLUMN previous TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN hash TEXT NOT NULL DEFAULT '';
-- The two ends of the chain: `anchor` is the newest record that is gone because it was too old, `head` the newest there is.
-- Whoever adds or removes records locks the row `head` first. An empty hash: not chained yet.
CREATE TABLE audit_ends (
    name TEXT NOT NULL PRIMARY KEY,
    sequence BIGINT NOT NULL,
    hash TEXT NOT NULL
);
INSERT INTO audit_ends (name, sequence, hash) SELECT 'head', value, '' FROM store_numbers WHERE name = 'audit';
INSERT INTO audit_ends (name, sequence, hash)
    SELECT 'anchor', COALESCE((SELECT MIN(sequence) - 1 FROM audit), value), '' FROM store_numbers WHERE name = 'audit';
DELETE FROM store_numbers WHERE name = 'audit';
