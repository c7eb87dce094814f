//! Configuration in two types: [`Config`] as written in TOML, with units and without unknown keys, and [`Settings`]
//! as meant, checked against each other. The reference page is generated from the same declarations ([`reference()`]).

mod encryption;
mod identity;
mod reference;
mod settings;
mod slots;
mod transport;
mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tenantry_node::{Layer, Level, SuspendBy, WorkerStart};
use tenantry_sched::Policy;

pub use encryption::{EncryptionSettings, MasterKeyPlace, MasterKeySettings};
pub(crate) use identity::is_fit_to_fetch;
pub use identity::{IdentitySettings, IssuerSettings, TokenSettings};
pub use reference::reference;
pub use settings::{
    HttpSettings, Limits, LogFormat, LogSettings, SchedulerSettings, Settings, SettingsError, SlotGroupSettings,
    WorkerSettings,
};
pub use transport::{ClientAuth, TlsSettings, TlsVersion};
pub use units::{ByteSize, Span, UnitError};

/// A file that is not a configuration. The text names line and column.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the configuration is not valid\n{0}")]
pub struct ConfigError(#[from] toml::de::Error);

/// One key with its documentation, for the reference page.
pub(crate) struct Key {
    name: &'static str,
    doc: &'static str,
}

/// Declares a table of the configuration once: its keys, their types, defaults and documentation.
macro_rules! table {
    ($(#[doc = $table_doc:literal])+ $name:ident {
        $($(#[doc = $doc:literal])+ $field:ident: $ty:ty = $default:expr;)+
    }) => {
        $(#[doc = $table_doc])+
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $ty,)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $name {
            pub(crate) const DOC: &'static str = concat!($($table_doc),+);
            pub(crate) const KEYS: &'static [Key] =
                &[$(Key { name: stringify!($field), doc: concat!($($doc),+) }),+];
        }
    };
}

table! {
    /// Where the server listens and what it accepts from the network.
    HttpTable {
        /// Address of the data plane and the admin API.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8000));
        /// Address of `/metrics`, which asks for no key: keep it on a private network.
        metrics_listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8002));
        /// Address of gRPC. The limits of this table hold for it as well.
        grpc_listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8001));
        /// The largest inference body, before and after decompression.
        max_body: ByteSize = ByteSize(tenantry_types::limits::DEFAULT_MAX_BODY_BYTES as u64);
        /// The most connections at the same time.
        max_connections: u32 = 4096;
        /// How long a client may take to send a request's headers, and before that for the handshake of TLS.
        header_timeout: Span = Span::secs(10);
        /// How long a client may take to send a request's body.
        body_timeout: Span = Span::secs(60);
        /// How long running requests may take to end after SIGTERM.
        drain_timeout: Span = Span::secs(30);
        /// Whether to serve in plain text, where TLS is not set up, on addresses that others reach: for trusted networks, or where something in front encrypts. Keys and data can be read on the way.
        plain_text: bool = false;
        /// Encryption: see `[http.tls]`.
        tls: TlsTable = TlsTable::default();
    }
}

table! {
    /// Encryption in transit (TLS 1.2 and 1.3), of `listen` and `grpc_listen`, once a certificate and its key are named. The files are read again when they change and on SIGHUP; where they are not good, the old ones stay.
    TlsTable {
        /// The file of the server's certificate in PEM form, followed by those that signed it, the root's excepted; absent: no TLS.
        certificate: Option<PathBuf> = None;
        /// The file of its private key in PEM form.
        key: Option<PathBuf> = None;
        /// The file of the authorities, in PEM form, that sign clients' certificates.
        client_ca: Option<PathBuf> = None;
        /// Whether clients show a certificate: "off", "optional" (one that is shown must be good) or "required". It comes on top of the key.
        client_auth: ClientAuth = ClientAuth::Off;
        /// The oldest version that is spoken: "1.2" or "1.3".
        min_version: TlsVersion = TlsVersion::Tls12;
        /// Whether `metrics_listen` is encrypted as well.
        metrics: bool = false;
    }
}

table! {
    /// Where durable state lives.
    StoreTable {
        /// `sqlite://` or `postgres://`; absent: a SQLite file in `data_dir`.
        database_url: Option<String> = None;
        /// The largest uploaded model, and the largest total of an unpacked archive.
        max_model: ByteSize = ByteSize(tenantry_types::limits::DEFAULT_MAX_MODEL_BYTES);
    }
}

