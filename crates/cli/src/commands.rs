//! The commands that talk to a running server, one file a noun. They convert and print; the server decides.

pub(crate) mod audit;
pub(crate) mod bench;
pub(crate) mod budget;
pub(crate) mod config;
pub(crate) mod encryption;
pub(crate) mod infer;
pub(crate) mod invoice;
pub(crate) mod key;
pub(crate) mod limits;
pub(crate) mod model;
pub(crate) mod organisation;
pub(crate) mod policy;
pub(crate) mod price;
pub(crate) mod role;
pub(crate) mod status;
pub(crate) mod tenant;
pub(crate) mod usage;
pub(crate) mod what_if;
