//! Reading the log back: of starts that are over, and where the books have fallen behind.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use tenantry_types::BootId;
use tenantry_types::usage::{Attempted, Outcome, Used};

use super::frame::{FORMAT, Frame, Frames, MAX_FRAME_BYTES, Room, Written};
use super::log::{LedgerError, Mark, file_name};
use super::posting::Posting;

/// Records of one posting, at most.
const MAX_POSTED: u64 = 10_000;

/// The files of one start, read from a place in them on.
#[derive(Debug)]
pub(super) struct Reading {
    folder: PathBuf,
    boot: BootId,
    files: BTreeSet<u32>,
    /// Reading ends here; nothing: at the end of the last file.
    until: Option<Mark>,
    /// How far it has come.
    pub(super) at: Mark,
    /// The form of the file it is in.
    format: u16,
    /// What was opened and not closed by now.
    opened: HashMap<u64, Attempted>,
    last_ms: i64,
    /// Files that hold something behind their last whole record: a power failure, or damage.
    pub(super) torn: u64,
    /// Those of them that hold more there than one record can be.
    pub(super) damaged: BTreeSet<u32>,
}

impl Reading {
    pub(super) fn new(folder: PathBuf, boot: BootId, files: BTreeSet<u32>, from: Mark, until: Option<Mark>) -> Self {
        let (opened, damaged) = (HashMap::new(), BTreeSet::new());
        Self { folder, boot, files, until, at: from, format: FORMAT, opened, last_ms: 0, torn: 0, damaged }
    }

    /// Reads on. What lies before the mark is in the books. True: that was all. Blocks.
    pub(super) fn read(&mut self, mark: Mark) -> Result<(Posting, bool), LedgerError> {
        let mut posting = Posting::default();
        let is_behind = |reading: &Self| reading.until.is_none_or(|until| reading.at < until);
        // The file it is in, if it is there, and those after it.
        while let Some(file) = self.files.range(self.at.file..).next().copied().filter(|_| is_behind(self)) {
            if self.at.file != file {
                self.at = Mark { file, bytes: 0 };
            }
            let path = self.folder.join(file_name(self.boot, file));
            let mut frames = Frames::open(&path, self.at.bytes, self.format)?;
            while is_behind(self)
                && let Some(frame) = frames.next()?
            {
                (self.at.bytes, self.format) = (frames.offset(), frames.format());
                let is_new = self.at > mark;
                self.take(frame, is_new, &mut posting)?;
                if posting.records >= MAX_POSTED {
                    return Ok((self.dated(posting), false));
                }
            }
            if is_behind(self) {
                let rest_bytes = std::fs::metadata(&path)?.len().saturating_sub(frames.offset());
                self.torn += u64::from(rest_bytes > 0);
                // The end of a file may be a part of one record. More than that was behind something unreadable.
                if rest_bytes > MAX_FRAME_BYTES as u64 {
                    self.damaged.insert(file);
                }
                self.at = Mark { file: file.saturating_add(1), bytes: 0 };
            }
        }
        Ok((self.dated(posting), true))
    }

    fn take(&mut self, frame: Frame, is_new: bool, posting: &mut Posting) -> Result<(), LedgerError> {
        match frame {
            Frame::Begin { started_ms, .. } => self.last_ms = self.last_ms.max(started_ms),
            Frame::Opened { sequence, attempted } => drop(self.opened.insert(sequence, attempted)),
            Frame::Closed(closed) => {
                self.opened.remove(&closed.sequence);
                self.last_ms = self.last_ms.max(closed.ended_ms);
                if is_new {
                    add(posting, closed.sequence, &closed.attempted, &closed.used, closed.ended_ms)?;
                }
            }
            Frame::Slots { at_ms, time, last } => {
                self.last_ms = self.last_ms.max(at_ms);
                if is_new {
                    posting.heard(at_ms, time, last);
                }
            }
        }
        Ok(())
    }

    /// What a start that is over left open, closed as interrupted.
    pub(super) fn interrupt(&mut self, posting: &mut Posting) -> Result<(), LedgerError> {
        let mut left: Vec<(u64, Attempted)> = self.opened.drain().collect();
        left.sort_unstable_by_key(|(sequence, _)| *sequence);
        left.iter().try_for_each(|(sequence, attempted)| {
            let ended_ms = self.last_ms.max(attempted.admitted_ms);
            add(posting, *sequence, attempted, &Used::nothing(Outcome::Interrupted), ended_ms)
        })
    }

    /// With the time at which the start was last heard of.
    fn dated(&self, mut posting: Posting) -> Posting {
        posting.last_ms = self.last_ms;
        posting
    }
}

fn add(
    posting: &mut Posting,
    sequence: u64,
    attempted: &Attempted,
    used: &Used,
    ended_ms: i64,
) -> Result<(), LedgerError> {
    let mut room = Room::new();
    let record = room.encode(&Written::Closed { sequence, attempted, used, ended_ms })?;
    posting.add(sequence, attempted, used, ended_ms, record.closed());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tenantry_types::NodeId;
    use tenantry_types::usage::DeviceTime;

    use super::super::first::{self, Old};
    use super::super::frame::tests::{attempted, framed};
    use super::*;

    #[test]
    fn a_long_file_of_the_first_form_is_read_in_parts() {
        let (folder, boot) = (tempfile::tempdir().unwrap(), BootId::from_parts(2, [5; 10]));
        let mut file = std::fs::File::create(folder.path().join(file_name(boot, 1))).unwrap();
        let begin = Old::Begin { format: first::FORMAT, node: NodeId::from_parts(1, [4; 10]), boot, started_ms: 9 };
        let mut bytes = framed(&begin);
        let records = MAX_POSTED + 50;
        for sequence in 1..=records {
            let used = first::Used {
                outcome: Outcome::Ok,
                duration_ns: sequence,
                queue_ns: 0,
                device: DeviceTime::default(),
                cpu_ns: 0,
                bytes_in: 0,
                bytes_out: 0,
                tokens: 0,
            };
            bytes.extend(framed(&Old::Closed { sequence, attempted: attempted(1), used, ended_ms: 10 }));
        }
        bytes.extend(framed(&Old::Opened { sequence: records + 1, attempted: attempted(1) }));
        file.write_all(&bytes).unwrap();
        let mut reading = Reading::new(folder.path().to_owned(), boot, [1].into(), Mark::default(), None);
        let (first, done) = reading.read(Mark::default()).unwrap();
        assert_eq!((first.records, done), (MAX_POSTED, false));
        let (mut rest, done) = reading.read(Mark::default()).unwrap();
        assert_eq!((rest.records, done, reading.torn, reading.damaged.len()), (50, true, 0, 0));
        reading.interrupt(&mut rest).unwrap();
        assert_eq!((rest.records, rest.interrupted), (51, 1));
    }
}
