//! The command line, declared once: its help is generated from here.

mod billing;
mod encryption;
mod import;
mod shares;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tenantry_load::TenantEntry;
use tenantry_types::name::NameError;
use tenantry_types::{Action, KeyId, ModelName, ModelRef, Role, RoleName, TenantName};

pub(crate) use billing::{Budget, EnforcementName, Invoice, InvoiceDays, MeterName, PeriodName, Price};
pub(crate) use encryption::Encryption as EncryptionCommand;
pub(crate) use import::Import;
pub(crate) use shares::{LevelName, LimitName, Limits, Organisation, Policy, PolicyName, TierName};

/// Where a server is looked for unless told otherwise.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:8000";

/// One server that many tenants share to run inference on their own models and on shared ones.
#[derive(Debug, Parser)]
#[command(
    name = "tenantry",
    version,
    propagate_version = true,
    after_help = "Start here:\n  tenantry demo                       see it work, with two tenants and real models\n  \
                  tenantry doctor                     check what this machine has\n  \
                  tenantry serve                      run the server\n  \
                  tenantry model push digits m.onnx   register a model"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command that talks to a server understands.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The server to talk to.
    #[arg(long, global = true, value_name = "URL", env = "TENANTRY_SERVER", default_value = DEFAULT_SERVER)]
    pub(crate) server: String,
    /// The API key to use.
    #[arg(long, global = true, value_name = "KEY", env = "TENANTRY_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// A file of authorities, in PEM form, that sign the server's certificate, instead of the public ones.
    #[arg(long, global = true, value_name = "FILE", env = "TENANTRY_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// Print JSON for programs instead of text for people.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server.
    #[command(after_help = "Examples:\n  tenantry serve\n  tenantry serve --config /etc/tenantry.toml\n  \
                            tenantry serve --record-arrivals arrivals.csv\n  \
                            tenantry config reference        every key of the configuration\n\n\
                            The first start writes the first administrator's key into the data folder.")]
    Serve(Serve),
    /// Start a server with two tenants and real models, ask it real questions, and keep it running to play with.
    #[command(after_help = "Examples:\n  tenantry demo\n  tenantry demo --once        stop after the answers")]
    Demo(Demo),
    /// Check what this machine has: the engine's library, workers, ports, folders, the database.
    #[command(after_help = "Examples:\n  tenantry doctor\n  tenantry doctor --config /etc/tenantry.toml --json")]
    Doctor(ConfigFile),
    /// Show what a running server does (for the platform's administrators).
    #[command(after_help = "Example:\n  tenantry status --key \"$PLATFORM_KEY\"")]
    Status,
    /// Create, list and remove tenants; show and set their shares and limits.
    #[command(subcommand)]
    Tenant(Tenant),
    /// Create, list and remove organisations: tenants under one share.
    #[command(subcommand)]
    Organisation(Organisation),
    /// Show or switch how the server chooses what runs next.
    #[command(subcommand)]
    Policy(Policy),
    /// Create, list, replace and revoke API keys.
    #[command(subcommand)]
    Key(Key),
    /// Make, list and delete a tenant's own roles.
    #[command(subcommand)]
    Role(RoleCommand),
    /// Push, list, show and remove models; move aliases and deployments.
    #[command(subcommand)]
    Model(Model),
    /// Show who did what, and what happened to whom, the newest first; verify and export it.
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  tenantry audit\n  tenantry audit --since 24h --json\n  \
                      tenantry audit --tenant acme --limit 20\n  tenantry audit --all --before 1041\n  \
                      tenantry audit verify\n  tenantry audit export --all > audit.jsonl"
    )]
    Audit(Audit),
    /// Show how tenants' files are encrypted on the disk; rotate keys and write files anew.
    #[command(subcommand)]
    Encryption(EncryptionCommand),
    /// Show, export and check what everybody used.
    #[command(subcommand)]
    Usage(Usage),
    /// Set, list and end price plans.
    #[command(subcommand)]
    Price(Price),
    /// Show what a tenant is billed.
    #[command(subcommand)]
    Invoice(Invoice),
    /// Set, list and remove budgets: what a tenant may use in an hour, a day or a month.
    #[command(subcommand)]
    Budget(Budget),
    /// Ask a model.
    #[command(after_help = "Examples:\n  tenantry infer digits --input 'x=[[0.5, 1, 2]]'\n  \
                            tenantry infer digits --input x=@pixels.f32 --shape x=1,28,28 --output label\n  \
                            tenantry infer platform/file-type --request request.json --json --explain\n  \
                            echo '{\"inputs\":[...]}' | tenantry infer digits --request -\n\n\
                            An input is NAME=JSON (numbers, nested as the shape is) or NAME=@FILE (the raw tensor:\n\
                            little-endian, row-major; the shape comes from --shape or the file's size).")]
    Infer(Infer),
    /// Send load as several tenants at once and show what each of them got: how well they are kept apart.
    #[command(
        after_help = "Examples:\n  tenantry bench --tenant acme:$ACME_KEY:digits:20 --tenant globex:$GLOBEX_KEY:digits:flood=64\n  \
                            tenantry bench --plan plan.toml --duration 30s --json\n  \
                            tenantry bench --trace arrivals.csv --tenant acme:$ACME_KEY --tenant globex:$GLOBEX_KEY --speed 2\n\n\
                            A tenant is NAME:KEY:MODEL and a load: RATE (requests a second, sent when they are due, whatever the\n\
                            server does) or flood=N (N connections, each sending again as soon as it has its answer). Latency\n\
                            counts from when a request was due. Inputs are made up from the model's metadata. A plan file has:\n\n  \
                            duration = \"10s\"\n  \
                            [[tenant]]\n  \
                            name = \"acme\"\n  \
                            key_env = \"ACME_KEY\"        # or key = \"...\"\n  \
                            model = \"platform/digits\"\n  \
                            rate = 20                   # or flood = 64\n  \
                            arrivals = \"poisson\"        # or \"constant\"\n  \
                            timeout = \"200ms\"           # later answers are late\n  \
                            rows = 1\n  \
                            shapes = { x = [1, 28] }    # of inputs whose extents the model leaves open"
    )]
    Bench(Bench),
    /// Replay recorded arrivals against other shares, slots or another policy: what would each tenant have got?
    #[command(after_help = "Examples:\n  tenantry serve --record-arrivals arrivals.csv\n  \
                            tenantry what-if --trace arrivals.csv --tenants tenants.toml\n  \
                            tenantry what-if --trace arrivals.csv --tenants tenants.toml --policy fifo --slots 2 --svg fifo.svg\n\n\
                            A tenants file (every key is optional):\n\n  \
                            [slots]\n  count = 2\n\n  \
                            [tenants.acme]\n  tier = \"guaranteed\"       # or burstable, best-effort\n  weight = 2\n  \
                            reservation = \"0.25\"     # slots\n  burst = \"100ms\"\n  limit = \"0.5\"            # slots\n\n  \
                            [models.digits]           # otherwise as the trace says its runs took\n  \
                            fixed = \"2ms\"\n  per_row = \"300us\"\n  max_rows = 32")]
    WhatIf(WhatIf),
    /// The configuration's reference, and a check of a file.
    #[command(subcommand)]
    Config(Config),
}

