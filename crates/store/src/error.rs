//! What can go wrong, one enum per kind of operation. Each says whose fault it is; [`ReadError`], [`WriteError`] and
//! [`UploadError`] turn into a [`ServiceError`] that is safe to show and keeps the source to the log.

use std::fmt;
use std::io;

use tenantry_types::{ErrorCode, ServiceError};

use crate::master::MasterKeyError;
use crate::seal::SealError;

/// Why a store could not be opened. For the operator, who can act on it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data folder cannot be made, read or written.
    #[error("cannot {action} in the data folder; check that it exists and belongs to this user")]
    DataFolder {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process has it open.
    #[error("the data folder is in use by another server; stop that one or choose another folder")]
    InUse,
    /// Folder and database do not belong together. Going on would sweep away another database's artefacts.
    #[error(
        "the data folder holds artefacts of another database; name the database they belong to, or an empty folder"
    )]
    Mismatch,
    /// Not a URL of a database we speak.
    #[error("the database URL must start with sqlite: or postgres:")]
    Scheme,
    /// The database cannot be reached or refuses us.
    #[error("cannot open the database")]
    Database(#[from] sqlx::Error),
    /// The tables cannot be brought to this version's form.
    #[error("cannot bring the database to the form this version needs; is it of a newer version?")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The artefacts cannot be reached.
    #[error("cannot open the artefacts in the data folder")]
    Artefacts(#[from] object_store::Error),
    /// The master key is not there, or another one.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// The first read failed.
    #[error("cannot read what the database holds")]
    Read(#[from] ReadError),
}

/// The kinds of things the store keeps, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thing {
    /// A tenant.
    Tenant,
    /// An organisation.
    Organisation,
    /// The settings of a node of the share tree.
    Share,
    /// An API key.
    Key,
    /// A role that a tenant made for itself.
    Role,
    /// A model.
    Model,
    /// A version.
    Version,
    /// An alias.
    Alias,
    /// A deployment.
    Deployment,
    /// An uploaded file or an optimised form.
    Artefact,
    /// A record of the audit trail.
    Audit,
    /// A record of the usage ledger.
    Usage,
    /// A key of a tenant's files.
    DataKey,
    /// A price plan.
    PricePlan,
    /// The limits of a tenant by period.
    Budget,
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tenant => "tenant",
            Self::Organisation => "organisation",
            Self::Share => "share",
            Self::Key => "key",
            Self::Role => "role",
            Self::Model => "model",
            Self::Version => "version",
            Self::Alias => "alias",
            Self::Deployment => "deployment",
            Self::Artefact => "artefact",
            Self::Audit => "audit record",
            Self::Usage => "usage record",
            Self::DataKey => "data key",
            Self::PricePlan => "price plan",
            Self::Budget => "budget",
        })
    }
}

