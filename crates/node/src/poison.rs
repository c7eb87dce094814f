//! Inputs that end workers: known by their hash, and refused for a while.
//!
//! An input is blamed only when it ran alone: a batch that dies is run again one by one, and whoever dies then has died
//! twice. Nothing is hashed before a worker of a version has died, and afterwards only inputs of as many bytes as one
//! that is refused. An input's record is the placement's, so what one caller sends closes nothing for another.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tenantry_sched::Outcome;
use tenantry_types::{Digest, MonotonicTime, Tensor, TrustDomain, VersionId};

use crate::data_plane::Node;
use crate::incident::IncidentKind;
use crate::placement::Placement;
use crate::submission::ServeError;
use crate::worker::{Request, Running, Work};

/// Deaths of workers over one input before it is refused. One may be anybody's fault.
const DEATHS_BEFORE_REFUSAL: u32 = 2;
/// Inputs remembered of one placement; the oldest that is not refused goes first.
const MAX_INPUTS: usize = 64;
/// Placements with such inputs.
const MAX_PLACEMENTS: usize = 1_024;

type Key = (VersionId, TrustDomain);

/// The inputs workers died over.
#[derive(Debug)]
pub(crate) struct Poison {
    /// How long an input is remembered after a death.
    memory: Duration,
    /// Placements with a record: where there is none, no request takes the lock.
    placements: AtomicUsize,
    records: Mutex<HashMap<Key, Vec<Record>>>,
}

/// An input's record.
#[derive(Debug)]
struct Record {
    /// The length of the data; compared before anything is hashed.
    bytes: u64,
    digest: Digest,
    deaths: u32,
    last: MonotonicTime,
    /// What the last worker died of.
    reason: String,
    /// Whether a request was refused for it.
    met: bool,
}

impl Record {
    fn is_refused(&self) -> bool {
        self.deaths >= DEATHS_BEFORE_REFUSAL
    }
}

/// What an input has on record after a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blame {
    /// Deaths, those in company included.
    pub(crate) deaths: u32,
    /// Whether it is refused from now on.
    pub(crate) refused: bool,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) retry_after: Duration,
    /// Whether it is the first for this input.
    pub(crate) first: bool,
}

impl Poison {
    /// An empty table; with a `memory` of zero it stays empty.
    pub(crate) fn new(memory: Duration) -> Self {
        Self { memory, placements: AtomicUsize::new(0), records: Mutex::default() }
    }

    /// A worker died over these inputs alone, and `in_company` before that over batches with them.
    pub(crate) fn died(&self, key: Key, inputs: &[Tensor], in_company: u32, now: MonotonicTime, reason: &str) -> Blame {
        if self.memory.is_zero() {
            return Blame { deaths: 0, refused: false };
        }
        let (bytes, digest) = (bytes_of(inputs), digest_of(inputs));
        let mut records = self.records.lock();
        self.forget_old_in(&mut records, now);
        let has_room = records.len() < MAX_PLACEMENTS || records.contains_key(&key);
        let Some(inputs) = has_room.then(|| records.entry(key).or_default()) else {
            return Blame { deaths: 0, refused: false };
        };
        let known = inputs.iter().position(|record| record.digest == digest);
        let mut record = match known {
            Some(position) => inputs.swap_remove(position),
            None => Record { bytes, digest, deaths: 0, last: now, reason: String::new(), met: false },
        };
        record.deaths = record.deaths.saturating_add(in_company).saturating_add(1);
        record.last = now;
        reason.clone_into(&mut record.reason);
        let blame = Blame { deaths: record.deaths, refused: record.is_refused() };
        if inputs.len() >= MAX_INPUTS {
            let oldest = (0..).zip(inputs.iter()).min_by_key(|(_, record)| (record.is_refused(), record.last));
            if let Some((position, _)) = oldest {
                inputs.swap_remove(position);
            }
        }
        inputs.push(record);
        self.placements.store(records.len(), Ordering::Release);
        blame
    }

