//! The books: from the log into the database, each record once.
//!
//! What this start closes waits in memory ([`Ledger::take`]), already in the form in which it is posted. The files are read for what
//! is not there any more: of starts that are over, and where the database did not answer for so long that it was too much.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

use tenantry_types::{BootId, TenantId};

use super::log::{Ledger, Mark, Taken, file_name, parse_file_name};
use super::post::{self, Move, StoredMark};
use super::posting::Posting;
use super::reading::Reading;
use crate::{Store, WriteError};

/// What a damaged file's name ends with instead.
const DAMAGED: &str = "damaged";

/// Carries the log of one node into the database. There is one; it is not shared.
#[derive(Debug)]
pub struct Bookkeeper {
    ledger: Arc<Ledger>,
    store: Store,
    /// The ledger's numbers of tenants.
    numbers: HashMap<TenantId, i64>,
    /// What was taken from the log of this start and is not known to be in the books.
    taken: Option<Taken>,
    /// Where the books of this start are, unless that has to be looked up.
    mark: Option<Mark>,
    /// The oldest file of this start that may be there.
    kept: u32,
}

/// What one call of [`Bookkeeper::carry`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// Closed records that came into the books.
    pub closed: u64,
    /// Records of earlier starts that were never closed and came as interrupted.
    pub interrupted: u64,
    /// Files that hold something behind their last whole record: a power failure, or damage.
    pub torn: u64,
    /// Those of them that hold more there than one record can be: damage in their middle. They are kept, renamed.
    pub damaged: u64,
}

impl Bookkeeper {
    /// Keeps the books of this log in this store.
    pub fn new(ledger: Arc<Ledger>, store: Store) -> Self {
        Self { ledger, store, numbers: HashMap::new(), taken: None, mark: None, kept: 0 }
    }

    /// Carries over all there is, and removes files that are of no use any more. What an earlier start left open is closed.
    ///
    /// # Errors
    /// [`WriteError`]; what was carried before it stays, and the next call goes on from there.
    pub async fn carry(&mut self) -> Result<Carried, WriteError> {
        let mut carried = Carried::default();
        // First what a call before this one took and did not bring to its end.
        if self.taken.is_some() {
            self.carry_taken(&mut carried).await?;
        }
        // What one start left and cannot be read holds up nobody else's.
        let earlier = self.carry_earlier_ones(&mut carried).await;
        self.taken = Some(self.ledger.take());
        let this = self.carry_taken(&mut carried).await;
        let removed = self.remove_spent().await;
        earlier.and(this).and(removed).map(|()| carried)
    }

    async fn carry_earlier_ones(&mut self, carried: &mut Carried) -> Result<(), WriteError> {
        let mut files = self.files().await?;
        files.remove(&self.ledger.boot());
        let mut outcome = Ok(());
        for (boot, files) in files {
            outcome = outcome.and(self.carry_earlier(boot, files, carried).await);
        }
        outcome
    }

    /// Removes the files of this start that nobody needs any more.
    async fn remove_spent(&mut self) -> Result<(), WriteError> {
        let (Some(mark), boot) = (self.mark, self.ledger.boot()) else { return Ok(()) };
        let kept = self.ledger.oldest_open().map_or(mark.file, |oldest| oldest.min(mark.file));
        if self.kept == kept {
            return Ok(());
        }
        let files = self.files().await?.remove(&boot).unwrap_or_default();
        self.remove(boot, files.range(..kept).copied().collect(), BTreeSet::new()).await?;
        self.kept = kept;
        Ok(())
    }

    /// What was taken. Whatever a call was interrupted in, the next one finds by the mark whether it was done.
    async fn carry_taken(&mut self, carried: &mut Carried) -> Result<(), WriteError> {
        let boot = self.ledger.boot();
        // To the disk first: after a power failure the books must not know more than the log, or the next start would close as
        // interrupted what they have.
        let ledger = Arc::clone(&self.ledger);
        blocking(move || ledger.sync()).await?;
        let mut mark = match self.mark.take() {
            Some(mark) => mark,
            None => post::mark(&self.store, self.ledger.node(), boot).await?.mark(),
        };
        if let Some(Taken { from, to, .. }) = self.taken
            && mark < to
        {
            // What waited goes on where the books are, as a rule. Else the files have what is between, or all of it.
            let is_of_use = mark <= from;
            if mark != from {
                mark = self.catch_up(mark, if is_of_use { from } else { to }, carried).await?;
            }
            if is_of_use && let Some(Taken { posting, .. }) = &self.taken {
                let step = Move { boot, from: mark, to, done: false };
                post::post(&self.store, self.ledger.node(), &mut self.numbers, step, posting).await?;
                carried.closed += posting.records;
                mark = to;
            }
        }
        self.taken = None;
        self.mark = Some(mark);
        Ok(())
    }

