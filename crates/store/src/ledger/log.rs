//! The log: appended to by the data path, synced at an interval.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tenantry_types::usage::{Attempted, SlotTime, UsageKey, Used};
use tenantry_types::{BootId, NodeId};

use super::frame::{Closed, FORMAT, Room, Written};
use super::posting::Posting;
use crate::open::{id_parts, sync_folder};

const NODE_FILE: &str = "node";
/// Most frames are not longer.
const USUAL_BYTES: usize = 192;
/// A file that is as long is followed by the next one.
const FILE_BYTES: u64 = 32 << 20;
/// The most records that are remembered while the disk takes none. What is beyond is closed as interrupted by the next start.
const MAX_OWED: usize = 10_000;
/// The most bytes of records that wait in memory for the books. Beyond that they read them from the files.
const MAX_WAITING_BYTES: usize = 32 << 20;

/// Why the log cannot be written. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The disk does not take it.
    #[error("the usage ledger cannot be written")]
    Io(#[from] io::Error),
    /// A record has no bytes; does not happen with records of ours.
    #[error("a usage record cannot be encoded")]
    Encode(#[from] postcard::Error),
    /// The node's name cannot be read.
    #[error("the file with the node's name holds something else; it was written by another program, or damaged")]
    NotAName,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// The log of one start of a node.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
    node: NodeId,
    boot: BootId,
    started_ms: i64,
    file_bytes: u64,
    waiting_bytes: usize,
    /// The last sequence number that was given out.
    last: AtomicU64,
    open: Mutex<Open>,
}

/// The file that is written to.
#[derive(Debug)]
struct Open {
    file: Arc<File>,
    number: u32,
    /// The number of the file after it: one that could not be begun is not begun again.
    next: u32,
    bytes: u64,
    /// Whether something in it was not synced.
    dirty: bool,
    /// Files before it that were not synced to their end.
    unsynced: Vec<Arc<File>>,
    /// Whether the last frame may be there in part, so that nothing behind it would be read.
    torn: bool,
    /// Attempts that were opened and not closed, by the file they were opened in.
    attempts: BTreeMap<u32, u64>,
    /// What was closed and waits for the books, from somewhere on; nothing: it was too much.
    waiting: Option<(Mark, Posting)>,
    /// What has ended and the disk did not take.
    owed: Vec<(Option<Opened>, Closed)>,
}

/// A place in the log of a start: a file and how many bytes of it lie before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Mark {
    pub(super) file: u32,
    pub(super) bytes: u64,
}

/// What the books take at a time.
#[derive(Debug)]
pub(super) struct Taken {
    /// What was closed from here on...
    pub(super) from: Mark,
    /// ...up to here.
    pub(super) to: Mark,
    pub(super) posting: Posting,
}

/// That an attempt was opened, for its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    file: u32,
}