    /// Whether these inputs are refused now.
    pub(crate) fn refusal(&self, key: Key, inputs: &[Tensor], now: MonotonicTime) -> Option<Refusal> {
        if self.placements.load(Ordering::Acquire) == 0 {
            return None;
        }
        let bytes = bytes_of(inputs);
        let in_force = |record: &Record| record.is_refused() && now < record.last.saturating_add(self.memory);
        let candidate = |record: &Record| record.bytes == bytes && in_force(record);
        if !self.records.lock().get(&key)?.iter().any(candidate) {
            return None;
        }
        // Not under the lock: inputs may be large.
        let digest = digest_of(inputs);
        let mut records = self.records.lock();
        let record = records.get_mut(&key)?.iter_mut().find(|record| record.digest == digest && in_force(record))?;
        let first = !std::mem::replace(&mut record.met, true);
        let retry_after = record.last.saturating_add(self.memory).saturating_since(now);
        let reason = format!(
            "this input is refused for now, because the worker that computes it died {} times over it: {}",
            record.deaths, record.reason
        );
        Some(Refusal { reason, retry_after, first })
    }

    /// Forgets what lies too far back.
    pub(crate) fn forget_old(&self, now: MonotonicTime) {
        if self.placements.load(Ordering::Acquire) > 0 {
            self.forget_old_in(&mut self.records.lock(), now);
        }
    }

    /// Forgets a version that is gone.
    pub(crate) fn forget_version(&self, version: VersionId) {
        let mut records = self.records.lock();
        records.retain(|(known, _), _| *known != version);
        self.placements.store(records.len(), Ordering::Release);
    }

    fn forget_old_in(&self, records: &mut HashMap<Key, Vec<Record>>, now: MonotonicTime) {
        records.retain(|_, inputs| {
            inputs.retain(|record| now < record.last.saturating_add(self.memory));
            !inputs.is_empty()
        });
        self.placements.store(records.len(), Ordering::Release);
    }
}

fn bytes_of(inputs: &[Tensor]) -> u64 {
    inputs.iter().map(|tensor| tensor.data.len() as u64).sum()
}

/// The SHA-256 of everything a model sees of its inputs, in the signature's order.
fn digest_of(inputs: &[Tensor]) -> Digest {
    let mut hash = Sha256::new();
    for tensor in inputs {
        hash.update(tensor.datatype.as_str());
        hash.update((tensor.shape.len() as u64).to_le_bytes());
        for extent in &tensor.shape {
            hash.update(extent.to_le_bytes());
        }
        hash.update((tensor.data.len() as u64).to_le_bytes());
        for part in tensor.data.parts() {
            hash.update(part);
        }
    }
    Digest::from_bytes(hash.finalize().into())
}

impl Node {
    /// The refusal of a request whose inputs workers have died over.
    pub(crate) fn refusal_of_input(
        &self,
        placement: &Placement,
        inputs: &[Tensor],
        now: MonotonicTime,
    ) -> Option<ServeError> {
        let Refusal { reason, retry_after, first } =
            self.poison.refusal((placement.spec.version, placement.domain), inputs, now)?;
        if first {
            self.report(placement, IncidentKind::PoisonRefused, now, reason.clone());
        }
        Some(ServeError::PoisonInput { reason, retry_after })
    }

    /// A run ended its worker, or had to be ended: the fault of a request that ran alone, or of the model. Its slot is free;
    /// a batch is run again one by one, unless that was once too often.
    pub(crate) fn run_died(&self, running: &mut Running, now: MonotonicTime, reason: &str) {
        self.charge(running, false, now);
        let Work::Infer { placement, members, .. } = &mut running.work else { return };
        match members.as_slice() {
            [member] => self.blame_input(placement, member, now, reason),
            _ => self.version_died(placement, now, reason.to_owned()),
        }
        let mut members = std::mem::take(members);
        if members.len() > 1 && self.quarantine_of(placement, now).is_none() {
            for member in &mut members {
                member.deaths_in_company += 1;
            }
            self.bring_back(members);
            self.batch_done(running, Outcome::Split, now);
            return;
        }
        self.batch_done(running, Outcome::Failed, now);
        for member in members {
            tracing::debug!(request = %member.request, "its run died");
            member.answer(Err(ServeError::ModelFailed(reason.to_owned())), now);
        }
    }

