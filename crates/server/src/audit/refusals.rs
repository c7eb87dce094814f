//! Refused accesses on their way into the audit trail: keys that were not accepted, and calls of the admin API that a key's
//! role does not allow or that are about another tenant's things.
//!
//! Whoever is refused can repeat it as often as he likes, and records have a place on the disk and push out older ones. So
//! of the same source, key and error at most one record a [`SAME`] is written; and of all those who named no valid key, as of
//! all others, [`BURST`] at once and one more each [`PERIOD`], which in a month is less than the trail holds. How many were
//! left out is in a record of its own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tenantry_store::{AuditActor, AuditEntry, WriteError};
use tenantry_types::{ErrorCode, KeyId, MonotonicTime};
use tokio::sync::Notify;

use crate::server::unix_ms;
use crate::{Principal, Server, auth};

/// What the records call it.
const ACTION: &str = "access.refused";
/// How long another refusal of the same is left out.
const SAME: Duration = Duration::from_secs(1);
/// The most records at once.
const BURST: u32 = 32;
/// How often there is one more, and how often those left out are told of.
const PERIOD: Duration = Duration::from_secs(10);
/// The most records that wait for a store that does not take them.
const MAX_PENDING: usize = 128;
/// The pause after records that could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// Refused accesses that are not written yet.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    state: Mutex<State>,
    added: Notify,
    /// Held while records are written, so that whoever comes second waits for those that were taken before.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    unknown: Allowance,
    known: Allowance,
    /// When the newest record of each was made. INVARIANT: not more than were allowed within [`SAME`], and one.
    recent: HashMap<Subject, MonotonicTime>,
    pending: Vec<AuditEntry>,
    left_out: u64,
    /// When it was told last how many were left out.
    told: Option<MonotonicTime>,
}

/// What counts as the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Subject {
    source: Option<IpAddr>,
    key: Option<KeyId>,
    code: &'static str,
}

/// [`BURST`] at once, and one more each [`PERIOD`].
#[derive(Debug, Default)]
struct Allowance {
    /// When all of it is there again.
    full_at: MonotonicTime,
}

impl Allowance {
    fn take(&mut self, now: MonotonicTime) -> bool {
        let from = self.full_at.max(now);
        let allowed = from.saturating_since(now) <= PERIOD * (BURST - 1);
        if allowed {
            self.full_at = from.saturating_add(PERIOD);
        }
        allowed
    }
}

impl State {
    fn note(&mut self, now: MonotonicTime, subject: Subject, entry: AuditEntry) {
        self.recent.retain(|_, at| now.saturating_since(*at) < SAME);
        let allowance = match entry.actor {
            AuditActor::Unknown { .. } => &mut self.unknown,
            AuditActor::Key { .. } | AuditActor::Server => &mut self.known,
        };
        let is_written = self.pending.len() < MAX_PENDING && !self.recent.contains_key(&subject) && allowance.take(now);
        if is_written {
            self.recent.insert(subject, now);
            self.pending.push(entry);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }

    /// What is to be written now.
    fn take(&mut self, now: MonotonicTime, now_ms: i64) -> Vec<AuditEntry> {
        let mut entries = std::mem::take(&mut self.pending);
        let may_tell = self.told.is_none_or(|told| now.saturating_since(told) >= PERIOD);
        if self.left_out > 0 && may_tell {
            self.told = Some(now);
            entries.push(AuditEntry {
                at_ms: now_ms,
                actor: AuditActor::Server,
                source: None,
                tenant: None,
                action: ACTION.to_owned(),
                object: "others".to_owned(),
                outcome: "left_out".to_owned(),
                detail: format!("{} more", std::mem::take(&mut self.left_out)),
            });
        }
        entries
    }

    /// Takes back what could not be written.
    fn put_back(&mut self, entries: Vec<AuditEntry>) {
        let newer = std::mem::replace(&mut self.pending, entries);
        self.pending.extend(newer);
        let lost = self.pending.len().saturating_sub(MAX_PENDING);
        self.pending.truncate(MAX_PENDING);
        self.left_out = self.left_out.saturating_add(lost as u64);
    }
}

impl Server {
    /// Takes note of a key that was not accepted. The tenant of the key that was named reads of it.
    pub(crate) fn refused_unknown(&self, authorization: Option<&str>, source: Option<IpAddr>, code: ErrorCode) {
        let key = auth::named_key(authorization);
        let tenant = key.and_then(|key| self.routing.load().keys.get(&key).map(|routed| routed.tenant.id));
        let entry = AuditEntry {
            at_ms: unix_ms(),
            actor: AuditActor::Unknown { key },
            source,
            tenant,
            action: ACTION.to_owned(),
            object: "authentication".to_owned(),
            outcome: code.as_str().to_owned(),
            detail: String::new(),
        };
        self.refusals.note(self.node.now(), Subject { source, key, code: code.as_str() }, entry);
    }

