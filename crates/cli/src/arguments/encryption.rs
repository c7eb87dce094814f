//! Encryption at rest on the command line.

use clap::Subcommand;
use tenantry_types::TenantName;

/// Encryption at rest.
#[derive(Debug, Subcommand)]
pub(crate) enum Encryption {
    /// Show how files are encrypted: the keys of all (for the platform's administrators), or a tenant's keys and files.
    #[command(
        after_help = "Examples:\n  tenantry encryption status\n  tenantry encryption status --tenant acme --json"
    )]
    Status {
        /// Whose keys and files.
        #[arg(long)]
        tenant: Option<TenantName>,
    },
    /// Make a new key: a tenant's, for what is written from now on, or the master key, which then wraps all tenants' keys anew.
    #[command(
        after_help = "Examples:\n  tenantry encryption rotate --tenant acme\n  tenantry encryption rotate --master\n\n\
                            After a tenant's key was rotated, `tenantry encryption rekey` writes its files anew and removes the old\n\
                            key. A rotation of the master key writes no file. A master key in the environment is rotated by\n\
                            putting the new one before the old one (NEW,OLD), starting the server again, and then\n\
                            `rotate --master`; after that the old one may go."
    )]
    Rotate {
        /// Whose key.
        #[arg(long, required_unless_present = "master", conflicts_with = "master")]
        tenant: Option<TenantName>,
        /// The master key; for the platform's administrators.
        #[arg(long)]
        master: bool,
    },
    /// Write files anew that are not encrypted with their tenant's newest key, and remove older keys (for the platform's
    /// administrators).
    #[command(
        after_help = "Examples:\n  tenantry encryption rekey\n  tenantry encryption rekey --tenant acme --json\n\n\
                            Requests are served meanwhile. It can be stopped and done again. It fails if a file is damaged, and\n\
                            leaves that file and its key."
    )]
    Rekey {
        /// Only this tenant's files.
        #[arg(long)]
        tenant: Option<TenantName>,
    },
    /// Print a new master key, for a variable of the environment. Asks no server.
    #[command(after_help = "Example:\n  TENANTRY_MASTER_KEY=$(tenantry encryption new-key)")]
    NewKey,
}
