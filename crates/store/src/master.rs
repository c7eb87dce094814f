//! The master key: what wraps the tenants' data keys, and is kept apart from them.
//!
//! Wrapping is authenticated and bound to a context (the tenant and the generation), so that a wrapped key cannot be put in
//! another's place. Each wrapped key says by which master key it was wrapped; after a rotation the older ones still open it
//! until it has been wrapped again.

mod local;
mod vault;

use std::fmt;

use futures_util::future::BoxFuture;
use zeroize::Zeroizing;

pub use local::{EnvironmentKey, FileKey, new_master_key};
pub use vault::{VaultAddressError, VaultConfig, VaultKey};

/// A key's length in bytes.
pub const KEY_BYTES: usize = 32;

/// A key: wiped when it is dropped, never printed.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<[u8; KEY_BYTES]>);

impl SecretKey {
    /// A key of these bytes; the caller wipes his.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// A key nobody can guess.
    pub(crate) fn random() -> Result<Self, MasterKeyError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut *bytes).map_err(|error| MasterKeyError::System(std::io::Error::other(error)))?;
        Ok(Self(bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// A data key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which master key wrapped it.
    pub master_key: String,
    /// What it made of it.
    pub text: String,
}

/// Why a data key cannot be wrapped or unwrapped. The texts are for the operator and say what to do.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// There is none.
    #[error("files are encrypted, and no master key is configured; see `[encryption]`")]
    NotConfigured,
    /// It is not where it should be, but there are keys that it wrapped.
    #[error(
        "the master key is missing, and the tenants' files cannot be read without it: bring back the file that \
         `encryption.key_file` names, or the variable that `encryption.key_variable` names, from your copy of it"
    )]
    Missing,
    /// Another one wrapped it.
    #[error(
        "the tenants' data keys are wrapped by the master key {wanted}, which is not the one that is configured: name that \
         one in `[encryption]`, or bring it back from your copy of it"
    )]
    Unknown {
        /// What is said to have wrapped it.
        wanted: String,
    },
    /// It is not what this key wrapped for this tenant and generation.
    #[error("a data key cannot be unwrapped: the master key is another one, or the key was changed in the database")]
    Refused,
    /// What should hold keys does not.
    #[error("the master key cannot be used: {0}")]
    Invalid(String),
    /// Who keeps it cannot be reached, or does not answer now.
    #[error("the key server cannot be reached: {0}")]
    Unreachable(String),
    /// Who keeps it does not let us.
    #[error("the key server refuses: {0}")]
    Denied(String),
    /// The machine does not let us read or write it.
    #[error("the master key cannot be read or written")]
    System(#[source] std::io::Error),
}

/// Wraps and unwraps data keys with a key of its own that it does not give away.
pub trait MasterKey: fmt::Debug + Send + Sync {
    /// What keeps it: `file`, `environment` or `vault`.
    fn kind(&self) -> &'static str;

    /// The key that wraps now; none if there is none yet, which the first wrapping makes.
    fn current(&self) -> BoxFuture<'_, Result<Option<String>, MasterKeyError>>;

    /// Wraps a key, so that it is unwrapped only with the same context.
    fn wrap<'a>(&'a self, key: &'a SecretKey, context: &'a [u8]) -> BoxFuture<'a, Result<WrappedKey, MasterKeyError>>;

    /// Unwraps a key.
    fn unwrap<'a>(
        &'a self,
        wrapped: &'a WrappedKey,
        context: &'a [u8],
    ) -> BoxFuture<'a, Result<SecretKey, MasterKeyError>>;

    /// From now on wraps with a new key where it can make one; older ones go on unwrapping.
    fn rotate(&self) -> BoxFuture<'_, Result<(), MasterKeyError>>;

    /// Nothing is wrapped by older keys any more: they may go where they are ours to remove.
    fn forget_older(&self) -> BoxFuture<'_, Result<(), MasterKeyError>>;
}

#[cfg(test)]
mod tests;