    fn blame_input(&self, placement: &Placement, member: &Request, now: MonotonicTime, reason: &str) {
        let key = (placement.spec.version, placement.domain);
        let blame = self.poison.died(key, &member.inputs, member.deaths_in_company, now, reason);
        if !blame.refused {
            return self.version_died(placement, now, reason.to_owned());
        }
        // What is refused from now on is no reason to close the model for other inputs.
        self.fleet.lock().health_mut(placement).input_to_blame(now, blame.deaths.saturating_sub(1), reason.to_owned());
        let text =
            format!("an input is refused for now, because workers died {} times over it: {reason}", blame.deaths);
        self.report(placement, IncidentKind::PoisonClosed, now, text);
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;
    use tenantry_types::{DataOwner, DataType, TenantId};

    use super::*;

    const MEMORY: Duration = Duration::from_secs(600);

    fn key(tenant: u8) -> Key {
        let data_owner = DataOwner::Tenant(TenantId::from_parts(1, [tenant; 10]));
        let domain = TrustDomain { model_owner: TenantId::from_parts(1, [1; 10]), data_owner };
        (VersionId::from_parts(2, [2; 10]), domain)
    }

    fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime::ZERO.saturating_add(Duration::from_secs(seconds))
    }

    fn input(values: &[u8]) -> Vec<Tensor> {
        let shape = smallvec![values.len() as u64];
        vec![Tensor { name: "x".to_owned(), datatype: DataType::Uint8, shape, data: values.to_vec().into() }]
    }

    #[test]
    fn an_input_is_refused_after_its_second_death_and_no_other_with_it() {
        let poison = Poison::new(MEMORY);
        let first = poison.died(key(1), &input(b"bad"), 0, at(0), "signal 8");
        assert_eq!(first, Blame { deaths: 1, refused: false });
        assert_eq!(poison.refusal(key(1), &input(b"bad"), at(0)), None);
        assert_eq!(poison.died(key(1), &input(b"bad"), 0, at(1), "signal 8"), Blame { deaths: 2, refused: true });
        let refusal = poison.refusal(key(1), &input(b"bad"), at(11)).unwrap();
        assert!(refusal.first && refusal.reason.contains("died 2 times over it: signal 8"), "{refusal:?}");
        assert_eq!(refusal.retry_after, Duration::from_secs(590));
        assert!(!poison.refusal(key(1), &input(b"bad"), at(11)).unwrap().first);
        assert_eq!(poison.refusal(key(1), &input(b"bed"), at(11)), None, "another input of the same length");
        assert_eq!(poison.refusal(key(2), &input(b"bad"), at(11)), None, "another caller");
    }

    #[test]
    fn a_shape_is_part_of_an_input() {
        let flat = input(b"four");
        let mut square = input(b"four");
        square[0].shape = smallvec![2, 2];
        assert_ne!(digest_of(&flat), digest_of(&square));
        let parts = input(b"fo").into_iter().chain(input(b"ur")).collect::<Vec<_>>();
        assert_ne!(digest_of(&flat), digest_of(&parts));
    }

    #[test]
    fn a_death_in_company_and_one_alone_are_two() {
        let poison = Poison::new(MEMORY);
        assert!(poison.died(key(1), &input(b"bad"), 1, at(0), "signal 8").refused);
    }

    #[test]
    fn records_are_forgotten_in_time_and_with_their_version() {
        let poison = Poison::new(MEMORY);
        poison.died(key(1), &input(b"bad"), 1, at(0), "signal 8");
        assert_eq!(poison.refusal(key(1), &input(b"bad"), at(600)), None);
        assert_eq!(poison.died(key(1), &input(b"bad"), 0, at(600), "signal 8").deaths, 1);
        poison.forget_old(at(1200));
        assert_eq!(poison.placements.load(Ordering::Acquire), 0);
        poison.died(key(1), &input(b"bad"), 1, at(1200), "signal 8");
        poison.forget_version(key(1).0);
        assert_eq!(poison.refusal(key(1), &input(b"bad"), at(1200)), None);
    }

    #[test]
    fn what_is_refused_stays_when_others_are_forgotten_for_room() {
        let poison = Poison::new(MEMORY);
        poison.died(key(1), &input(b"bad!"), 1, at(0), "signal 8");
        for number in 0..10 * MAX_INPUTS as u32 {
            poison.died(key(1), &input(&number.to_le_bytes()), 0, at(1), "signal 8");
        }
        assert!(poison.refusal(key(1), &input(b"bad!"), at(2)).is_some());
        assert_eq!(poison.records.lock()[&key(1)].len(), MAX_INPUTS);
    }

    #[test]
    fn without_memory_nothing_is_refused() {
        let poison = Poison::new(Duration::ZERO);
        assert_eq!(poison.died(key(1), &input(b"bad"), 9, at(0), "signal 8"), Blame { deaths: 0, refused: false });
        assert_eq!(poison.refusal(key(1), &input(b"bad"), at(0)), None);
    }
}
