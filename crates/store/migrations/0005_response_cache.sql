-- How long an answer of a deployment is kept and given again for the same request, milliseconds; absent: answers are not kept.
ALTER TABLE deployments ADD COLUMN cache_ttl_ms BIGINT;