impl Ledger {
    /// Begins the log of a new start in this folder, which is made if it does not exist.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open(folder: &Path, now_ms: i64) -> Result<Self, LedgerError> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let node = node_name(folder, now_ms)?;
        let (time, random) = id_parts(now_ms).map_err(|_| LedgerError::Random)?;
        let boot = BootId::from_parts(time, random);
        let open = begin_file(folder, node, boot, now_ms, 1)?;
        Ok(Self {
            folder: folder.to_owned(),
            node,
            boot,
            started_ms: now_ms,
            file_bytes: FILE_BYTES,
            waiting_bytes: MAX_WAITING_BYTES,
            last: AtomicU64::new(0),
            open: Mutex::new(Open::new(open)),
        })
    }

    /// The same, but a file that is as long as this is followed by the next one.
    #[must_use]
    pub fn with_files_of(self, file_bytes: u64) -> Self {
        Self { file_bytes, ..self }
    }

    /// The same, but when so many bytes of records wait for the books, these have to read them from the files.
    #[must_use]
    pub fn with_waiting_of(self, waiting_bytes: usize) -> Self {
        Self { waiting_bytes, ..self }
    }

    /// The name of an attempt that begins.
    pub fn next_key(&self) -> UsageKey {
        UsageKey { node: self.node, boot: self.boot, sequence: self.last.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    /// Writes that an attempt is about to be given to a worker.
    ///
    /// # Errors
    /// [`LedgerError`]: then it must not be given to one.
    pub fn opened(&self, sequence: u64, attempted: &Attempted) -> Result<Opened, LedgerError> {
        self.opened_together([(sequence, attempted)])
    }

    /// The same for some that are given to a worker together: one write, and none of them is opened where it fails.
    ///
    /// # Errors
    /// [`LedgerError`]: then none of them must be given to one.
    pub fn opened_together<'a>(
        &self,
        attempts: impl IntoIterator<Item = (u64, &'a Attempted)>,
    ) -> Result<Opened, LedgerError> {
        let attempts = attempts.into_iter();
        let mut frames = Vec::with_capacity(attempts.size_hint().0.saturating_mul(USUAL_BYTES));
        let (mut room, mut count) = (Room::new(), 0_u64);
        for (sequence, attempted) in attempts {
            frames.extend_from_slice(room.encode(&Written::Opened { sequence, attempted })?.bytes());
            count += 1;
        }
        let mut open = self.open.lock();
        self.append(&mut open, &frames)?;
        let file = open.number;
        *open.attempts.entry(file).or_default() += count;
        Ok(Opened { file })
    }

    /// Writes what an attempt has come to. `opened`: unless it was never given to a worker.
    ///
    /// # Errors
    /// [`LedgerError`]: then it must not be answered.
    pub fn closed(
        &self,
        sequence: u64,
        opened: Option<Opened>,
        attempted: &Attempted,
        used: &Used,
        ended_ms: i64,
    ) -> Result<(), LedgerError> {
        let mut room = Room::new();
        let frame = room.encode(&Written::Closed { sequence, attempted, used, ended_ms })?;
        let mut open = self.open.lock();
        self.append(&mut open, frame.bytes())?;
        if let Some(Opened { file }) = opened {
            open.ended(file);
        }
        if let Some((_, posting)) = &mut open.waiting {
            posting.add(sequence, attempted, used, ended_ms, frame.closed());
            if posting.bytes > self.waiting_bytes {
                open.waiting = None;
            }
        }
        Ok(())
    }

    /// The same for one that nobody waits for any more and that the disk did not take: it is written with what comes next, as far
    /// as there is room to remember it.
    pub fn closes_later(
        &self,
        sequence: u64,
        opened: Option<Opened>,
        attempted: &Attempted,
        used: &Used,
        ended_ms: i64,
    ) {
        let mut open = self.open.lock();
        if open.owed.len() < MAX_OWED {
            open.owed.push((opened, Closed { sequence, attempted: attempted.clone(), used: *used, ended_ms }));
        }
    }

    /// Writes what the disk did not take before.
    fn pay(&self) -> Result<(), LedgerError> {
        let owed = std::mem::take(&mut self.open.lock().owed);
        let mut owed = owed.into_iter();
        while let Some((opened, record)) = owed.next() {
            let Closed { sequence, attempted, used, ended_ms } = &record;
            if let Err(error) = self.closed(*sequence, opened, attempted, used, *ended_ms) {
                let mut open = self.open.lock();
                open.owed.push((opened, record));
                open.owed.extend(owed);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes what the slots have done by now; `last` where the start ends in order and this is its last word.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn slots(&self, at_ms: i64, time: SlotTime, last: bool) -> Result<(), LedgerError> {
        self.pay()?;
        let mut room = Room::new();
        let frame = room.encode(&Written::Slots { at_ms, time, last })?;
        let mut open = self.open.lock();
        self.append(&mut open, frame.bytes())?;
        if let Some((_, posting)) = &mut open.waiting {
            posting.heard(at_ms, time, last);
        }
        Ok(())
    }

    /// Brings everything that was written to the disk. Blocks; writers do not wait for it.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> io::Result<()> {
        let files: Vec<Arc<File>> = {
            let mut open = self.open.lock();
            let current = std::mem::take(&mut open.dirty).then(|| Arc::clone(&open.file));
            open.unsynced.drain(..).chain(current).collect()
        };
        let mut outcome = Ok(());
        for file in files {
            if let Err(error) = file.sync_data() {
                // Nobody knows what of it is on the disk; the next sync tries again.
                self.open.lock().unsynced.push(file);
                outcome = Err(error);
            }
        }
        outcome
    }

    /// Which start this is.
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// Whose log this is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What waits for the books; what comes now waits for the next time. Taken is taken: whoever loses it reads the files.
    pub(super) fn take(&self) -> Taken {
        let mut open = self.open.lock();
        let to = Mark { file: open.number, bytes: open.bytes };
        match open.waiting.replace((to, Posting::default())) {
            Some((from, posting)) => Taken { from, to, posting },
            None => Taken { from: to, to, posting: Posting::default() },
        }
    }

    /// The oldest file with an attempt that is not closed.
    pub(super) fn oldest_open(&self) -> Option<u32> {
        self.open.lock().attempts.keys().next().copied()
    }

    fn append(&self, open: &mut Open, bytes: &[u8]) -> Result<(), LedgerError> {
        if open.torn || open.bytes >= self.file_bytes {
            let number = open.next;
            open.next = number.saturating_add(1);
            let next = begin_file(&self.folder, self.node, self.boot, self.started_ms, number)?;
            let dirty = open.dirty;
            let before = open.follow(next);
            open.unsynced.extend(dirty.then_some(before));
        }
        open.dirty = true;
        if let Err(error) = (&*open.file).write_all(bytes) {
            // A part of it may be there, behind which nothing would be read: what comes next goes into another file.
            open.torn = true;
            return Err(error.into());
        }
        open.bytes += bytes.len() as u64;
        Ok(())
    }
}

impl Open {
    fn new(Begun { file, number, bytes }: Begun) -> Self {
        Self {
            file,
            number,
            next: number.saturating_add(1),
            bytes,
            dirty: true,
            unsynced: Vec::new(),
            torn: false,
            attempts: BTreeMap::new(),
            waiting: Some((Mark { file: number, bytes }, Posting::default())),
            owed: Vec::new(),
        }
    }

    /// Goes on in another file; the one before comes back.
    fn follow(&mut self, Begun { file, number, bytes }: Begun) -> Arc<File> {
        (self.number, self.bytes, self.dirty, self.torn) = (number, bytes, true, false);
        std::mem::replace(&mut self.file, file)
    }

    /// One attempt that was opened in this file has ended.
    fn ended(&mut self, file: u32) {
        if let Some(attempts) = self.attempts.get_mut(&file) {
            *attempts = attempts.saturating_sub(1);
            if *attempts == 0 {
                self.attempts.remove(&file);
            }
        }
    }
}

/// The name of one file of a boot.
pub(super) fn file_name(boot: BootId, number: u32) -> String {
    format!("{boot}-{number:08}.log")
}

/// Which file of which boot has this name.
pub(super) fn parse_file_name(name: &str) -> Option<(BootId, u32)> {
    let (boot, number) = name.strip_suffix(".log")?.split_once('-')?;
    Some((boot.parse().ok()?, number.parse().ok()?))
}

/// A file that has its first record.
struct Begun {
    file: Arc<File>,
    number: u32,
    bytes: u64,
}

fn begin_file(folder: &Path, node: NodeId, boot: BootId, started_ms: i64, number: u32) -> Result<Begun, LedgerError> {
    let path = folder.join(file_name(boot, number));
    let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
    let mut room = Room::new();
    let begin = room.encode(&Written::Begin { format: FORMAT, node, boot, started_ms })?;
    if let Err(error) = file.write_all(begin.bytes()).and_then(|()| sync_folder(folder)) {
        // A full disk shall not be filled with empty files; one that cannot be removed is read as one that is torn.
        let _ = std::fs::remove_file(&path);
        return Err(error.into());
    }
    Ok(Begun { file: Arc::new(file), number, bytes: begin.bytes().len() as u64 })
}

/// The node's name; made at its first start.
fn node_name(folder: &Path, now_ms: i64) -> Result<NodeId, LedgerError> {
    let path = folder.join(NODE_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => return text.trim().parse().map_err(|_| LedgerError::NotAName),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let (time, random) = id_parts(now_ms).map_err(|_| LedgerError::Random)?;
    let node = NodeId::from_parts(time, random);
    // Aside first: a kill must not leave half a name.
    let aside = folder.join("node.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    writeln!(file, "{node}")?;
    file.sync_all()?;
    std::fs::rename(aside, path)?;
    sync_folder(folder)?;
    Ok(node)
}