/// What lies below the store: the database or the artefacts' storage.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The database.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// The artefacts.
    #[error("the artefacts' storage failed")]
    Artefacts(#[from] object_store::Error),
    /// The system.
    #[error("the system failed")]
    System(#[from] io::Error),
    /// The master key.
    #[error("a tenant's data key cannot be had")]
    MasterKey(#[source] MasterKeyError),
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The caller's fault: there is no such thing.
    #[error("the {0} does not exist")]
    NotFound(Thing),
    /// The caller's fault: more words than a search takes.
    #[error("a search takes at most {max_words} words of at most 256 bytes each")]
    SearchTooLong {
        /// [`crate::limits::MAX_SEARCH_WORDS`].
        max_words: usize,
    },
    /// Our fault: a row does not say what it should. Trying again does not help.
    #[error("a {thing} is damaged in the database ({column})")]
    Damaged {
        /// What kind of row.
        thing: Thing,
        /// Which column.
        column: &'static str,
    },
    /// Our fault, or that of whoever wrote to the disk: an encrypted file is not what was written. Trying again does not help.
    #[error("a file is damaged and cannot be decrypted; upload it again")]
    Sealed(#[source] SealError),
    /// The machine's fault: try again later.
    #[error("the registry cannot be read now; try again")]
    Unavailable(#[source] BackendError),
}

/// Why something could not be written. Unless it is [`WriteError::Unavailable`], nothing was.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The caller's fault: the value itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The caller's fault: what it refers to does not exist.
    #[error("the {0} does not exist")]
    NotFound(Thing),
    /// The caller's fault: the name is taken.
    #[error("a {0} of that name exists already; choose another name")]
    AlreadyExists(Thing),
    /// Nobody's fault: it changed since the caller looked. Look again, then decide again.
    #[error("the {thing} changed meanwhile (it is at generation {generation} now); read it again and repeat")]
    Conflict {
        /// What changed.
        thing: Thing,
        /// Its generation now.
        generation: u64,
    },
    /// The caller's fault: it is not in the state the change needs.
    #[error("{0}")]
    WrongState(String),
    /// The caller's limit.
    #[error("there are {limit} {things} already, which is the limit; remove one first")]
    LimitReached {
        /// What there are too many of.
        things: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// Our fault: a row does not say what it should. Trying again does not help.
    #[error("a {thing} is damaged in the database ({column})")]
    Damaged {
        /// What kind of row.
        thing: Thing,
        /// Which column.
        column: &'static str,
    },
    /// The machine's fault: it may or may not have been written; try again later.
    #[error("the registry cannot be written now; try again")]
    Unavailable(#[source] BackendError),
}

/// Why bytes could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The caller's fault: more bytes than allowed.
    #[error("the upload is larger than the limit of {limit_bytes} bytes")]
    TooLarge {
        /// How many are allowed.
        limit_bytes: u64,
    },
    /// The caller's fault: the tenant it is for is gone.
    #[error("the tenant does not exist")]
    OwnerGone,
    /// The machine's limit: try again later.
    #[error("too many uploads at the same time; try again when one has ended")]
    Busy,
    /// The machine's fault: try again later.
    #[error("the upload cannot be stored now; try again")]
    Unavailable(#[source] BackendError),
}

impl From<sqlx::Error> for ReadError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error.into())
    }
}

impl From<sqlx::Error> for WriteError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error.into())
    }
}

impl From<SealError> for ReadError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Io(error) => Self::Unavailable(error.into()),
            error => Self::Sealed(error),
        }
    }
}

impl From<SealError> for UploadError {
    fn from(error: SealError) -> Self {
        let source = match error {
            SealError::Io(error) => error,
            error => io::Error::other(error),
        };
        Self::Unavailable(source.into())
    }
}

impl From<object_store::Error> for WriteError {
    fn from(error: object_store::Error) -> Self {
        Self::Unavailable(error.into())
    }
}

impl From<ReadError> for WriteError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound(thing) => Self::NotFound(thing),
            ReadError::Damaged { thing, column } => Self::Damaged { thing, column },
            ReadError::Unavailable(source) => Self::Unavailable(source),
            ReadError::Sealed(error) => Self::Unavailable(io::Error::other(error).into()),
            error @ ReadError::SearchTooLong { .. } => Self::Invalid(error.to_string()),
        }
    }
}

impl From<object_store::Error> for UploadError {
    fn from(error: object_store::Error) -> Self {
        Self::Unavailable(error.into())
    }
}

impl From<io::Error> for UploadError {
    fn from(error: io::Error) -> Self {
        Self::Unavailable(error.into())
    }
}

impl ReadError {
    /// What a client's program may act on.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound(_) => ErrorCode::NotFound,
            Self::SearchTooLong { .. } => ErrorCode::InvalidArgument,
            Self::Damaged { .. } | Self::Sealed(_) => ErrorCode::Internal,
            Self::Unavailable(_) => ErrorCode::Unavailable,
        }
    }
}

impl WriteError {
    /// What a client's program may act on.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid(_) => ErrorCode::InvalidArgument,
            Self::NotFound(_) => ErrorCode::NotFound,
            Self::AlreadyExists(_) => ErrorCode::AlreadyExists,
            Self::Conflict { .. } | Self::WrongState(_) => ErrorCode::Conflict,
            Self::LimitReached { .. } => ErrorCode::ResourceExhausted,
            Self::Damaged { .. } => ErrorCode::Internal,
            Self::Unavailable(_) => ErrorCode::Unavailable,
        }
    }
}

impl UploadError {
    /// What a client's program may act on.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::OwnerGone => ErrorCode::NotFound,
            Self::Busy => ErrorCode::ResourceExhausted,
            Self::Unavailable(_) => ErrorCode::Unavailable,
        }
    }
}

impl From<ReadError> for ServiceError {
    fn from(error: ReadError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<WriteError> for ServiceError {
    fn from(error: WriteError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<UploadError> for ServiceError {
    fn from(error: UploadError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