/// Which configuration applies.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigFile {
    /// The configuration, in TOML. Without it every key has its default.
    #[arg(long, value_name = "FILE", env = "TENANTRY_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogStyle {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Where durable state lives; overrides the configuration.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address of the API; overrides the configuration. Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// Address of /metrics; overrides the configuration. Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics_listen: Option<std::net::SocketAddr>,
    /// Address of gRPC; overrides the configuration. Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) grpc_listen: Option<std::net::SocketAddr>,
    /// Serve in plain text where TLS is not set up, on addresses that other machines reach, too.
    #[arg(long)]
    pub(crate) plain_text: bool,
    /// Write the ready line to this file too, once requests are accepted.
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// Write each request's arrival, size and measured time into this file, without its data: what `tenantry what-if` reads.
    #[arg(long, value_name = "FILE")]
    pub(crate) record_arrivals: Option<PathBuf>,
    /// Write everything the scheduler hears and decides into this file: what `tenantry-sim check` reads.
    #[arg(long, value_name = "FILE")]
    pub(crate) record_decisions: Option<PathBuf>,
    /// How log lines look. Without it: as configured, or for people when standard error is a terminal.
    #[arg(long, value_enum)]
    pub(crate) log: Option<LogStyle>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Demo {
    /// Stop after the answers instead of keeping the server running.
    #[arg(long)]
    pub(crate) once: bool,
    /// The folder with the fetched models; without it `.cache/models`, here or in a parent folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) models: Option<PathBuf>,
    /// Also ask what type these files are.
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Also judge this picture (PNG or JPEG).
    #[arg(long, value_name = "FILE")]
    pub(crate) picture: Option<PathBuf>,
    /// Also look for speech in this sound (WAV, FLAC, MP3 or Ogg Vorbis).
    #[arg(long, value_name = "FILE")]
    pub(crate) sound: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tenant {
    /// Create a tenant.
    #[command(after_help = "Example:\n  tenantry tenant create acme")]
    Create {
        /// Its name.
        name: TenantName,
    },
    /// List tenants.
    #[command(visible_alias = "ls", after_help = "Example:\n  tenantry tenant list --json")]
    List,
    /// Show a tenant, with the shares and limits of it, its deployments and its keys.
    #[command(after_help = "Example:\n  tenantry tenant show acme")]
    Show {
        /// Its name.
        name: TenantName,
    },
    /// Show the share and limits of a tenant, or of one of its deployments or keys; with options, set those first.
    #[command(after_help = "Examples:\n  tenantry tenant limits acme\n  \
                            tenantry tenant limits acme --tier guaranteed --reserve 0.25 --rate 200 --max-requests 64\n  \
                            tenantry tenant limits acme --model platform/file-type --weight 3\n  \
                            tenantry tenant limits acme --of-key key_0193… --rate 5 --burst 10\n  \
                            tenantry tenant limits acme --unset reservation --unset rate\n  \
                            tenantry tenant limits acme --reset\n\n\
                            What is set here holds for requests that arrive from now on, without a restart.")]
    Limits {
        /// The tenant.
        name: TenantName,
        /// Of its requests to this model: `name`, or `owner/name`.
        #[arg(long, conflicts_with = "key_id")]
        model: Option<ModelRef>,
        /// Of its requests with this key.
        #[arg(long = "of-key", value_name = "KEY_ID")]
        key_id: Option<KeyId>,
        #[command(flatten)]
        limits: Box<Limits>,
    },
    /// Set how well a tenant's workers must be kept apart; what would run below that is refused.
    #[command(after_help = "Examples:\n  tenantry tenant set acme --min-isolation isolated\n  \
                            tenantry tenant set acme --platform-min-isolation confined\n\n\
                            The higher of the two counts, and the configuration's if that is higher still. It holds at\n\
                            once: what runs below it is ended.")]
    Set {
        /// Its name.
        name: TenantName,
        /// As the tenant itself demands.
        #[arg(long, value_enum, value_name = "LEVEL", required_unless_present = "platform_min_isolation")]
        min_isolation: Option<LevelName>,
        /// As the platform demands, which the tenant cannot lower; for the platform's administrators.
        #[arg(long, value_enum, value_name = "LEVEL")]
        platform_min_isolation: Option<LevelName>,
    },
    /// Remove a tenant with its keys, models and versions.
    #[command(after_help = "Example:\n  tenantry tenant rm acme --yes")]
    Rm {
        /// Its name.
        name: TenantName,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Create a key and show it, this once.
    #[command(after_help = "Examples:\n  tenantry key create acme\n  \
                            tenantry key create acme --role admin --label ci --expires 90d\n  \
                            tenantry key create acme --model digits --action model.infer\n  \
                            tenantry key create acme --certificate DNS:batch.acme.example")]
    Create {
        /// The tenant it belongs to.
        tenant: TenantName,
        /// What it may do: invoker, deployer, viewer, auditor, admin, a role that the tenant made (`tenantry role list`), or
        /// platform-admin in the operator's tenant.
        #[arg(long, default_value = "invoker", value_parser = role)]
        role: Role,
        /// Confine it to a model, `name` or `owner/name`; may be given more than once.
        #[arg(long = "model", value_name = "MODEL")]
        models: Vec<ModelRef>,
        /// Confine it to an action such as model.infer; may be given more than once.
        #[arg(long = "action", value_name = "ACTION")]
        actions: Vec<Action>,
        /// Prove it by a client's certificate instead of a secret: URI:, DNS: or CN: and the name in the certificate.
        #[arg(long, value_name = "NAME")]
        certificate: Option<String>,
        /// A few words to know it by.
        #[arg(long, default_value = "")]
        label: String,
        /// How long it is valid, such as 12h or 90d; without it until it is revoked.
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
    },
    /// List a tenant's keys, without their secrets.
    #[command(visible_alias = "ls", after_help = "Example:\n  tenantry key list acme")]
    List {
        /// The tenant.
        tenant: TenantName,
    },
    /// Replace a key by a new one that may do the same, and show that, this once; the old one goes on for a while.
    #[command(after_help = "Examples:\n  tenantry key rotate acme key_0193…\n  \
                            tenantry key rotate acme key_0193… --overlap 10m --expires 90d")]
    Rotate {
        /// The tenant.
        tenant: TenantName,
        /// The key's id, as listed.
        #[arg(value_name = "KEY")]
        id: KeyId,
        /// How long the old key is accepted beside the new one; 0s ends it now.
        #[arg(long, value_name = "DURATION", default_value = "1d", value_parser = humantime::parse_duration)]
        overlap: Duration,
        /// How long the new one is valid; without it until it is revoked.
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
    },
    /// Revoke a key, effective at once.
    #[command(after_help = "Example:\n  tenantry key revoke acme key_0193…")]
    Revoke {
        /// The tenant.
        tenant: TenantName,
        /// The key's id, as listed.
        #[arg(value_name = "KEY")]
        id: KeyId,
    },
}

/// A role as it is typed: words may have hyphens.
fn role(text: &str) -> Result<Role, NameError> {
    if text == "platform-admin" { Ok(Role::PlatformAdmin) } else { text.parse() }
}

#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    /// Make a role of a tenant's own, or change one: whoever has it may do this from now on.
    #[command(
        after_help = "Examples:\n  tenantry role set acme on-call --action model.read --action deployment.write\n  \
                            tenantry role set acme digits-only --action model.infer --model digits\n\n\
                            The actions are in docs/roles.md."
    )]
    Set {
        /// The tenant.
        tenant: TenantName,
        /// The role's name.
        role: RoleName,
        /// An action it allows; may be given more than once.
        #[arg(long = "action", value_name = "ACTION", required = true)]
        actions: Vec<Action>,
        /// One of the tenant's models it is for; may be given more than once. Without it all, and those shared with the tenant.
        #[arg(long = "model", value_name = "MODEL")]
        models: Vec<ModelName>,
        /// What it is for.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List a tenant's own roles.
    #[command(visible_alias = "ls", after_help = "Example:\n  tenantry role list acme")]
    List {
        /// The tenant.
        tenant: TenantName,
    },
    /// Delete a role that no key has.
    #[command(visible_alias = "rm", after_help = "Example:\n  tenantry role delete acme on-call")]
    Delete {
        /// The tenant.
        tenant: TenantName,
        /// The role.
        role: RoleName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    /// Upload a file and register it as the next version of a model.
    #[command(after_help = "Examples:\n  tenantry model push digits model.onnx\n  \
                            tenantry model push acme/digits model.tar.gz --tag team=vision --quality accuracy=0.981\n  \
                            tenantry model push digits model.onnx --no-deploy --max-batch 8\n\n\
                            FILE is an ONNX model, or a .tar or .tar.gz with one and its external data.")]
    Push(Box<Push>),
    /// Import the models of a Triton model repository, or an MLflow model, and say what became of each setting.
    #[command(after_help = import::EXAMPLES)]
    Import(Box<Import>),
    /// List models.
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  tenantry model list\n  \
                            tenantry model list --tenant acme --search vision --tag team=vision"
    )]
    List {
        /// Whose models; without it the key's own tenant's.
        #[arg(long)]
        tenant: Option<TenantName>,
        /// A piece of the name, the description or the framework.
        #[arg(long)]
        search: Option<String>,
        /// A pair among the tags.
        #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
        tag: Option<(String, String)>,
    },
    /// Show a model and its versions: state, signature, what registration measured.
    #[command(after_help = "Example:\n  tenantry model show acme/digits")]
    Show {
        /// The model: `name`, or `owner/name`.
        model: ModelRef,
    },
    /// Remove a model with all its versions, or one version.
    #[command(after_help = "Examples:\n  tenantry model rm digits --version 3\n  tenantry model rm digits --yes")]
    Rm {
        /// The model: `name`, or `owner/name`.
        model: ModelRef,
        /// Only this version.
        #[arg(long)]
        version: Option<u32>,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Point an alias to a version, or remove it.
    #[command(
        after_help = "Examples:\n  tenantry model alias digits stable 3\n  tenantry model alias digits stable --remove"
    )]
    Alias {
        /// The model: `name`, or `owner/name`.
        model: ModelRef,
        /// The alias.
        alias: ModelName,
        /// The version's number.
        #[arg(required_unless_present = "remove", conflicts_with = "remove")]
        version: Option<u32>,
        /// Remove the alias.
        #[arg(long)]
        remove: bool,
    },
    /// Send all traffic of a model to a version; set how many copies are kept loaded.
    #[command(after_help = "Examples:\n  tenantry model deploy digits 4\n  \
                            tenantry model deploy digits --min-replicas 1 --max-replicas 2\n  \
                            tenantry model deploy digits --cache 10m")]
    Deploy {
        /// The model: `name`, or `owner/name`.
        model: ModelRef,
        /// The version's number; without it the deployed one stays.
        version: Option<u32>,
        /// Copies kept loaded without traffic.
        #[arg(long)]
        min_replicas: Option<u32>,
        /// The most copies per trust domain.
        #[arg(long)]
        max_replicas: Option<u32>,
        /// How long a copy above the minimum may idle, such as 5m.
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        idle_after: Option<Duration>,
        /// How long a request may take when its client names no timeout, such as 500ms.
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        default_timeout: Option<Duration>,
        /// How long an answer is kept and given again for the same request of the same tenant, such as 10m.
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        cache: Option<Duration>,
        /// Keep no answers, and forget those that are kept.
        #[arg(long, conflicts_with = "cache")]
        no_cache: bool,
    },
    /// Set how well the workers that run a model must be kept apart; where they are not, it is not run.
    #[command(after_help = "Example:\n  tenantry model set digits --min-isolation isolated")]
    Set {
        /// The model: `name`, or `owner/name`.
        model: ModelRef,
        /// The least; `none` takes it back.
        #[arg(long, value_enum, value_name = "LEVEL")]
        min_isolation: LevelName,
    },
    /// Let every tenant use a model, or some, or only its owner again.
    #[command(
        after_help = "Examples:\n  tenantry model share file-type\n  tenantry model share file-type --with globex\n  \
                            tenantry model share file-type --nobody"
    )]
    Share {
        /// The model: `name`, or `owner/name`.
        model: ModelRef,
        /// Only this tenant; may be given more than once. All that may use it, not only those that are new.
        #[arg(long = "with", value_name = "TENANT", conflicts_with = "nobody")]
        with: Vec<TenantName>,
        /// Nobody but the owner.
        #[arg(long)]
        nobody: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The model: `name`, or `owner/name`. It is created when it does not exist.
    pub(crate) model: ModelRef,
    /// The file: an ONNX model, an archive (.tar, .tar.gz) of a model with its external data or its `tenantry.toml`, or a
    /// folder of those.
    #[arg(value_name = "FILE_OR_FOLDER")]
    pub(crate) file: PathBuf,
    /// A few words about this version.
    #[arg(long, default_value = "")]
    pub(crate) description: String,
    /// A few words about the model, whatever the version.
    #[arg(long)]
    pub(crate) about: Option<String>,
    /// What the model was made with.
    #[arg(long)]
    pub(crate) framework: Option<String>,
    /// A pair to find it by; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) tag: Vec<(String, String)>,
    /// A figure of quality, such as accuracy=0.98; may be given several times.
    #[arg(long, value_name = "NAME=NUMBER", value_parser = figure)]
    pub(crate) quality: Vec<(String, f64)>,
    /// Something the model needs besides itself; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) dependency: Vec<String>,
    /// Register only: traffic stays where it is.
    #[arg(long)]
    pub(crate) no_deploy: bool,
    /// Let every tenant use the model.
    #[arg(long)]
    pub(crate) share: bool,
    /// How well the workers that register and run the model must be kept apart; without it as it is.
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub(crate) min_isolation: Option<LevelName>,
    /// The most rows of one batch; without it the best that registration measures.
    #[arg(long, value_name = "ROWS")]
    pub(crate) max_batch: Option<u32>,
    /// How long a batch may wait to fill, milliseconds.
    #[arg(long, value_name = "MS")]
    pub(crate) max_batch_delay_ms: Option<u32>,
    /// The longest one run may take, milliseconds.
    #[arg(long, value_name = "MS")]
    pub(crate) max_run_ms: Option<u32>,
    /// Threads of one run; without it the best that registration measures.
    #[arg(long)]
    pub(crate) threads: Option<u16>,
}