table! {
    /// Encryption of tenants' files on the disk. Each tenant has keys of its own, which a master key wraps; docs/security.md says what that protects.
    EncryptionTable {
        /// Whether files that are written from now on are encrypted. Those that are stay readable either way, with their master key.
        enabled: bool = true;
        /// What keeps the master key: "file", "environment" or "vault".
        master_key: MasterKeyPlace = MasterKeyPlace::File;
        /// The file, for "file": made when it is first needed, with access for its owner only; absent: `master-key` in `data_dir`. Name one elsewhere, so that a copy of the data folder is of no use without it, and keep a copy of it.
        key_file: Option<PathBuf> = None;
        /// The variable, for "environment": one key, or several separated by commas, of which the first wraps. `tenantry encryption new-key` prints one.
        key_variable: String = "TENANTRY_MASTER_KEY".to_owned();
        /// HashiCorp Vault or OpenBao, for "vault": see `[encryption.vault]`.
        vault: VaultTable = VaultTable::default();
    }
}

table! {
    /// A master key of the transit engine of HashiCorp Vault or OpenBao, which never leaves it.
    VaultTable {
        /// Where it is, such as "https://vault.example.com:8200"; plain http only on this machine. No other address is asked: redirects are not followed.
        address: Option<String> = None;
        /// Where the transit engine is mounted.
        mount: String = "transit".to_owned();
        /// The key's name. It must be there, and should be of type aes256-gcm96.
        key: String = "tenantry".to_owned();
        /// The file of a token that may encrypt and decrypt with the key and read it; read anew for each call. To rotate it from here it must be allowed that, too.
        token_file: Option<PathBuf> = None;
        /// The namespace, where there are several.
        namespace: Option<String> = None;
        /// The file of the authorities, in PEM form, that sign its certificate; absent: the public ones.
        ca: Option<PathBuf> = None;
        /// How long a call may take.
        timeout: Span = Span::secs(10);
    }
}

table! {
    /// The library that computes.
    EngineTable {
        /// The ONNX Runtime library; absent: `tenantry doctor` says where it is looked for.
        library: Option<PathBuf> = None;
    }
}

table! {
    /// The worker processes in which models run.
    WorkersTable {
        /// Batches that may run at the same time; absent: as many as fit `cpus` by `slot_cores`, less one in eight, which is the server's.
        slots: Option<u16> = None;
        /// Processors of one slot, which it is pinned to and which is how many threads one run has; absent: 1, pinned only where every slot can have its own.
        slot_cores: Option<u16> = None;
        /// Slots for the tenants that are given this group by name, out of `slots`: `[[workers.group]]` with `name` and `slots`.
        group: Vec<SlotGroupTable> = Vec::new();
        /// The processors workers may use, by number; empty: those of the server.
        cpus: Vec<usize> = Vec::new();
        /// The program `tenantry-worker`; absent: the one beside `tenantry`.
        binary: Option<PathBuf> = None;
        /// How a worker is made: "exec", a fresh process, or "zygote", a fork of one that has the library loaded: sooner ready, but with the same addresses in every worker.
        start: WorkerStart = WorkerStart::Exec;
        /// The most worker processes at the same time.
        max_workers: u32 = 64;
        /// How long a worker without models may idle before it is stopped.
        idle_after: Span = Span::secs(60);
        /// How well workers must be kept apart: "none", "confined", "isolated" or "full". Below it nothing is started.
        min_isolation: Level = Level::None;
        /// Barriers around workers to leave out, to find out which of them is in the way: "namespaces", "root", "privileges", "landlock", "seccomp", "limits", "cgroup".
        without: Vec<Layer> = Vec::new();
        /// Memory of one worker; absent: three quarters of the machine's, or of what the server's own control group allows. Beyond it the kernel ends the worker. Without control groups the server looks and ends it, and a value given here also bounds its address space.
        memory: Option<ByteSize> = None;
        /// Memory the machine is to keep available: below it, best-effort batches that may be run again are ended. 0: not watched.
        memory_floor: ByteSize = ByteSize::mib(256);
        /// Processes and threads of one worker, where there are control groups.
        max_processes: u32 = 512;
        /// Processors' worth of time one worker may use, such as 1.5, where there are control groups; absent: no ceiling, as weights divide what there is.
        max_cpu: Option<f64> = None;
        /// How a worker is stopped in the middle of a run: "freezer", "stop" (a signal), or "auto": the freezer where there is one.
        suspend_by: SuspendBy = SuspendBy::Auto;
        /// The most input or output data of one batch.
        max_arena: ByteSize = ByteSize::mib(512);
        /// The longest a model may take to load before its worker is killed.
        load_timeout: Span = Span::secs(60);
        /// The longest a registration may take before its worker is killed.
        register_timeout: Span = Span::secs(180);
        /// Registrations at the same time.
        max_registrations: u32 = 2;
        /// The longest one run may take before its worker is killed, unless the version says less.
        run_timeout: Span = Span::secs(30);
        /// The most nodes of a model, those of graphs inside it included, and every call of a local function replaced by its body.
        max_model_nodes: u32 = tenantry_types::limits::DEFAULT_MAX_MODEL_NODES;
        /// How long an input is refused that a model's workers died over twice; "0s": never.
        refuse_poison_for: Span = Span::secs(600);
    }
}

