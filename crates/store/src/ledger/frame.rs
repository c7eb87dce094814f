//! What the log's files hold, as bytes.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tenantry_types::usage::{Attempted, SlotTime, Used};
use tenantry_types::{BootId, NodeId};

/// Which form of the records this program writes. Another one is not read.
pub(crate) const FORMAT: u16 = 1;
/// Length and checksum before each record.
const HEAD_BYTES: usize = 8;
/// Most records are not longer.
const USUAL_BYTES: usize = 192;
/// No record is longer: names are bounded. A longer one is not a record.
const MAX_RECORD_BYTES: usize = 4096;

/// The most bytes of one record with what is before it.
pub(crate) const MAX_FRAME_BYTES: u64 = (HEAD_BYTES + MAX_RECORD_BYTES) as u64;

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Frame {
    /// The first of each file.
    Begin { format: u16, node: NodeId, boot: BootId, started_ms: i64 },
    /// An attempt that is about to be given to a worker.
    Opened { sequence: u64, attempted: Attempted },
    /// An attempt that has ended. It says all again, because one that was never given to a worker was not opened.
    Closed { sequence: u64, attempted: Attempted, used: Used, ended_ms: i64 },
    /// What the slots have done by now; `last` where nothing comes after it.
    Slots { at_ms: i64, time: SlotTime, last: bool },
}

/// A closed record as the books keep it.
#[derive(Debug, Serialize)]
pub(crate) struct Entry<'a> {
    pub(crate) attempted: &'a Attempted,
    pub(crate) used: Used,
    pub(crate) ended_ms: i64,
}

impl Entry<'_> {
    /// Its bytes: the form's number, then the record.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_extend(&(FORMAT, self), Vec::with_capacity(USUAL_BYTES))
    }

    /// Nothing where the bytes are none of this form.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Attempted, Used, i64)> {
        let (format, record): (u16, (Attempted, Used, i64)) = postcard::from_bytes(bytes).ok()?;
        (format == FORMAT).then_some(record)
    }
}

impl Frame {
    /// Its bytes, with their length and checksum before them.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        bytes.extend([0; HEAD_BYTES]);
        let mut bytes = postcard::to_extend(self, bytes)?;
        let (head, record) = bytes.split_at_mut(HEAD_BYTES);
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        let head_bytes = [length.to_le_bytes(), crc32fast::hash(record).to_le_bytes()].concat();
        head.copy_from_slice(&head_bytes);
        Ok(bytes)
    }
}

/// Reads the frames of one file, from somewhere in it on.
pub(crate) struct Frames {
    file: BufReader<File>,
    /// Where the next frame begins.
    offset: u64,
    buffer: Vec<u8>,
}

impl Frames {
    /// Opens a file at the beginning of a frame.
    pub(crate) fn open(path: &Path, offset: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file: BufReader::new(file), offset, buffer: Vec::new() })
    }

    /// Where the next frame begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next whole frame; nothing at the end, and nothing where what follows is not (yet) a whole frame.
    pub(crate) fn next(&mut self) -> io::Result<Option<Frame>> {
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
        let Ok(frame) = postcard::from_bytes(&self.buffer) else { return Ok(None) };
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
mod tests;