/// The audit trail.
#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(subcommand)]
    pub(crate) command: Option<AuditCommand>,
    #[command(flatten)]
    pub(crate) filter: AuditFilter,
}

/// What else is done with the audit trail.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check that the whole trail is what was written (for the platform's administrators). Fails where it is not.
    #[command(after_help = "Examples:\n  tenantry audit verify\n  tenantry audit verify --json\n\n\
                            Every record holds the hash of the one before it and its own. Whoever can write to the database\n\
                            can make all of them anew: keep the hash that is printed, or exports, in another place, and\n\
                            compare.")]
    Verify,
    /// Print the records as JSON, one a line, the oldest first, with their hashes.
    #[command(after_help = "Examples:\n  tenantry audit export --all > audit.jsonl\n  \
                            tenantry audit export --all --after 1041 >> audit.jsonl\n  \
                            tenantry audit export --tenant acme\n\n\
                            The chain is the whole server's. In one tenant's export the hashes of the others' records are\n\
                            missing in between, so that it cannot be followed there; the platform's administrators can.")]
    Export(AuditExport),
}

/// Which records to export.
#[derive(Debug, Args)]
pub(crate) struct AuditExport {
    /// Whose; without it the key's own tenant's.
    #[arg(long, conflicts_with = "all")]
    pub(crate) tenant: Option<TenantName>,
    /// Everybody's, and the platform's own; for the platform's administrators.
    #[arg(long)]
    pub(crate) all: bool,
    /// Only those after this number: how to go on.
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    pub(crate) after: u64,
}

