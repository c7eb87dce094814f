//! The first form of the log and of the rows in the database: read, so that what was recorded then is billed, and not written any more.

use serde::Deserialize;
use tenantry_types::usage::{self, Attempted, DeviceTime, Outcome, SlotTime};
use tenantry_types::{BootId, NodeId};

use super::frame::{Closed, Frame};

/// Its number.
pub(super) const FORMAT: u16 = 1;

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(super) struct Used {
    pub(super) outcome: Outcome,
    pub(super) duration_ns: u64,
    pub(super) queue_ns: u64,
    pub(super) device: DeviceTime,
    pub(super) cpu_ns: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) tokens: u64,
}

/// [`Frame`] as it was.
#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(super) enum Old {
    Begin { format: u16, node: NodeId, boot: BootId, started_ms: i64 },
    Opened { sequence: u64, attempted: Attempted },
    Closed { sequence: u64, attempted: Attempted, used: Used, ended_ms: i64 },
    Slots { at_ms: i64, time: SlotTime, last: bool },
}

impl From<Used> for usage::Used {
    fn from(used: Used) -> Self {
        let Used { outcome, duration_ns, queue_ns, device, cpu_ns, bytes_in, bytes_out, tokens } = used;
        Self { outcome, duration_ns, queue_ns, device, cpu_ns, bytes_in, bytes_out, tokens, resident_byte_seconds: 0 }
    }
}

impl From<Old> for Frame {
    fn from(old: Old) -> Self {
        match old {
            Old::Begin { format, node, boot, started_ms } => Self::Begin { format, node, boot, started_ms },
            Old::Opened { sequence, attempted } => Self::Opened { sequence, attempted },
            Old::Closed { sequence, attempted, used, ended_ms } => {
                Self::Closed(Closed { sequence, attempted, used: used.into(), ended_ms })
            }
            Old::Slots { at_ms, time, last } => Self::Slots { at_ms, time, last },
        }
    }
}
