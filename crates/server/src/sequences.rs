//! What a sequence carries from one request to the next.
//!
//! The tensors themselves are the model's business; they are kept here and not in a worker, so that a worker that dies,
//! is stopped or is one of several costs no sequence its memory (`docs/adr/0009-pipelines.md`). A sequence belongs to one tenant
//! and one version: no other key finds it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tenantry_types::error::sanitise;
use tenantry_types::{ErrorCode, MonotonicTime, ParameterValue, Parameters, ServiceError, TenantId, Tensor, VersionId};

/// The longest name of a sequence, bytes.
const MAX_ID_BYTES: usize = 128;

/// What a client calls a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum SequenceId {
    Number(u64),
    Text(String),
}

/// One sequence.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SequenceKey {
    pub(crate) tenant: TenantId,
    pub(crate) version: VersionId,
    pub(crate) id: SequenceId,
}

/// What a request says of its sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SequenceCall {
    pub(crate) id: SequenceId,
    pub(crate) start: bool,
    pub(crate) end: bool,
}

/// The tensors between two requests; `None` where it begins.
pub(crate) type Held = Arc<tokio::sync::Mutex<Option<Vec<Tensor>>>>;

/// All sequences.
#[derive(Debug)]
pub(crate) struct Sequences {
    max_per_tenant: usize,
    idle: Duration,
    table: Mutex<HashMap<TenantId, OfTenant>>,
}

/// The sequences of one tenant.
type OfTenant = HashMap<(VersionId, SequenceId), Entry>;

#[derive(Debug)]
struct Entry {
    held: Held,
    last_used: MonotonicTime,
}

impl SequenceCall {
    /// Reads Triton's parameters `sequence_id`, `sequence_start` and `sequence_end`; `None` where there is no id.
    ///
    /// # Errors
    /// 400 for a value of another kind.
    pub(crate) fn read(parameters: &Parameters) -> Result<Option<Self>, ServiceError> {
        let of = |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        let flag = |name: &str| match of(name) {
            None => Ok(false),
            Some(ParameterValue::Bool(flag)) => Ok(*flag),
            Some(_) => Err(ServiceError::invalid(format!("the parameter `{name}` is true or false"))),
        };
        let (start, end) = (flag("sequence_start")?, flag("sequence_end")?);
        let id = match of("sequence_id") {
            None | Some(ParameterValue::Int(0)) => None,
            Some(ParameterValue::Int(id)) if *id > 0 => u64::try_from(*id).ok().map(SequenceId::Number),
            Some(ParameterValue::String(id)) if id.is_empty() => None,
            Some(ParameterValue::String(id)) if id.len() <= MAX_ID_BYTES => Some(SequenceId::Text(id.clone())),
            Some(_) => {
                return Err(ServiceError::invalid(format!(
                    "the parameter `sequence_id` is a whole number above zero, or a text of at most {MAX_ID_BYTES} bytes"
                )));
            }
        };
        match id {
            Some(id) => Ok(Some(Self { id, start, end })),
            None if start || end => {
                Err(ServiceError::invalid("`sequence_start` and `sequence_end` need a `sequence_id`"))
            }
            None => Ok(None),
        }
    }
}

impl Sequences {
    pub(crate) fn new(max_per_tenant: usize, idle: Duration) -> Self {
        Self { max_per_tenant, idle, table: Mutex::default() }
    }

    /// What a sequence carries, to be locked for the time of one request.
    ///
    /// # Errors
    /// 400 for one that was not started or has expired, 429 beyond the tenant's bound.
    pub(crate) fn begin(&self, key: &SequenceKey, start: bool, now: MonotonicTime) -> Result<Held, ServiceError> {
        let mut table = self.table.lock();
        let sequences = table.entry(key.tenant).or_default();
        let own = (key.version, key.id.clone());
        // One that somebody waits for is in use, however long that takes.
        let is_alive =
            |entry: &Entry| Arc::strong_count(&entry.held) > 1 || now.saturating_since(entry.last_used) < self.idle;
        if !start {
            let entry = sequences.get_mut(&own).filter(|entry| is_alive(entry)).ok_or_else(|| unknown(&key.id))?;
            entry.last_used = now;
            return Ok(Arc::clone(&entry.held));
        }
        if sequences.len() >= self.max_per_tenant && !sequences.contains_key(&own) {
            sequences.retain(|_, entry| is_alive(entry));
            if sequences.len() >= self.max_per_tenant {
                return Err(ServiceError::new(
                    ErrorCode::ResourceExhausted,
                    format!("{} sequences are in progress; end one with `sequence_end` first", self.max_per_tenant),
                )
                .because(crate::limits::reason::SEQUENCES)
                .retry_after(self.idle));
            }
        }
        // Started again, it is a new one; a request of the old one that still runs keeps what was its own.
        let held = Held::default();
        sequences.insert(own, Entry { held: Arc::clone(&held), last_used: now });
        Ok(held)
    }

    /// Forgets a sequence.
    pub(crate) fn end(&self, key: &SequenceKey) {
        let mut table = self.table.lock();
        if let Some(sequences) = table.get_mut(&key.tenant) {
            sequences.remove(&(key.version, key.id.clone()));
            if sequences.is_empty() {
                table.remove(&key.tenant);
            }
        }
    }

