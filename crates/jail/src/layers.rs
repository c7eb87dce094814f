//! The barriers around a worker, and how much they amount to.

use std::fmt;

use serde::{Deserialize, Serialize};
use tenantry_types::Level;

/// One barrier between a worker and everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Its own user, process, network, IPC, host name, mount and cgroup namespaces: it sees no process, no network
    /// interface and no shared memory but its own.
    Namespaces,
    /// A root directory of its own, empty but for the processes' files about itself, and read-only.
    Root,
    /// No capability, now or by anything it executes; a user of its own where the server is root.
    Privileges,
    /// Landlock: no file and no TCP port, by the kernel's own rules for the process, whatever its root.
    Landlock,
    /// A list of the system calls it may make, with what arguments; any other ends it.
    Seccomp,
    /// Limits on descriptors, processes, locked memory, core dumps.
    Limits,
    /// A control group: memory, processes and processor time are the kernel's to enforce.
    Cgroup,
}

impl Layer {
    /// All of them, in the order in which they are put up.
    pub const ALL: [Self; 7] =
        [Self::Namespaces, Self::Root, Self::Privileges, Self::Landlock, Self::Seccomp, Self::Limits, Self::Cgroup];

    /// Its name in logs, metrics and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Root => "root",
            Self::Privileges => "privileges",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::Limits => "limits",
            Self::Cgroup => "cgroup",
        }
    }

    fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Layers(u32);

impl Layers {
    /// None at all.
    pub const NONE: Self = Self(0);

    /// The set with these numbers, as [`Self::bits`] gave them; unknown ones are dropped.
    pub fn from_bits(bits: u32) -> Self {
        Layer::ALL.into_iter().filter(|layer| bits & layer.bit() != 0).collect()
    }

    /// As a number, for a command line or a frame.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether it is in the set.
    pub fn has(self, layer: Layer) -> bool {
        self.0 & layer.bit() != 0
    }

    /// The set with one more.
    #[must_use]
    pub fn with(self, layer: Layer) -> Self {
        Self(self.0 | layer.bit())
    }

    /// The set with one less.
    #[must_use]
    pub fn without(self, layer: Layer) -> Self {
        Self(self.0 & !layer.bit())
    }

    /// What is in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Its members.
    pub fn iter(self) -> impl Iterator<Item = Layer> {
        Layer::ALL.into_iter().filter(move |layer| self.has(*layer))
    }

    /// What these layers amount to.
    pub fn level(self) -> Level {
        let has = |layers: &[Layer]| layers.iter().all(|layer| self.has(*layer));
        let sees_no_files = self.has(Layer::Landlock) || self.has(Layer::Root);
        if !has(&[Layer::Privileges, Layer::Seccomp, Layer::Limits]) || !sees_no_files {
            Level::None
        } else if !has(&[Layer::Namespaces, Layer::Root]) {
            Level::Confined
        } else if !has(&[Layer::Cgroup]) {
            Level::Isolated
        } else {
            Level::Full
        }
    }
}

impl FromIterator<Layer> for Layers {
    fn from_iter<I: IntoIterator<Item = Layer>>(layers: I) -> Self {
        layers.into_iter().fold(Self::NONE, Self::with)
    }
}

/// What this machine lets us put up, as found by doing it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barriers {
    /// What was put up around a process made for the purpose.
    pub in_force: Layers,
    /// What was not, and what the kernel said.
    pub not_in_force: Vec<(Layer, String)>,
}

impl Barriers {
    /// What they amount to.
    pub fn level(&self) -> Level {
        self.in_force.level()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_survives_as_a_number() {
        let some: Layers = [Layer::Root, Layer::Cgroup].into_iter().collect();
        assert_eq!(Layers::from_bits(some.bits()), some);
        assert_eq!(Layers::from_bits(u32::MAX), Layer::ALL.into_iter().collect());
        assert_eq!(some.iter().collect::<Vec<_>>(), [Layer::Root, Layer::Cgroup]);
        assert_eq!(some.without(Layer::Root).with(Layer::Root), some);
    }

    #[test]
    fn the_level_is_that_of_the_weakest_barrier() {
        let all: Layers = Layer::ALL.into_iter().collect();
        assert_eq!(all.level(), Level::Full);
        assert_eq!(all.without(Layer::Cgroup).level(), Level::Isolated);
        // A root of its own hides what Landlock would.
        assert_eq!(all.without(Layer::Landlock).level(), Level::Full);
        assert_eq!(all.without(Layer::Namespaces).level(), Level::Confined);
        assert_eq!(all.without(Layer::Root).level(), Level::Confined);
        assert_eq!(all.without(Layer::Root).without(Layer::Landlock).level(), Level::None);
        for layer in [Layer::Privileges, Layer::Seccomp, Layer::Limits] {
            assert_eq!(all.without(layer).level(), Level::None, "{layer}");
        }
    }
}