/// Which records of the audit trail.
#[derive(Debug, Args)]
pub(crate) struct AuditFilter {
    /// Whose; without it the key's own tenant's.
    #[arg(long, conflicts_with = "all")]
    pub(crate) tenant: Option<TenantName>,
    /// Everybody's, and the platform's own; for the platform's administrators.
    #[arg(long)]
    pub(crate) all: bool,
    /// Not older than this, such as 24h.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) since: Option<Duration>,
    /// Only those before this number: how to go on.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) before: Option<u64>,
    /// The most records.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

/// Usage.
#[derive(Debug, Subcommand)]
pub(crate) enum Usage {
    /// Add up what was used.
    #[command(
        after_help = "Examples:\n  tenantry usage show\n  tenantry usage show --by day,deployment --from 2026-11-01\n  \
                            tenantry usage show --all --by tenant,tier --json\n\n\
                            Compute, load and aborted are time on slots; days are UTC, by when an attempt ended."
    )]
    Show(UsageFilter),
    /// Write every attempt as one line of JSON, the oldest first.
    #[command(after_help = "Examples:\n  tenantry usage export > usage.jsonl\n  \
                            tenantry usage export --all --format cloudevents\n  \
                            tenantry usage export --after nod_…/boo_…/1041")]
    Export(UsageExport),
    /// Check that what was charged adds up to what the machine did; fails where it does not.
    #[command(after_help = "Examples:\n  tenantry usage check\n  tenantry usage check --json\n\n\
                            One line for each start of the server: slots x wall = charged + system + idle + unaccounted. Of a start\n\
                            that ended in order nothing may be unaccounted. For the platform's administrators.")]
    Check,
}

