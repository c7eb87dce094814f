-- How well workers must be kept apart: `none` (demands nothing), `confined`, `isolated`, `full`. A tenant has two, of which
-- the higher counts: the platform's, which it cannot lower, and its own.
ALTER TABLE tenants ADD COLUMN platform_min_isolation TEXT NOT NULL DEFAULT 'none';
ALTER TABLE tenants ADD COLUMN own_min_isolation TEXT NOT NULL DEFAULT 'none';
ALTER TABLE models ADD COLUMN min_isolation TEXT NOT NULL DEFAULT 'none';
