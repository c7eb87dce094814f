//! Names people choose: organisations, tenants, models, aliases. One alphabet, so that a name fits a URL, a label and a file name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name.
pub const MAX_NAME_BYTES: usize = 63;

/// Words with a meaning in the URL after a model's name; a model cannot be called so, or its URL would be ambiguous.
pub const RESERVED_MODEL_NAMES: [&str; 12] = [
    "infer",
    "ready",
    "versions",
    "labels",
    "config",
    "metadata",
    "stats",
    "generate",
    "generate_stream",
    "load",
    "unload",
    "trace",
];

/// Words that name the built-in roles.
const RESERVED_ROLE_NAMES: [&str; 5] = ["admin", "deployer", "invoker", "viewer", "auditor"];
/// How names of roles begin that are the platform's.
const RESERVED_ROLE_PREFIX: &str = "platform";

/// A text that is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Wrong length or alphabet.
    #[error(
        "`{0}` is not a name: use 1 to 63 characters of a-z, 0-9, `-`, `_`, `.`, starting and ending with a letter or digit"
    )]
    Malformed(String),
    /// A word with a meaning of its own.
    #[error("`{0}` is a reserved word; choose another name")]
    Reserved(String),
}

fn check(text: &str) -> Result<(), NameError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = !text.is_empty()
        && text.len() <= MAX_NAME_BYTES
        && text.starts_with(plain)
        && text.ends_with(plain)
        && text.chars().all(|c| plain(c) || matches!(c, '-' | '_' | '.'));
    if good { Ok(()) } else { Err(NameError::Malformed(crate::error::sanitise(text, MAX_NAME_BYTES))) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.into()
            }
        }
    };
}

name!(
    /// A tenant's name, unique on the server.
    TenantName
);
name!(
    /// An organisation's name, unique on the server.
    OrganisationName
);
name!(
    /// A model's or an alias's name, unique inside its tenant or model.
    ModelName
);
name!(
    /// The name of a role that a tenant made for itself, unique inside its tenant.
    RoleName
);

impl FromStr for TenantName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text).map(|()| Self(text.into()))
    }
}

impl FromStr for OrganisationName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text).map(|()| Self(text.into()))
    }
}

impl FromStr for RoleName {
    type Err = NameError;
    /// A built-in role's word is no name for another role, nor is one that the platform may come to use.
    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text)?;
        if RESERVED_ROLE_NAMES.contains(&text) || text.starts_with(RESERVED_ROLE_PREFIX) {
            return Err(NameError::Reserved(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

impl FromStr for ModelName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text)?;
        if RESERVED_MODEL_NAMES.contains(&text) {
            return Err(NameError::Reserved(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

/// How a caller names a model: `name` inside his own tenant, `owner/name` across tenants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelRef {
    /// The owning tenant, when named.
    pub owner: Option<TenantName>,
    /// The model.
    pub name: ModelName,
}

impl FromStr for ModelRef {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((owner, name)) => Ok(Self { owner: Some(owner.parse()?), name: name.parse()? }),
            None => Ok(Self { owner: None, name: text.parse()? }),
        }
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Some(owner) => write!(f, "{owner}/{}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_alphabet() {
        for good in ["a", "acme", "all-minilm.l6_v2", "7b"] {
            assert!(good.parse::<ModelName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a b", "a/b", "..", "ä", &"x".repeat(64), "a\n"] {
            assert!(bad.parse::<ModelName>().is_err(), "{bad:?}");
        }
        assert!("infer".parse::<ModelName>().is_err());
        assert!("infer".parse::<TenantName>().is_ok());
    }

    #[test]
    fn a_reference_names_an_owner_or_not() {
        let shared: ModelRef = "platform/magika".parse().unwrap();
        assert_eq!(shared.owner.as_ref().map(TenantName::as_str), Some("platform"));
        assert_eq!(shared.to_string(), "platform/magika");
        let own: ModelRef = "magika".parse().unwrap();
        assert_eq!(own.owner, None);
        assert!("a/b/c".parse::<ModelRef>().is_err());
        assert!("/b".parse::<ModelRef>().is_err());
    }
}
