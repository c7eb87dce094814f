//! Who is promised what: the share tree's settings, and whether a set of reservations can be kept.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenantry_types::{DeploymentId, KeyId, OrganisationId, TenantId};

/// The most that may be reserved of one slot. The rest keeps batches full and the machine out of the regime where every
/// fill is limited by somebody's reservation (measured at 0.96 reserved: 27 % of the throughput lost).
pub const MAX_RESERVED_PER_SLOT: Rate = Rate::from_ppm(800_000);

/// A node of the share tree that settings can be given for.
///
/// The tree is organisation, tenant, deployment (as one tenant uses it), key. A tenant outside every organisation hangs
/// at the root. What has no settings of its own has the default ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Tenants under one share.
    Organisation(OrganisationId),
    /// A tenant.
    Tenant(TenantId),
    /// A deployment as this tenant calls it.
    Deployment(TenantId, DeploymentId),
    /// A key of this tenant, within each deployment it calls.
    Key(TenantId, KeyId),
}

/// Which of a share's parts are promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Its reservation is kept whatever others send: other work is suspended for it.
    Guaranteed,
    /// Its weight's share; a reservation, if it has one, is kept at the boundaries of batches.
    #[default]
    Burstable,
    /// What is left, and a small floor for the class as a whole; its batches may be aborted and run again.
    BestEffort,
}

/// Device time per time, in millionths of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rate(u32);

impl Rate {
    /// Millionths of a slot: microseconds of device time per second.
    pub const fn from_ppm(ppm: u32) -> Self {
        Self(ppm)
    }

    /// Millionths of a slot.
    pub const fn ppm(self) -> u32 {
        self.0
    }

    /// How long it takes to receive `device_time` at this rate; `None` at rate zero.
    pub fn time_for(self, device_time: Duration) -> Option<Duration> {
        let nanos = device_time.as_nanos().saturating_mul(1_000_000).checked_div(u128::from(self.0))?;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Rate {
    /// In slots: `0.25`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1e6)
    }
}

/// A weight in thousandths; 1,000 is what everybody has who was given none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Weight(u32);

impl Weight {
    /// The weight of everybody who was given none.
    pub const DEFAULT: Self = Self(1_000);
    /// The largest.
    pub const MAX: Self = Self(1_000_000);

    /// From thousandths, at least one and at most [`Weight::MAX`].
    pub const fn from_milli(milli: u32) -> Self {
        Self(if milli == 0 {
            1
        } else if milli > Self::MAX.0 {
            Self::MAX.0
        } else {
            milli
        })
    }

    /// In thousandths; never zero.
    pub const fn milli(self) -> u32 {
        if self.0 == 0 { 1 } else { self.0 }
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Device time that is kept free: `rate` in the long run, `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reservation {
    /// The long run.
    pub rate: Rate,
    /// Device time that may be asked for at once, still counts as within the reservation, and is served at once.
    pub burst: Duration,
}

/// Device time beyond which requests are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceTimeLimit {
    /// The long run; may exceed one slot.
    pub rate: Rate,
    /// Device time that may be used at once.
    pub burst: Duration,
}

/// The slots a tenant may use. Group 0 is everybody's who has no group of his own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotGroup(pub u32);

/// The settings of one node of the share tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Share {
    /// Under which organisation; read for tenants only.
    pub organisation: Option<OrganisationId>,
    /// The part of its parent's time while its siblings have work, too.
    pub weight: Weight,
    /// Read for tenants; a deployment or key has its tenant's unless it names its own. Absent: burstable.
    pub tier: Option<Tier>,
    /// Kept free for it. A task belongs to the reservation nearest to it on its way to the root.
    pub reservation: Option<Reservation>,
    /// What it may use.
    pub limit: Option<DeviceTimeLimit>,
    /// Its tasks that may wait.
    pub max_queued_tasks: Option<u32>,
    /// Its payload bytes that may wait.
    pub max_queued_bytes: Option<u64>,
    /// Which slots run it; read for tenants only.
    pub group: SlotGroup,
}

/// Reservations that cannot all be kept. The text is the arithmetic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Overcommitted {
    /// One of them is larger than any slot.
    #[error(
        "a reservation of {asked} slots does not fit: one slot can keep {most} at the most; divide it among deployments"
    )]
    TooLarge {
        /// What was asked for.
        asked: Rate,
        /// What one slot can keep.
        most: Rate,
    },
    /// Together they are larger than the slots.
    #[error(
        "reservations of {sum} slots do not fit: {slots} slots x {most} = {room} slots can be reserved in this group, and each reservation must fit one slot"
    )]
    Sum {
        /// All of them together.
        sum: Rate,
        /// How many slots there are.
        slots: u32,
        /// What one slot can keep.
        most: Rate,
        /// What all of them can keep.
        room: Rate,
    },
}

/// Gives each reservation a slot, so that no slot keeps more than `most`: largest first, each to the first slot with room.
///
/// The answer has one slot number below `slots` for each reservation, in the order given.
///
/// # Errors
/// [`Overcommitted`] where this finds no way.
pub fn pack(reservations: &[Rate], slots: u32, most: Rate) -> Result<Vec<u32>, Overcommitted> {
    let mut order: Vec<usize> = (0..reservations.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(reservations.get(index).copied().unwrap_or_default()));
    let mut room = vec![most.ppm(); usize::try_from(slots).unwrap_or(0)];
    let mut homes = vec![0; reservations.len()];
    for index in order {
        let asked = reservations.get(index).copied().unwrap_or_default();
        if asked > most {
            return Err(Overcommitted::TooLarge { asked, most });
        }
        let Some((home, left)) = room.iter_mut().enumerate().find(|(_, left)| **left >= asked.ppm()) else {
            let sum = |rates: &mut dyn Iterator<Item = u32>| Rate(rates.fold(0_u32, u32::saturating_add));
            return Err(Overcommitted::Sum {
                sum: sum(&mut reservations.iter().map(|rate| rate.ppm())),
                slots,
                most,
                room: Rate(most.ppm().saturating_mul(slots)),
            });
        };
        *left -= asked.ppm();
        if let Some(slot) = homes.get_mut(index) {
            *slot = u32::try_from(home).unwrap_or(u32::MAX);
        }
    }
    Ok(homes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(ppm: &[u32]) -> Vec<Rate> {
        ppm.iter().map(|&ppm| Rate::from_ppm(ppm)).collect()
    }

    #[test]
    fn reservations_are_packed_largest_first() {
        let homes = pack(&rates(&[200_000, 700_000, 500_000, 100_000]), 2, MAX_RESERVED_PER_SLOT);
        assert_eq!(homes, Ok(vec![1, 0, 1, 0]));
        assert_eq!(pack(&[], 0, MAX_RESERVED_PER_SLOT), Ok(vec![]));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_arithmetic() {
        let error = pack(&rates(&[500_000, 500_000]), 1, MAX_RESERVED_PER_SLOT).unwrap_err();
        assert_eq!(
            error.to_string(),
            "reservations of 1 slots do not fit: 1 slots x 0.8 = 0.8 slots can be reserved in this group, and each reservation must fit one slot"
        );
        let error = pack(&rates(&[900_000]), 4, MAX_RESERVED_PER_SLOT).unwrap_err();
        assert!(matches!(error, Overcommitted::TooLarge { .. }), "{error}");
    }

    #[test]
    fn a_rate_gives_time_for_device_time() {
        assert_eq!(Rate::from_ppm(250_000).time_for(Duration::from_millis(10)), Some(Duration::from_millis(40)));
        assert_eq!(Rate::from_ppm(0).time_for(Duration::from_millis(10)), None);
    }
}