    /// Takes note of what became of a call of the admin API that failed, where it was a refused access: one that the key's
    /// role does not allow, or that is about a tenant which does not exist for it. `call` is what was called, `about` the
    /// tenant it names.
    pub fn note_refusal(&self, principal: &Principal, call: &str, about: Option<&str>, code: ErrorCode) {
        let is_anothers = about.is_some_and(|name| name != principal.tenant_name.as_str());
        let tenant = match code {
            ErrorCode::PermissionDenied => Some(principal.tenant),
            // It names what is another tenant's, which the caller's own admins may not know either.
            ErrorCode::NotFound if is_anothers && !principal.is_platform_admin() => None,
            _ => return,
        };
        let entry = AuditEntry {
            at_ms: unix_ms(),
            actor: AuditActor::Key { tenant: principal.tenant, key: principal.key, role: principal.role_text() },
            source: principal.source,
            tenant,
            action: ACTION.to_owned(),
            object: call.to_owned(),
            outcome: code.as_str().to_owned(),
            detail: principal.subject.as_ref().map(|subject| format!("by {subject}")).unwrap_or_default(),
        };
        let subject = Subject { source: principal.source, key: Some(principal.key), code: code.as_str() };
        self.refusals.note(self.node.now(), subject, entry);
    }

    /// Writes what there is. What cannot be written is kept for the next time.
    pub async fn record_refusals(&self) {
        // The error is in the log already, and the task below tries again.
        let _ = self.try_record_refusals().await;
    }

    async fn try_record_refusals(&self) -> Result<(), WriteError> {
        let _writing = self.refusals.writing.lock().await;
        let entries = self.refusals.state.lock().take(self.node.now(), unix_ms());
        if entries.is_empty() {
            return Ok(());
        }
        let written = self.store.append_audit(&entries).await;
        if let Err(error) = &written {
            tracing::warn!(error = error as &dyn std::error::Error, "refused accesses are not in the audit yet");
            self.refusals.state.lock().put_back(entries);
        }
        written
    }
}

impl Refusals {
    fn note(&self, now: MonotonicTime, subject: Subject, entry: AuditEntry) {
        self.state.lock().note(now, subject, entry);
        self.added.notify_one();
    }

    fn has_left_out(&self) -> bool {
        self.state.lock().left_out > 0
    }
}

/// Writes refused accesses for as long as the server runs.
pub(crate) async fn run(server: Arc<Server>) {
    loop {
        if server.try_record_refusals().await.is_err() {
            tokio::time::sleep(RETRY).await;
        } else if server.refusals.has_left_out() {
            let _ = tokio::time::timeout(PERIOD, server.refusals.added.notified()).await;
        } else {
            server.refusals.added.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> MonotonicTime {
        MonotonicTime::from_nanos(ms * 1_000_000)
    }

    fn note(state: &mut State, now_ms: u64, host: u8, code: &'static str) {
        let subject = Subject { source: Some(IpAddr::from([10, 0, 0, host])), key: None, code };
        let entry = AuditEntry {
            at_ms: 0,
            actor: AuditActor::Unknown { key: None },
            source: subject.source,
            tenant: None,
            action: ACTION.to_owned(),
            object: String::new(),
            outcome: code.to_owned(),
            detail: String::new(),
        };
        state.note(at(now_ms), subject, entry);
    }

    #[test]
    fn the_same_is_written_once_a_second_and_the_rest_is_counted() {
        let mut state = State::default();
        for now_ms in [0, 1, 999, 1_000, 1_500] {
            note(&mut state, now_ms, 1, "a");
        }
        note(&mut state, 1_500, 2, "a");
        note(&mut state, 1_500, 2, "b");
        let entries = state.take(at(1_500), 7);
        assert_eq!(entries.len(), 5);
        let last = entries.last().unwrap();
        assert_eq!((last.outcome.as_str(), last.detail.as_str(), last.at_ms), ("left_out", "3 more", 7));
        assert!(state.take(at(1_600), 7).is_empty());
        // Those left out are told of once a period.
        note(&mut state, 1_600, 2, "b");
        assert!(state.take(at(1_600), 7).is_empty());
        assert_eq!(state.take(at(11_500), 7)[0].detail, "1 more");
    }

    #[test]
    fn however_many_there_are_few_are_written() {
        let mut state = State::default();
        let mut written = 0;
        let hours = 2;
        for second in 0..hours * 3_600_u64 {
            for host in 0..20 {
                note(&mut state, second * 1_000, host, "a");
            }
            written += state.take(at(second * 1_000), 0).len() as u64;
            assert!(state.recent.len() <= BURST as usize + 1);
        }
        let periods = hours * 3_600 / PERIOD.as_secs();
        assert!((2 * periods..=2 * periods + u64::from(BURST)).contains(&written), "{written}");
    }

    #[test]
    fn what_cannot_be_written_waits_within_bounds() {
        let mut state = State::default();
        for second in 0..10_000 {
            note(&mut state, second * 1_000, 1, "a");
            let entries = state.take(at(second * 1_000), 0);
            state.put_back(entries);
        }
        assert_eq!(state.pending.len(), MAX_PENDING);
        assert!(state.left_out > 0);
    }
}
