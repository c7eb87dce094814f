//! How well a worker is kept apart from everything else, in one word: what is in force, and what is demanded.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How well workers are kept apart. As a demand it is a minimum: [`Level::None`] demands nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Processes of their own, and no more.
    #[default]
    None,
    /// No privilege, no file, few system calls; the namespaces are the server's.
    Confined,
    /// The same, in namespaces and a root of their own.
    Isolated,
    /// The same, in a control group that bounds what they use.
    Full,
}

impl Level {
    /// Every level, the weakest first.
    pub const ALL: [Self; 4] = [Self::None, Self::Confined, Self::Isolated, Self::Full];

    /// Its name in logs, metrics, settings and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Confined => "confined",
            Self::Isolated => "isolated",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that is not a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a level of isolation is `none`, `confined`, `isolated` or `full`")]
pub struct ParseLevelError;

impl FromStr for Level {
    type Err = ParseLevelError;
    fn from_str(text: &str) -> Result<Self, ParseLevelError> {
        Self::ALL.into_iter().find(|level| level.name() == text).ok_or(ParseLevelError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_survive_as_text() {
        assert!(Level::ALL.is_sorted());
        for level in Level::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
            assert_eq!(serde_json::to_string(&level).unwrap(), format!("\"{level}\""));
        }
        assert!("Full".parse::<Level>().is_err() && "".parse::<Level>().is_err());
    }
}