/// Whose usage.
#[derive(Debug, Args)]
pub(crate) struct UsageOf {
    /// Whose; without it the key's own tenant's.
    #[arg(long, conflicts_with = "all")]
    pub(crate) tenant: Option<TenantName>,
    /// Everybody's; for the platform's administrators.
    #[arg(long)]
    pub(crate) all: bool,
}

/// Which usage is added up.
#[derive(Debug, Args)]
pub(crate) struct UsageFilter {
    #[command(flatten)]
    pub(crate) of: UsageOf,
    /// The first day, such as 2026-11-01; without it 30 days up to the last one.
    #[arg(long, value_name = "DAY")]
    pub(crate) from: Option<String>,
    /// The last day; without it today.
    #[arg(long, value_name = "DAY")]
    pub(crate) to: Option<String>,
    /// What it is divided by.
    #[arg(long, value_delimiter = ',', value_name = "GROUP", default_value = "deployment",
        value_parser = ["day", "tenant", "deployment", "version", "tier", "kind", "outcome"])]
    pub(crate) by: Vec<String>,
}

/// Which attempts are written, and how.
#[derive(Debug, Args)]
pub(crate) struct UsageExport {
    #[command(flatten)]
    pub(crate) of: UsageOf,
    /// `jsonl`: the record; `cloudevents`: the record in the envelope of CloudEvents 1.0.
    #[arg(long, default_value = "jsonl")]
    pub(crate) format: ExportFormat,
    /// Only what comes after the record of this id: how to go on.
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<String>,
}

