//! The options of `tenantry model import`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tenantry_types::{ModelRef, TenantName};

/// What `tenantry model import --help` ends with.
pub(crate) const EXAMPLES: &str = "Examples:\n  tenantry model import models/ --dry-run          what would become of each setting\n  \
     tenantry model import models/                    every model of a Triton repository\n  \
     tenantry model import models/resnet --name acme/classifier\n  \
     tenantry model import mlruns/1/models/m-0193/artifacts --name churn --json\n\n\
     PATH is a Triton model repository (folders with config.pbtxt and versions named by number), the folder of one of\n\
     its models, or the folder of an MLflow model of the ONNX flavour. Versions that are there already, by the digests\n\
     of their files and by their settings, are not uploaded again.";

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The folder.
    pub(crate) path: PathBuf,
    /// What the model is called here, `name` or `owner/name`; for a folder of one model. Without it as its folder.
    #[arg(long)]
    pub(crate) name: Option<ModelRef>,
    /// Whose the models become; without it the key's own tenant's.
    #[arg(long, conflicts_with = "name")]
    pub(crate) tenant: Option<TenantName>,
    /// Only say what would become of each model and setting; no server is asked.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Register only: traffic stays where it is.
    #[arg(long)]
    pub(crate) no_deploy: bool,
    /// How long answers are kept where a model's settings ask for a response cache.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    pub(crate) cache_ttl: Duration,
}