    /// Forgets what nobody has used for too long, and the sequences of versions that are gone.
    pub(crate) fn sweep(&self, now: MonotonicTime, gone: &[VersionId]) {
        let mut table = self.table.lock();
        for sequences in table.values_mut() {
            sequences.retain(|(version, _), entry| {
                !gone.contains(version)
                    && (Arc::strong_count(&entry.held) > 1 || now.saturating_since(entry.last_used) < self.idle)
            });
        }
        table.retain(|_, sequences| !sequences.is_empty());
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.table.lock().values().map(HashMap::len).sum()
    }
}

fn unknown(id: &SequenceId) -> ServiceError {
    let id = match id {
        SequenceId::Number(id) => id.to_string(),
        SequenceId::Text(id) => sanitise(id, MAX_ID_BYTES),
    };
    ServiceError::invalid(format!(
        "no sequence `{id}` is in progress here: it was not started, has ended or was idle for too long; \
         begin it with `sequence_start`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime::from_nanos(seconds * 1_000_000_000)
    }

    fn key(tenant: u8, id: u64) -> SequenceKey {
        SequenceKey {
            tenant: TenantId::from_parts(1, [tenant; 10]),
            version: VersionId::from_parts(1, [9; 10]),
            id: SequenceId::Number(id),
        }
    }

    fn carried(held: &Held) -> Option<Vec<Tensor>> {
        held.try_lock().unwrap().clone()
    }

    #[test]
    fn a_sequence_is_its_tenants_alone_and_starts_anew() {
        let sequences = Sequences::new(10, IDLE);
        let held = sequences.begin(&key(1, 7), true, at(0)).unwrap();
        *held.try_lock().unwrap() = Some(Vec::new());
        let again = sequences.begin(&key(1, 7), false, at(1)).unwrap();
        assert_eq!(carried(&again), Some(Vec::new()));
        // Another tenant's with the same number, and another version's, are not there.
        assert_eq!(sequences.begin(&key(2, 7), false, at(1)).unwrap_err().code, ErrorCode::InvalidArgument);
        let other = SequenceKey { version: VersionId::from_parts(1, [8; 10]), ..key(1, 7) };
        assert!(sequences.begin(&other, false, at(1)).is_err());
        assert_eq!(carried(&sequences.begin(&key(1, 7), true, at(2)).unwrap()), None);
        sequences.end(&key(1, 7));
        assert!(sequences.begin(&key(1, 7), false, at(2)).is_err());
        assert_eq!(sequences.count(), 0);
    }

    #[test]
    fn the_idle_expire_and_the_used_do_not() {
        let sequences = Sequences::new(2, IDLE);
        drop(sequences.begin(&key(1, 1), true, at(0)).unwrap());
        let used = sequences.begin(&key(1, 2), true, at(0)).unwrap();
        assert_eq!(sequences.begin(&key(1, 3), true, at(59)).unwrap_err().code, ErrorCode::ResourceExhausted);
        // Another tenant has its own bound.
        assert!(sequences.begin(&key(2, 3), true, at(59)).is_ok());
        assert!(sequences.begin(&key(1, 1), false, at(60)).is_err());
        assert!(sequences.begin(&key(1, 3), true, at(60)).is_ok());
        sequences.sweep(at(200), &[]);
        assert_eq!(sequences.count(), 1);
        drop(used);
        assert!(sequences.begin(&key(1, 2), false, at(200)).is_err());
        sequences.sweep(at(200), &[]);
        assert_eq!(sequences.count(), 0);
    }

    #[test]
    fn a_version_that_is_gone_takes_its_sequences_along() {
        let sequences = Sequences::new(2, IDLE);
        let _used = sequences.begin(&key(1, 1), true, at(0)).unwrap();
        sequences.sweep(at(0), &[key(1, 1).version]);
        assert_eq!(sequences.count(), 0);
    }

    #[test]
    fn the_parameters_are_those_of_triton() {
        let read = |pairs: &[(&str, ParameterValue)]| {
            SequenceCall::read(&pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
        };
        let number = ParameterValue::Int(5);
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("sequence_id", ParameterValue::Int(0))]), Ok(None));
        let call = read(&[("sequence_id", number.clone()), ("sequence_start", ParameterValue::Bool(true))]).unwrap();
        assert_eq!(call, Some(SequenceCall { id: SequenceId::Number(5), start: true, end: false }));
        let text = ParameterValue::String("a".to_owned());
        let call = read(&[("sequence_id", text), ("sequence_end", ParameterValue::Bool(true))]).unwrap();
        assert_eq!(call, Some(SequenceCall { id: SequenceId::Text("a".to_owned()), start: false, end: true }));
        assert!(read(&[("sequence_start", ParameterValue::Bool(true))]).is_err());
        assert!(read(&[("sequence_id", number.clone()), ("sequence_end", number)]).is_err());
        assert!(read(&[("sequence_id", ParameterValue::String("a".repeat(129)))]).is_err());
        assert!(read(&[("sequence_id", ParameterValue::Double(1.0))]).is_err());
    }
}