table! {
    /// Slots that only the tenants use which are given them.
    SlotGroupTable {
        /// What tenants' settings call it.
        name: String = String::new();
        /// How many of the slots are in it.
        slots: u16 = 1;
    }
}

table! {
    /// How it is chosen what runs next.
    SchedulerTable {
        /// `fair`, or one of the baselines `fifo`, `round-robin`, `strict-priority`. Can be switched while the server runs.
        policy: Policy = Policy::Fair;
        /// The longest batch that is formed of several requests: how long a reserved request may wait at a batch's boundary.
        quantum: Span = Span::millis(20);
        /// How far ahead of the others, in device time at weight 1, somebody may be served for an urgent deadline or to fill a batch.
        window: Span = Span::millis(100);
        /// Whether a batch is suspended in its middle when a guaranteed reservation needs its slot.
        suspend: bool = true;
    }
}

table! {
    /// What may wait on the whole server. What exceeds it is refused at once with 503 and a hint when to try again.
    QueueTable {
        /// Requests waiting for a slot.
        max_tasks: usize = 4096;
        /// Bytes of tensor data waiting for a slot.
        max_data: ByteSize = ByteSize::gib(1);
        /// Bytes of request bodies held at the same time, waiting or not.
        max_bodies: ByteSize = ByteSize::gib(2);
    }
}

table! {
    /// Answers kept to be given again, for the deployments that ask for it. No tenant's is removed for another's.
    CacheTable {
        /// Bytes of answers of all tenants. When they are reached, a tenant's oldest make room for its own next; a tenant without any keeps none until others' end. "0B": nothing is kept.
        max_size: ByteSize = ByteSize::mib(512);
    }
}

table! {
    /// What one tenant may take. What exceeds it is refused at once with 429 and a hint when to try again.
    LimitsTable {
        /// Requests in flight at the same time.
        max_requests: u32 = 512;
        /// Bytes of request bodies in flight at the same time; never less than one largest body.
        max_bodies: ByteSize = ByteSize::mib(512);
        /// Requests waiting for a slot.
        max_queued_tasks: usize = 512;
        /// Uploads at the same time.
        max_uploads: u32 = 4;
        /// Bytes of answers kept to be given again; the longest unused go first. No answer over an eighth of it is kept.
        max_cache: ByteSize = ByteSize::mib(32);
        /// Sequences in progress at the same time, each with at most 64 KiB a state.
        max_sequences: u32 = 1024;
        /// How long a sequence may be idle before what it carries is forgotten.
        sequence_idle: Span = Span::secs(60);
        /// How long a request may take when the client names no timeout.
        default_timeout: Span = Span::secs(60);
        /// The longest timeout a client may name; more is cut to this.
        max_timeout: Span = Span::secs(600);
    }
}

table! {
    /// Who did what, and what happened to whom: kept in the database, read with `tenantry audit`.
    AuditTable {
        /// How long records are kept.
        keep: Span = Span::days(30);
        /// The most records that are kept; the oldest go first.
        max_records: u64 = 1_000_000;
    }
}

table! {
    /// What everybody used: one record for each attempt, written before its answer leaves, read with `tenantry usage`.
    LedgerTable {
        /// Whether usage is recorded. Without it there is nothing to bill, and quotas and budgets cannot be kept.
        enabled: bool = true;
        /// How often records are synced to the disk and brought into the database. A killed server loses none; a power
        /// failure loses one interval.
        sync_interval: Span = Span::secs(1);
    }
}

table! {
    /// Who sells what is used, as invoices in the columns of FOCUS say it.
    BillingTable {
        /// Who runs the server.
        provider: String = "Tenantry".to_owned();
        /// Who makes the invoices; absent: the provider.
        issuer: Option<String> = None;
        /// What is sold.
        service: String = "Inference".to_owned();
        /// Where the machine stands, such as `eu-central`.
        region: Option<String> = None;
    }
}

table! {
    /// Who is believed besides the holders of keys: `[[identity.issuer]]`, and `[identity.tokens]`.
    IdentityTable {
        /// OpenID providers and other issuers of signed tokens (JWT): see `[[identity.issuer]]`.
        issuer: Vec<IssuerTable> = Vec::new();
        /// Tokens of the server's own: see `[identity.tokens]`.
        tokens: TokensTable = TokensTable::default();
    }
}

