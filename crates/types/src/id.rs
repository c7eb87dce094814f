//! Identifiers: one newtype each, printed with a prefix so that a log line says what it names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Text that is not an identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier: expected `{prefix}` followed by 32 hexadecimal digits")]
pub struct ParseIdError {
    prefix: &'static str,
}

/// An identifier that outlives the process: UUID version 7 (RFC 9562, section 5.7), so that ids sort by creation time.
macro_rules! durable_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// What the printed form starts with.
            pub const PREFIX: &'static str = $prefix;

            /// Makes an id from milliseconds since the Unix epoch and ten random bytes, both the caller's.
            pub fn from_parts(unix_ms: u64, random: [u8; 10]) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
            }

            /// The sixteen bytes of the UUID.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let error = ParseIdError { prefix: $prefix };
                let digits = text.strip_prefix($prefix).filter(|digits| digits.len() == 32).ok_or(error.clone())?;
                Uuid::try_parse(digits).map(Self).map_err(|_| error)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.as_bytes().serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if !deserializer.is_human_readable() {
                    return <[u8; 16]>::deserialize(deserializer).map(|bytes| Self(Uuid::from_bytes(bytes)));
                }
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// An identifier that means something only inside one process.
macro_rules! local_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

durable_id!(
    /// A tenant: the boundary of isolation and limits.
    TenantId, "ten_"
);
durable_id!(
    /// An organisation: tenants under one share.
    OrganisationId, "org_"
);
durable_id!(
    /// An API key, without its secret.
    KeyId, "key_"
);
durable_id!(
    /// A model: a name owned by a tenant.
    ModelId, "mod_"
);
durable_id!(
    /// One immutable version of a model.
    VersionId, "ver_"
);
durable_id!(
    /// The desired state of a model.
    DeploymentId, "dep_"
);
durable_id!(
    /// One request of a client, as logs and traces name it.
    RequestId, "req_"
);
durable_id!(
    /// A machine with a data folder of its own.
    NodeId, "nod_"
);
durable_id!(
    /// One start of a node.
    BootId, "boo_"
);

local_id!(
    /// One schedulable piece of work: a request, a load, a registration.
    TaskId, "tsk_"
);
local_id!(
    /// Tasks that run together on one slot.
    BatchId, "bat_"
);
local_id!(
    /// A version loaded in a worker.
    ReplicaId, "rep_"
);
local_id!(
    /// A worker process.
    WorkerId, "wrk_"
);
local_id!(
    /// The right to run one batch on a device.
    SlotId, "slt_"
);
local_id!(
    /// A (version, trust domain) pair: the set of replicas that may serve a task.
    PlacementId, "plc_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durable_ids_print_with_their_prefix_and_parse_back() {
        let id = TenantId::from_parts(1_700_000_000_000, [7; 10]);
        let text = id.to_string();
        assert!(text.starts_with("ten_"), "{text}");
        assert_eq!(text.parse::<TenantId>(), Ok(id));
        assert!(text.parse::<KeyId>().is_err());
        assert!("ten_12".parse::<TenantId>().is_err());
        assert!("ten_0000000g000000000000000000000000".parse::<TenantId>().is_err());
    }

    #[test]
    fn durable_ids_sort_by_creation_time() {
        let early = VersionId::from_parts(1_000, [255; 10]);
        let late = VersionId::from_parts(1_001, [0; 10]);
        assert!(early < late);
        assert!(early.to_string() < late.to_string());
    }

    #[test]
    fn ids_are_text_in_json() {
        let id = KeyId::from_parts(5, [1; 10]);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<KeyId>(&json).unwrap(), id);
    }
}