    /// Brings the books of this start to a place in its log, by its files.
    async fn catch_up(&mut self, mut mark: Mark, until: Mark, carried: &mut Carried) -> Result<Mark, WriteError> {
        let boot = self.ledger.boot();
        // There since before the place was: all of them up to it.
        let files = self.files().await?.remove(&boot).unwrap_or_default();
        let mut reading = Reading::new(self.ledger.folder().to_owned(), boot, files, mark, Some(until));
        let mut is_done = false;
        while !is_done {
            let posting;
            (reading, posting, is_done) = read_on(reading, mark).await?;
            if !posting.is_empty() {
                let step = Move { boot, from: mark, to: reading.at.min(until), done: false };
                post::post(&self.store, self.ledger.node(), &mut self.numbers, step, &posting).await?;
                carried.closed += posting.records;
                mark = step.to;
            }
        }
        Ok(mark)
    }

    /// A start that is over.
    async fn carry_earlier(
        &mut self,
        boot: BootId,
        files: BTreeSet<u32>,
        carried: &mut Carried,
    ) -> Result<(), WriteError> {
        let node = self.ledger.node();
        let mut mark = match post::mark(&self.store, node, boot).await? {
            // In the books whole; its files outlived a kill.
            StoredMark::Done => return self.remove(boot, files, BTreeSet::new()).await,
            stored => stored.mark(),
        };
        // From its beginning, to find what was opened.
        let mut reading = Reading::new(self.ledger.folder().to_owned(), boot, files.clone(), Mark::default(), None);
        let mut done = false;
        while !done {
            let mut posting;
            (reading, posting, done) = read_on(reading, mark).await?;
            carried.closed += posting.records;
            if done {
                reading.interrupt(&mut posting).map_err(unavailable)?;
            }
            if !posting.is_empty() || done {
                carried.interrupted += posting.interrupted;
                let step = Move { boot, from: mark, to: reading.at.max(mark), done };
                post::post(&self.store, node, &mut self.numbers, step, &posting).await?;
                mark = step.to;
            }
        }
        carried.torn += reading.torn;
        carried.damaged += reading.damaged.len() as u64;
        if !reading.damaged.is_empty() {
            tracing::error!(
                files = reading.damaged.len(),
                "files of the usage ledger are damaged in their middle, and what was behind it is not billed; they are kept, with \
                 names that end in `.damaged`"
            );
        }
        self.remove(boot, files, reading.damaged).await
    }

    /// The files there are, by start.
    async fn files(&self) -> Result<BTreeMap<BootId, BTreeSet<u32>>, WriteError> {
        let folder = self.ledger.folder().to_owned();
        let list = move || {
            let mut files: BTreeMap<BootId, BTreeSet<u32>> = BTreeMap::new();
            for entry in std::fs::read_dir(folder)? {
                if let Some((boot, number)) = entry?.file_name().to_str().and_then(parse_file_name) {
                    files.entry(boot).or_default().insert(number);
                }
            }
            Ok(files)
        };
        blocking(list).await
    }

    /// Removes files that are in the books; those with damage in their middle are renamed, for somebody to look at.
    async fn remove(&self, boot: BootId, numbers: BTreeSet<u32>, damaged: BTreeSet<u32>) -> Result<(), WriteError> {
        if numbers.is_empty() {
            return Ok(());
        }
        let folder = self.ledger.folder().to_owned();
        blocking(move || {
            numbers.into_iter().try_for_each(|number| {
                let path = folder.join(file_name(boot, number));
                if damaged.contains(&number) {
                    return std::fs::rename(&path, path.with_extension(DAMAGED));
                }
                std::fs::remove_file(path)
            })
        })
        .await
    }
}

/// Some thousands of records: milliseconds, off the threads that serve requests; what is read goes along.
async fn read_on(mut reading: Reading, mark: Mark) -> Result<(Reading, Posting, bool), WriteError> {
    blocking(move || {
        let (posting, done) = reading.read(mark).map_err(io::Error::other)?;
        Ok((reading, posting, done))
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, WriteError> {
    let outcome = tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    outcome.map_err(unavailable)
}

fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> WriteError {
    WriteError::Unavailable(io::Error::other(error).into())
}
