//! Looking whether the audit trail is what was written.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::chain::Columns;
use crate::limits::MAX_AUDIT_PAGE;
use crate::{ReadError, Store};

/// What was found when the audit trail was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditVerification {
    /// How many records are what was written, from the oldest on.
    pub verified: u64,
    /// The oldest of them.
    pub first: Option<u64>,
    /// The newest of them.
    pub last: Option<u64>,
    /// The hash of that one: kept elsewhere, it fixes the whole trail up to there.
    pub hash: String,
    /// The first that is not, if there is one. What comes after it was not looked at.
    pub broken: Option<AuditFault>,
}

/// A place at which the trail is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditFault {
    /// The record.
    pub sequence: u64,
    /// What is wrong.
    pub kind: AuditFaultKind,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditFaultKind {
    /// A column holds what was never written there.
    Unreadable,
    /// It does not say what its hash was made of.
    HashDiffers,
    /// It follows another record than the one that is there.
    LinkBroken,
    /// It is missing.
    Missing,
    /// The newest record is not the one that was written last.
    HeadDiffers,
}

impl AuditFaultKind {
    /// The word for programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::HashDiffers => "hash_differs",
            Self::LinkBroken => "link_broken",
            Self::Missing => "missing",
            Self::HeadDiffers => "head_differs",
        }
    }
}

/// An end of the chain.
struct End {
    sequence: i64,
    hash: String,
}

/// How far the trail was followed.
struct Walk {
    verified: u64,
    first: Option<i64>,
    /// The newest good record; at the beginning, the newest that is gone.
    last: End,
}

impl Store {
    /// Follows the chain from the oldest record that is kept to the newest, and says where it breaks. Of the records from
    /// before there were hashes it says only that they are what they were when they got theirs.
    pub async fn verify_audit(&self) -> Result<AuditVerification, ReadError> {
        // One snapshot: records that come and go meanwhile are not seen.
        let mut snapshot = self.inner.database.read().await?;
        let anchor = end(&mut snapshot, "anchor").await?;
        let head = end(&mut snapshot, "head").await?;
        let mut walk = Walk { verified: 0, first: None, last: anchor };
        let mut after = i64::MIN;
        loop {
            let rows = sqlx::query("SELECT * FROM audit WHERE sequence > $1 ORDER BY sequence LIMIT $2")
                .bind(after)
                .bind(i64::from(MAX_AUDIT_PAGE))
                .fetch_all(&mut *snapshot)
                .await?;
            for row in &rows {
                if let Err(fault) = walk.step(row, &head) {
                    return Ok(walk.end(Some(fault)));
                }
            }
            if rows.is_empty() {
                break;
            }
            after = walk.last.sequence;
        }
        let broken = if walk.last.sequence < head.sequence {
            Some((walk.last.sequence.saturating_add(1), AuditFaultKind::Missing))
        } else if walk.last.hash != head.hash {
            Some((walk.last.sequence, AuditFaultKind::HeadDiffers))
        } else {
            None
        };
        Ok(walk.end(broken))
    }
}

impl Walk {
    fn step(&mut self, row: &AnyRow, head: &End) -> Result<(), (i64, AuditFaultKind)> {
        let next = self.last.sequence.saturating_add(1);
        let sequence = row.try_get("sequence").unwrap_or(next);
        let read = Columns::of(row).and_then(|record| Ok((record, row.try_get::<String, _>("hash")?)));
        let Ok((record, hash)) = read else { return Err((sequence, AuditFaultKind::Unreadable)) };
        if sequence > head.sequence {
            return Err((sequence, AuditFaultKind::HeadDiffers));
        }
        if record.previous != self.last.hash && sequence > next {
            return Err((next, AuditFaultKind::Missing));
        }
        if record.hash() != hash {
            return Err((sequence, AuditFaultKind::HashDiffers));
        }
        if record.previous != self.last.hash || sequence < next {
            return Err((sequence, AuditFaultKind::LinkBroken));
        }
        self.verified += 1;
        self.first.get_or_insert(sequence);
        self.last = End { sequence, hash };
        Ok(())
    }

    fn end(self, broken: Option<(i64, AuditFaultKind)>) -> AuditVerification {
        AuditVerification {
            verified: self.verified,
            first: self.first.map(i64::unsigned_abs),
            last: self.first.map(|_| self.last.sequence.unsigned_abs()),
            hash: self.last.hash,
            broken: broken.map(|(sequence, kind)| AuditFault { sequence: sequence.unsigned_abs(), kind }),
        }
    }
}

async fn end(connection: &mut AnyConnection, name: &str) -> Result<End, ReadError> {
    let row = sqlx::query("SELECT sequence, hash FROM audit_ends WHERE name = $1").bind(name);
    let row = row.fetch_one(connection).await?;
    Ok(End { sequence: row.try_get("sequence")?, hash: row.try_get("hash")? })
}
