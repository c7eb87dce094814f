//! The store's bounds. A caller who meets one is told which.

/// The most tenants of one server.
pub const MAX_TENANTS: usize = 100_000;
/// The most organisations of one server.
pub const MAX_ORGANISATIONS: usize = 10_000;
/// The most deployments and keys of a tenant that have settings of their own in the share tree, its own settings included.
pub const MAX_SHARES_PER_TENANT: usize = 2_000;
/// The most keys of a tenant. When they are reached, the oldest revoked or expired one is forgotten for a new one.
pub const MAX_KEYS_PER_TENANT: usize = 1_000;
/// The most roles a tenant makes for itself.
pub const MAX_ROLES_PER_TENANT: usize = 100;
/// The most models a key or a role is confined to, and the most tenants a model is shared with by name.
pub const MAX_NAMED: usize = 1_000;
/// The most models of a tenant.
pub const MAX_MODELS_PER_TENANT: usize = 10_000;
/// The most versions a model has at one time.
pub const MAX_VERSIONS_PER_MODEL: usize = 1_000;
/// The most aliases of a model.
pub const MAX_ALIASES_PER_MODEL: usize = 100;
/// The largest weight, thousandths.
pub const MAX_WEIGHT_MILLI: u32 = 1_000_000;
/// The largest burst of device time, milliseconds: one day.
pub const MAX_BURST_MS: u64 = 24 * 60 * 60 * 1_000;
/// The least memory of a worker a tenant can be bounded to, bytes.
pub const MIN_WORKER_MEMORY_BYTES: u64 = 64 << 20;
/// The fewest processes and threads of a worker a tenant can be bounded to.
pub const MIN_WORKER_PROCESSES: u32 = 16;
/// The least processor time of a worker a tenant can be bounded to, thousandths of a processor.
pub const MIN_WORKER_CPU_MILLI: u32 = 50;
/// The longest description, bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 16 << 10;
/// The longest label, framework, tag or dependency, bytes.
pub const MAX_WORD_BYTES: usize = 256;
/// The most tags, dependencies or quality measures of one model or version.
pub const MAX_WORDS: usize = 64;
/// The most replicas a deployment may ask for in one trust domain.
pub const MAX_REPLICAS: u32 = 64;
/// The most words of one search.
pub const MAX_SEARCH_WORDS: usize = 4;
/// The most models of one answer to a search.
pub const MAX_SEARCH_RESULTS: u32 = 1_000;
/// The most text of one model or version that a search looks at, bytes.
pub const MAX_SEARCH_TEXT_BYTES: usize = 32 << 10;
/// The most uploads at one time, each of which holds up to two parts in memory.
pub const MAX_UPLOADS: usize = 64;
/// How much of an upload is gathered before it is hashed and written, bytes.
pub const UPLOAD_PART_BYTES: usize = 1 << 20;
/// The longest file name inside a version, bytes.
pub const MAX_FILE_NAME_BYTES: usize = 255;
/// The longest action, object or outcome of an audit record, characters.
pub const MAX_AUDIT_WORD_CHARS: usize = 300;
/// The longest detail of an audit record, characters.
pub const MAX_AUDIT_DETAIL_CHARS: usize = 1_000;
/// The most audit records of one answer.
pub const MAX_AUDIT_PAGE: u32 = 1_000;
/// Usage records in one answer.
pub const MAX_USAGE_PAGE: u32 = 1_000;
/// The most price plans of a tenant, and of those for everybody.
pub const MAX_PLANS_PER_TENANT: usize = tenantry_bill::price::MAX_PLANS;
/// The most usage records that are added up one by one for a budget.
pub const MAX_SUMMED_RECORDS: usize = 500_000;
/// How long an artefact nothing refers to is kept for the version that is to be made from it, milliseconds.
pub const UNREFERENCED_MS: i64 = 24 * 60 * 60 * 1_000;
/// The most generations of a tenant's data keys at one time.
pub const MAX_KEY_GENERATIONS: usize = 64;
/// The most data keys that are kept unwrapped in memory.
pub const MAX_CACHED_DATA_KEYS: usize = 4_096;
/// The longest an answer may be kept to be given again, milliseconds: one day.
pub const MAX_CACHE_TTL_MS: u64 = 24 * 60 * 60 * 1_000;
/// How long an idle replica of a new deployment stays loaded, milliseconds.
pub const DEFAULT_IDLE_AFTER_MS: u64 = 10 * 60 * 1_000;

const _: () = assert!(MAX_DESCRIPTION_BYTES < MAX_SEARCH_TEXT_BYTES);
const _: () = assert!(MAX_UPLOADS * 2 * UPLOAD_PART_BYTES <= 128 << 20, "uploads must fit beside the data plane");
