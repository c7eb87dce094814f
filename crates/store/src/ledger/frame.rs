//! What the log's files hold, as bytes.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tenantry_types::usage::{Attempted, SlotTime, Used};
use tenantry_types::{BootId, NodeId};

use super::first::{self, Old};

/// Which form of the records this program writes. The one before it is read ([`first`]), another one is not.
pub(super) const FORMAT: u16 = 2;
/// Length and checksum before each record.
const HEAD_BYTES: usize = 8;
/// No record is longer: names are bounded. A longer one is not a record.
const MAX_RECORD_BYTES: usize = 4096;
/// Room for a record that is written: names have 63 bytes at most, numbers ten.
const WRITTEN_BYTES: usize = 512;
/// The number of the variant before what a closed record holds.
const VARIANT_BYTES: usize = 1;

/// The most bytes of one record with what is before it.
pub(super) const MAX_FRAME_BYTES: usize = HEAD_BYTES + MAX_RECORD_BYTES;

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) enum Frame {
    /// The first of each file.
    Begin { format: u16, node: NodeId, boot: BootId, started_ms: i64 },
    /// An attempt that is about to be given to a worker.
    Opened { sequence: u64, attempted: Attempted },
    /// An attempt that has ended.
    Closed(Closed),
    /// What the slots have done by now; `last` where nothing comes after it.
    Slots { at_ms: i64, time: SlotTime, last: bool },
}

/// An attempt that has ended. It says all again, because one that was never given to a worker was not opened. It stands in the log and
/// in a page of the books in the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Closed {
    pub(crate) sequence: u64,
    pub(crate) attempted: Attempted,
    pub(crate) used: Used,
    pub(crate) ended_ms: i64,
}

/// [`Frame`] as it is written: the same bytes, and nothing is copied for them.
#[derive(Debug, Serialize)]
pub(super) enum Written<'a> {
    Begin { format: u16, node: NodeId, boot: BootId, started_ms: i64 },
    Opened { sequence: u64, attempted: &'a Attempted },
    Closed { sequence: u64, attempted: &'a Attempted, used: &'a Used, ended_ms: i64 },
    Slots { at_ms: i64, time: SlotTime, last: bool },
}

/// Room for one frame; where it lies, it stays.
pub(super) struct Room([u8; HEAD_BYTES + WRITTEN_BYTES]);

/// Bytes of one frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Encoded<'a>(&'a [u8]);

impl Room {
    pub(super) fn new() -> Self {
        Self([0; HEAD_BYTES + WRITTEN_BYTES])
    }

    /// A frame's bytes, with their length and checksum before them.
    pub(super) fn encode(&mut self, frame: &Written<'_>) -> Result<Encoded<'_>, postcard::Error> {
        let (head, room) = self.0.split_at_mut(HEAD_BYTES);
        let record = postcard::to_slice(frame, room)?;
        let (length, checksum) = (record.len(), crc32fast::hash(record));
        let (first, second) = head.split_at_mut(size_of::<u32>());
        first.copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        second.copy_from_slice(&checksum.to_le_bytes());
        Ok(Encoded(self.0.get(..HEAD_BYTES + length).unwrap_or_default()))
    }
}

impl<'a> Encoded<'a> {
    /// All of them.
    pub(super) fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Of a closed record: what a page has of it.
    pub(super) fn closed(self) -> &'a [u8] {
        self.0.get(HEAD_BYTES + VARIANT_BYTES..).unwrap_or_default()
    }
}

/// Reads the frames of one file, from somewhere in it on.
pub(super) struct Frames {
    file: BufReader<File>,
    /// The form of what is read: the file's first frame says it.
    format: u16,
    /// Where the next frame begins.
    offset: u64,
    buffer: Vec<u8>,
}

impl Frames {
    /// Opens a file at the beginning of a frame. `format`: the form it is in, where its first frame lies before.
    pub(super) fn open(path: &Path, offset: u64, format: u16) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file: BufReader::new(file), format, offset, buffer: Vec::new() })
    }

    /// Where the next frame begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The form it is in.
    pub(super) fn format(&self) -> u16 {
        self.format
    }

    /// The next whole frame; nothing at the end, and nothing where what follows is not (yet) a whole frame.
    pub(super) fn next(&mut self) -> io::Result<Option<Frame>> {
        let mut head = [0; HEAD_BYTES];
        if !read_whole(&mut self.file, &mut head)? {
            return Ok(None);
        }
        let [a, b, c, d, e, f, g, h] = head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > MAX_RECORD_BYTES {
            return Ok(None);
        }
        self.buffer.resize(length, 0);
        if !read_whole(&mut self.file, &mut self.buffer)?
            || crc32fast::hash(&self.buffer) != u32::from_le_bytes([e, f, g, h])
        {
            return Ok(None);
        }
        let frame = match self.format {
            first::FORMAT => postcard::from_bytes::<Old>(&self.buffer).map(Frame::from),
            _ => postcard::from_bytes(&self.buffer),
        };
        let Ok(frame) = frame else { return Ok(None) };
        if let Frame::Begin { format, .. } = frame {
            if ![first::FORMAT, FORMAT].contains(&format) {
                return Err(io::Error::other("a file of the usage ledger is of another version"));
            }
            self.format = format;
        }
        self.offset += (HEAD_BYTES + length) as u64;
        Ok(Some(frame))
    }
}

/// False where the file ends first.
fn read_whole(file: &mut BufReader<File>, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
pub(super) mod tests;
