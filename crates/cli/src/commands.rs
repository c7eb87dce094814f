//! The commands that talk to a running server, one file a noun. They convert and print; the server decides.

pub(crate) mod config;
pub(crate) mod infer;
pub(crate) mod key;
pub(crate) mod model;
pub(crate) mod status;
pub(crate) mod tenant;
