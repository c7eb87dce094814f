//! A plan as an operator writes it: a TOML file, or one short text a tenant.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tenantry_types::ModelRef;

use crate::{Arrivals, MAX_CONNECTIONS};

/// Requests a second where nothing is said.
const DEFAULT_PER_SECOND: f64 = 10.0;
/// Connections of an open stream where nothing is said.
const DEFAULT_CONNECTIONS: usize = 64;

/// A plan as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlanFile {
    /// How long the load counts.
    #[serde(deserialize_with = "span")]
    pub duration: Option<Duration>,
    /// How long load is sent before.
    #[serde(deserialize_with = "span")]
    pub warmup: Option<Duration>,
    /// One entry a stream; a tenant may have several.
    #[serde(rename = "tenant")]
    pub tenants: Vec<TenantEntry>,
}

/// One stream as written.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantEntry {
    /// How the report calls it.
    pub name: String,
    /// The key it sends.
    #[serde(default)]
    pub key: Option<String>,
    /// The environment variable that holds the key, so that the file need not.
    #[serde(default)]
    pub key_env: Option<String>,
    /// What it asks.
    #[serde(default, deserialize_with = "model")]
    pub model: Option<ModelRef>,
    /// Requests a second, whatever the server does.
    #[serde(default)]
    pub rate: Option<f64>,
    /// How they are spread.
    #[serde(default)]
    pub arrivals: Spread,
    /// Instead of a rate: connections that send again as soon as they have their answers.
    #[serde(default)]
    pub flood: Option<usize>,
    /// The most requests under way, of a rate.
    #[serde(default)]
    pub connections: Option<usize>,
    /// Sent along; an answer after it is late.
    #[serde(default, deserialize_with = "span")]
    pub timeout: Option<Duration>,
    /// Rows of each request.
    #[serde(default)]
    pub rows: Option<u32>,
    /// Shapes of inputs, where the model leaves them open.
    #[serde(default)]
    pub shapes: BTreeMap<String, Vec<u64>>,
}

/// How the arrivals of a rate are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// Independently, as those of many users are.
    #[default]
    Poisson,
    /// Evenly.
    Constant,
}

/// A plan that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// No TOML, or a key nobody knows.
    #[error("the plan cannot be read")]
    Toml(#[from] toml::de::Error),
    /// The short form.
    #[error("expected NAME:KEY, NAME:KEY:MODEL, NAME:KEY:MODEL:RATE or NAME:KEY:MODEL:flood=CONNECTIONS")]
    Short,
    /// The model's name.
    #[error("`{0}` is not the name of a model: expected NAME or OWNER/NAME")]
    Model(String),
    /// The rate.
    #[error("`{0}` is neither a rate (requests a second) nor flood=CONNECTIONS")]
    Rate(String),
}

impl PlanFile {
    /// Reads the TOML form.
    ///
    /// # Errors
    /// [`FileError::Toml`].
    pub fn parse(text: &str) -> Result<Self, FileError> {
        Ok(toml::from_str(text)?)
    }
}

impl TenantEntry {
    /// When its requests are due.
    pub fn arrivals(&self, seed: u64) -> Arrivals {
        let per_second = self.rate.unwrap_or(DEFAULT_PER_SECOND);
        match (self.flood, self.arrivals) {
            (Some(_), _) => Arrivals::Closed,
            (None, Spread::Poisson) => Arrivals::Poisson { per_second, seed },
            (None, Spread::Constant) => Arrivals::Constant { per_second },
        }
    }

    /// The most requests under way.
    pub fn connections(&self) -> usize {
        self.flood.or(self.connections).unwrap_or(DEFAULT_CONNECTIONS)
    }