table! {
    /// An OpenID provider, or another issuer of signed tokens (JWT), whose bearers are let in; one table each. Its keys are read from it, and again when a token names a new one.
    IssuerTable {
        /// What its tokens say in `iss`. Its discovery document is at this address with `/.well-known/openid-configuration` behind it. https only, but on this machine.
        url: String = String::new();
        /// Where its keys are (JWKS); absent: where the discovery document says.
        jwks_url: Option<String> = None;
        /// What tokens for this server say in `aud`: one of these must be there.
        audience: Vec<String> = Vec::new();
        /// The signature algorithms that are accepted; those with shared secrets cannot be.
        algorithms: Vec<String> = vec!["RS256".to_owned(), "ES256".to_owned(), "EdDSA".to_owned()];
        /// How much its clock may differ from this machine's.
        clock_skew: Span = Span::secs(60);
        /// How often its keys are read again.
        refresh: Span = Span::secs(300);
        /// The file of the authorities, in PEM form, that signed its certificate; absent: the public ones.
        ca: Option<PathBuf> = None;
        /// The claim that names the tenant, such as `tenant` or `resource.tenant`.
        tenant_claim: Option<String> = None;
        /// The tenant of all its tokens, instead of a claim.
        tenant: Option<String> = None;
        /// The claim that lists roles or groups.
        roles_claim: String = "roles".to_owned();
        /// What the words in that claim mean here, such as `{ "ml-engineers" = "deployer" }`; absent: a word that names a role means that role, but never `platform_admin`.
        roles: Option<BTreeMap<String, String>> = None;
        /// The role of those whose claim has no word that means one; absent: they may do nothing.
        default_role: Option<String> = None;
    }
}

table! {
    /// Short-lived tokens (JWT, Ed25519) that the holder of a key gets for it at `POST /oauth2/token` (client credentials), for programs that should not send the key with each request.
    TokensTable {
        /// Whether there are any.
        enabled: bool = true;
        /// What they say in `iss` and `aud`: where the server is reached, for clients that look for its documents under `/.well-known`.
        issuer: String = "tenantry".to_owned();
        /// How long one is valid. One whose key is revoked or expired is refused at once.
        lifetime: Span = Span::secs(900);
    }
}

table! {
    /// What the server writes about itself, to standard error.
    LogTable {
        /// Filter such as `info` or `info,tenantry_node=debug`.
        filter: String = "info".to_owned();
        /// `json` or `text`.
        format: LogFormat = LogFormat::Json;
    }
}

/// The configuration as written. Every key has a default; a key it does not know is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The folder of the database, the artefacts and the first administrator's key.
    pub data_dir: PathBuf,
    /// Where the server listens.
    pub http: HttpTable,
    /// Where durable state lives.
    pub store: StoreTable,
    /// Encryption of tenants' files on the disk.
    pub encryption: EncryptionTable,
    /// The library that computes.
    pub engine: EngineTable,
    /// The worker processes.
    pub workers: WorkersTable,
    /// How it is chosen what runs next.
    pub scheduler: SchedulerTable,
    /// What may wait on the whole server.
    pub queue: QueueTable,
    /// What one tenant may take.
    pub limits: LimitsTable,
    /// Answers kept to be given again.
    pub cache: CacheTable,
    /// Who did what, and what happened to whom.
    pub audit: AuditTable,
    /// What everybody used.
    pub ledger: LedgerTable,
    /// Who sells what is used.
    pub billing: BillingTable,
    /// Who is believed besides the holders of keys.
    pub identity: IdentityTable,
    /// What the server writes about itself.
    pub log: LogTable,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("tenantry-data"),
            http: HttpTable::default(),
            store: StoreTable::default(),
            encryption: EncryptionTable::default(),
            engine: EngineTable::default(),
            workers: WorkersTable::default(),
            scheduler: SchedulerTable::default(),
            queue: QueueTable::default(),
            limits: LimitsTable::default(),
            cache: CacheTable::default(),
            audit: AuditTable::default(),
            ledger: LedgerTable::default(),
            billing: BillingTable::default(),
            identity: IdentityTable::default(),
            log: LogTable::default(),
        }
    }
}

impl Config {
    /// Reads a configuration file's text.
    ///
    /// # Errors
    /// An unknown key, a wrong type or unit, with line and column.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Ok(toml::from_str(text)?)
    }

    /// The configuration as meant.
    ///
    /// # Errors
    /// Values that contradict each other or cannot work.
    pub fn settings(&self) -> Result<Settings, SettingsError> {
        Settings::from_config(self)
    }
}

#[cfg(test)]
mod tests;