/// How attempts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ExportFormat {
    Jsonl,
    Cloudevents,
}

#[derive(Debug, Args)]
pub(crate) struct Infer {
    /// The model: `name`, or `owner/name`.
    pub(crate) model: ModelRef,
    /// A version's number or an alias; without it the deployed version.
    #[arg(long)]
    pub(crate) version: Option<String>,
    /// An input: NAME=JSON or NAME=@FILE; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, conflicts_with = "request", required_unless_present = "request")]
    pub(crate) input: Vec<(String, String)>,
    /// The shape of an input from a file; may be given several times.
    #[arg(long, value_name = "NAME=1,2,3", value_parser = shape)]
    pub(crate) shape: Vec<(String, Vec<u64>)>,
    /// A whole request of the Open Inference Protocol, in JSON; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) request: Option<PathBuf>,
    /// Only this output; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) output: Vec<String>,
    /// How long to wait for the answer, such as 500ms.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Also say on standard error where the request's time went, or which limit refused it.
    #[arg(long)]
    pub(crate) explain: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// A tenant and its load; may be given several times. A key with a colon in it goes into a plan file.
    #[arg(long = "tenant", value_name = "NAME:KEY[:MODEL[:RATE|:flood=N]]")]
    pub(crate) tenants: Vec<TenantEntry>,
    /// A file with tenants and their loads.
    #[arg(long, value_name = "FILE", conflicts_with = "trace")]
    pub(crate) plan: Option<PathBuf>,
    /// Recorded arrivals (`tenantry serve --record-arrivals`), sent by the tenants named with --tenant NAME:KEY.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Send recorded arrivals so much faster.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, requires = "trace")]
    pub(crate) speed: f64,
    /// How long the load counts, such as 30s; without it 10s, or as long as the trace.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// How long load is sent before anything counts; without it 1s, or nothing of a trace.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) warmup: Option<Duration>,
    /// The timeout of requests that have none of their own, sent along; an answer after it is late.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Rows of requests that name none.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) rows: u32,
    /// Equal seeds give equal arrivals and inputs.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct WhatIf {
    /// The arrivals, as `tenantry serve --record-arrivals` writes them; ServeGen's slices are read, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: PathBuf,
    /// Who the tenants are and on what they run, in TOML.
    #[arg(long, value_name = "FILE")]
    pub(crate) tenants: PathBuf,
    /// Slots that everybody uses; overrides the file.
    #[arg(long, value_name = "N")]
    pub(crate) slots: Option<u16>,
    /// The policy; overrides the file.
    #[arg(long, value_enum)]
    pub(crate) policy: Option<PolicyName>,
    /// Let requests come so much faster than recorded.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub(crate) speed: f64,
    /// Write a picture of each tenant's service over time.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print the reference of every key.
    #[command(after_help = "Example:\n  tenantry config reference > docs/configuration.md")]
    Reference,
    /// Check a file without starting anything.
    #[command(after_help = "Example:\n  tenantry config check /etc/tenantry.toml")]
    Check {
        /// The file.
        file: PathBuf,
    },
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn figure(text: &str) -> Result<(String, f64), String> {
    let (name, value) = pair(text)?;
    let value: f64 = value.parse().map_err(|_| "expected NAME=NUMBER".to_owned())?;
    if value.is_finite() { Ok((name, value)) } else { Err("the number must be finite".to_owned()) }
}

fn shape(text: &str) -> Result<(String, Vec<u64>), String> {
    let (name, value) = pair(text)?;
    let extents: Result<Vec<u64>, _> =
        value.split(',').filter(|extent| !extent.is_empty()).map(|extent| extent.trim().parse()).collect();
    Ok((name, extents.map_err(|_| "expected NAME=1,2,3".to_owned())?))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_an_example() {
        Arguments::command().debug_assert();
        fn check(command: &clap::Command) {
            let has_subcommands = command.get_subcommands().next().is_some();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(has_subcommands || help.contains("Example"), "`{}` has no example", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&Arguments::command());
    }

    #[test]
    fn values_with_a_name_are_read() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(pair("=b").is_err() && pair("ab").is_err());
        assert_eq!(shape("x=1, 28,28"), Ok(("x".to_owned(), vec![1, 28, 28])));
        assert_eq!(shape("x="), Ok(("x".to_owned(), vec![])));
        assert!(shape("x=-1").is_err());
        assert!(figure("a=nan").is_err());
        assert_eq!(figure("a=0.5"), Ok(("a".to_owned(), 0.5)));
    }

    #[test]
    fn an_inference_needs_inputs_or_a_request() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' ')).map(|_| ());
        assert!(parse("tenantry infer m").is_err());
        assert!(parse("tenantry infer m --input x=[1] --request f").is_err());
        assert!(parse("tenantry infer acme/m --input x=[1] --server http://h:1 --json").is_ok());
    }
}