    /// What is wrong with it beyond what [`run`](crate::run) checks, in a sentence.
    pub fn problem(&self) -> Option<&'static str> {
        if self.flood.is_some() && (self.rate.is_some() || self.connections.is_some()) {
            Some("`flood` takes the place of `rate` and `connections`: name one or the other")
        } else if self.key.is_some() && self.key_env.is_some() {
            Some("`key` and `key_env` exclude each other")
        } else if self.key.is_none() && self.key_env.is_none() {
            Some("it has no key: give it `key` or `key_env`")
        } else if self.connections() > MAX_CONNECTIONS {
            Some("it may have 10,000 connections at the most")
        } else {
            None
        }
    }
}

impl FromStr for TenantEntry {
    type Err = FileError;

    fn from_str(text: &str) -> Result<Self, FileError> {
        let mut parts = text.splitn(4, ':');
        let mut part = || parts.next().filter(|part| !part.is_empty());
        let (Some(name), Some(key)) = (part(), part()) else { return Err(FileError::Short) };
        let model = part().map(|model| model.parse().map_err(|_| FileError::Model(model.to_owned()))).transpose()?;
        let mut entry = Self {
            name: name.to_owned(),
            key: Some(key.to_owned()),
            key_env: None,
            model,
            rate: None,
            arrivals: Spread::default(),
            flood: None,
            connections: None,
            timeout: None,
            rows: None,
            shapes: BTreeMap::new(),
        };
        if let Some(load) = part() {
            let wrong = || FileError::Rate(load.to_owned());
            match load.strip_prefix("flood=") {
                Some(connections) => entry.flood = Some(connections.parse().map_err(|_| wrong())?),
                None => entry.rate = Some(load.parse().map_err(|_| wrong())?),
            }
        }
        Ok(entry)
    }
}

/// The key is left out.
impl fmt::Debug for TenantEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantEntry")
            .field("name", &self.name)
            .field("model", &self.model)
            .field("rate", &self.rate)
            .field("flood", &self.flood)
            .finish_non_exhaustive()
    }
}

fn model<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ModelRef>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(|_| serde::de::Error::custom(FileError::Model(text)))
}

fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_is_read() {
        let entry: TenantEntry = "acme:tk_1:platform/image:12.5".parse().unwrap();
        assert_eq!((entry.name.as_str(), entry.key.as_deref(), entry.rate), ("acme", Some("tk_1"), Some(12.5)));
        assert_eq!(entry.model.as_ref().unwrap().to_string(), "platform/image");
        assert!(matches!(entry.arrivals(1), Arrivals::Poisson { per_second: 12.5, seed: 1 }));
        let entry: TenantEntry = "acme:tk_1:image:flood=64".parse().unwrap();
        assert!(matches!(entry.arrivals(1), Arrivals::Closed) && entry.connections() == 64);
        assert!("acme:tk_1".parse::<TenantEntry>().unwrap().model.is_none());
        for bad in ["acme", "acme:", ":key", "a:k:m:fast", "a:k:m:flood=x", "a:k:/:1"] {
            assert!(bad.parse::<TenantEntry>().is_err(), "{bad}");
        }
        assert!(!format!("{entry:?}").contains("tk_1"));
    }

    #[test]
    fn the_file_is_read_and_its_contradictions_are_named() {
        let plan = PlanFile::parse(
            "duration = \"10s\"\n[[tenant]]\nname = \"a\"\nkey_env = \"A\"\nmodel = \"m\"\nrate = 5\narrivals = \"constant\"\n\
             timeout = \"200ms\"\nshapes = { x = [1, 2] }\n[[tenant]]\nname = \"b\"\nkey = \"k\"\nflood = 3\nrate = 1\n",
        )
        .unwrap();
        assert_eq!((plan.duration, plan.warmup), (Some(Duration::from_secs(10)), None));
        assert_eq!(plan.tenants[0].timeout, Some(Duration::from_millis(200)));
        assert!(matches!(plan.tenants[0].arrivals(1), Arrivals::Constant { per_second: 5.0 }));
        assert!(plan.tenants[0].problem().is_none());
        assert!(plan.tenants[1].problem().unwrap().contains("flood"));
        assert!(PlanFile::parse("[[tenant]]\nname = \"a\"\nspeed = 1").is_err());
    }
}
