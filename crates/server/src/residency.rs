//! Memory that loaded models take, over time: usage records of some minutes each, so that a killed server loses no more of it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tenantry_node::{Meter as _, Residence};

use crate::meter::Account;

/// How long the residency is that one record is about, at most.
const RECORD: Duration = Duration::from_secs(300);

/// The models that are loaded.
#[derive(Debug, Default)]
pub(crate) struct Residences(Mutex<Vec<Weak<Resident>>>);

#[derive(Debug)]
struct Resident {
    bytes: u64,
    /// The record of now.
    account: Mutex<Option<Arc<Account>>>,
}

/// A model that is loaded, until dropped.
#[derive(Debug)]
pub(crate) struct Stay(Arc<Resident>);

impl Residence for Stay {}

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Residences {
    /// A model is loaded from now on. Where that cannot be written now, a kill loses what nobody wrote down.
    pub(crate) fn begin(&self, account: Arc<Account>, bytes: u64) -> Stay {
        let _ = account.open();
        let resident = Arc::new(Resident { bytes, account: Mutex::new(Some(account)) });
        self.0.lock().push(Arc::downgrade(&resident));
        Stay(resident)
    }

    /// Ends the records that have become long enough, and begins the next ones.
    pub(crate) fn follow_on(&self) {
        self.each(|resident| resident.follow_on(RECORD));
    }

    /// Ends all records: nothing is recorded any more.
    pub(crate) fn end(&self) {
        self.each(Resident::end);
    }

    fn each(&self, act: impl Fn(&Resident)) {
        self.0.lock().retain(|resident| {
            let resident = resident.upgrade();
            resident.iter().for_each(|resident| act(resident));
            resident.is_some()
        });
    }
}

impl Resident {
    fn follow_on(&self, after: Duration) {
        let mut account = self.account.lock();
        if let Some(now) = account.as_ref().filter(|account| account.age() >= after) {
            // Where the next one cannot be begun, this one becomes longer.
            if let Some(next) = now.following() {
                now.resided(self.bytes);
                *account = Some(next);
            }
        }
    }

    fn end(&self) {
        if let Some(account) = self.account.lock().take() {
            account.resided(self.bytes);
        }
    }
}
