//! Organisations, shares, limits and the policy on the command line.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use tenantry_api::admin::types::IsolationLevel;
use tenantry_server::config::ByteSize;
use tenantry_types::OrganisationName;

#[derive(Debug, Subcommand)]
pub(crate) enum Organisation {
    /// Create an organisation.
    #[command(after_help = "Example:\n  tenantry organisation create acme-group\n  \
                            tenantry tenant limits acme --organisation acme-group")]
    Create {
        /// Its name.
        name: OrganisationName,
    },
    /// List organisations with their tenants.
    #[command(visible_alias = "ls", after_help = "Example:\n  tenantry organisation list")]
    List,
    /// Show the share of an organisation; with options, set it first.
    #[command(after_help = "Example:\n  tenantry organisation limits acme-group --weight 4")]
    Limits {
        /// The organisation.
        name: OrganisationName,
        #[command(flatten)]
        limits: Box<Limits>,
    },
    /// Remove an organisation no tenant belongs to.
    #[command(after_help = "Example:\n  tenantry organisation rm acme-group")]
    Rm {
        /// Its name.
        name: OrganisationName,
    },
}

/// How the server chooses what runs next.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Show the policy in force.
    #[command(after_help = "Example:\n  tenantry policy show")]
    Show,
    /// Switch it until the server ends; `scheduler.policy` in the configuration says with which it starts.
    #[command(after_help = "Examples:\n  tenantry policy set fifo\n  tenantry policy set fair")]
    Set {
        /// The policy.
        #[arg(value_enum)]
        policy: PolicyName,
    },
}

/// A policy: the server's own, and three to compare it with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyName {
    /// By reservation, then by weight in measured device time.
    Fair,
    /// The oldest request first.
    Fifo,
    /// One batch a tenant in turn.
    RoundRobin,
    /// The higher tier first.
    StrictPriority,
}

/// Which parts of a share are promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TierName {
    /// Its reservation is kept whatever others send.
    Guaranteed,
    /// Its weight's share.
    Burstable,
    /// What is left.
    BestEffort,
}

/// How well workers must be kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelName {
    /// Whatever there is.
    None,
    /// No privilege, no file, few system calls.
    Confined,
    /// The same, in namespaces and a root of their own.
    Isolated,
    /// The same, in a control group that bounds what they use.
    Full,
}

impl From<LevelName> for IsolationLevel {
    fn from(level: LevelName) -> Self {
        match level {
            LevelName::None => Self::None,
            LevelName::Confined => Self::Confined,
            LevelName::Isolated => Self::Isolated,
            LevelName::Full => Self::Full,
        }
    }
}

/// A setting that can be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LimitName {
    Organisation,
    Tier,
    Weight,
    Reservation,
    DeviceTime,
    Rate,
    MaxRequests,
    MaxQueuedTasks,
    MaxQueuedData,
    MaxBody,
    MaxBodies,
    MaxCache,
    SlotGroup,
    BatchWithOthers,
    WorkerMemory,
    WorkerProcesses,
    WorkerCpus,
}

/// A share and limits; what is not named stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub(crate) struct Limits {
    /// Which parts of the share are promised.
    #[arg(long, value_enum)]
    pub(crate) tier: Option<TierName>,
    /// The part of its parent's time while others have work, too; 1 for who was given none.
    #[arg(long)]
    pub(crate) weight: Option<f64>,
    /// Device time kept free for it, in slots: 0.25 is a quarter of one.
    #[arg(long, value_name = "SLOTS")]
    pub(crate) reserve: Option<f64>,
    /// Device time it may use of its reservation at once, such as 100ms.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, requires = "reserve")]
    pub(crate) reserve_burst: Option<Duration>,
    /// Device time beyond which its requests are refused, in slots.
    #[arg(long, value_name = "SLOTS")]
    pub(crate) device_time: Option<f64>,
    /// Device time it may use at once, such as 1s.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, requires = "device_time")]
    pub(crate) device_time_burst: Option<Duration>,
    /// Requests per second.
    #[arg(long, value_name = "PER_SECOND")]
    pub(crate) rate: Option<f64>,
    /// Requests that may come at once.
    #[arg(long, requires = "rate")]
    pub(crate) burst: Option<u32>,
    /// Requests in flight at the same time.
    #[arg(long)]
    pub(crate) max_requests: Option<u32>,
    /// Requests waiting for a slot.
    #[arg(long)]
    pub(crate) max_queued_tasks: Option<u32>,
    /// Tensor data waiting for a slot, such as 64MiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_queued_data: Option<ByteSize>,
    /// The largest body, such as 1MiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_body: Option<ByteSize>,
    /// Bodies and answers in flight, such as 256MiB; tenants only.
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_bodies: Option<ByteSize>,
    /// Answers kept to be given again, such as 64MiB, or 0B for none; tenants only.
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_cache: Option<ByteSize>,
    /// The organisation it belongs to; tenants only.
    #[arg(long, value_name = "NAME")]
    pub(crate) organisation: Option<OrganisationName>,
    /// The slots it runs on, as `[[workers.group]]` names them; tenants only.
    #[arg(long, value_name = "NAME")]
    pub(crate) slot_group: Option<String>,
    /// Whether its requests may share batches with other tenants'; tenants only.
    #[arg(long, value_name = "true|false")]
    pub(crate) batch_with_others: Option<bool>,
    /// Memory of each of its workers, such as 512MiB; from its next worker on; tenants only.
    #[arg(long, value_name = "SIZE")]
    pub(crate) worker_memory: Option<ByteSize>,
    /// Processes and threads of each of its workers; tenants only.
    #[arg(long, value_name = "COUNT")]
    pub(crate) worker_processes: Option<u32>,
    /// Processor time of each of its workers, in processors: 1.5 is one and a half; tenants only.
    #[arg(long, value_name = "PROCESSORS")]
    pub(crate) worker_cpus: Option<f64>,
    /// Take a setting back; may be given several times.
    #[arg(long, value_enum, value_name = "SETTING")]
    pub(crate) unset: Vec<LimitName>,
    /// Take all settings back.
    #[arg(long)]
    pub(crate) reset: bool,
}
