//! The admin operations: one file a noun. Each takes the principal and checks its role first; another tenant's thing
//! is not found, whoever asks.

mod info;
mod skeleton;

pub use info::*;
pub use skeleton::Upload;
