//! The bytes of a sealed file.
//!
//! | bytes | what |
//! |---|---|
//! | 7 | `TNTSEAL` |
//! | 1 | the form, 1 |
//! | 4 | the generation of the tenant's data key, big-endian |
//! | 32 | the salt |
//! | up to 1 MiB + 16 each | the chunks, each followed by its tag; all but the last are full, and there is at least one |
//! | 16 | the tag over address and length |
//!
//! Nonces are 7 zero bytes, the chunk's number (4 bytes, big-endian) and one byte: 0, 1 for the last chunk, 2 for the tag
//! behind it, whose number is that of the chunks.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use tenantry_types::TenantId;

use super::SealError;
use crate::data_keys::DataKey;
use crate::limits::UPLOAD_PART_BYTES;

const MAGIC: [u8; 7] = *b"TNTSEAL";
const FORM: u8 = 1;
pub(crate) const SALT_BYTES: usize = 32;
pub(crate) const HEADER_BYTES: usize = MAGIC.len() + 1 + 4 + SALT_BYTES;
/// What a chunk holds of the file, bytes. One part of an upload is one chunk.
pub(crate) const CHUNK_BYTES: usize = UPLOAD_PART_BYTES;
pub(crate) const TAG_BYTES: usize = 16;
const SEALED_CHUNK_BYTES: u64 = (CHUNK_BYTES + TAG_BYTES) as u64;
/// What is in every sealed file besides its chunks.
const FRAME_BYTES: u64 = (HEADER_BYTES + TAG_BYTES) as u64;
/// Separates the keys of files from whatever else may be made of a data key one day.
const KEY_INFO: &[u8] = b"tenantry sealed file";

/// What a nonce's last byte says.
#[derive(Debug, Clone, Copy)]
enum Part {
    Chunk = 0,
    LastChunk = 1,
    Place = 2,
}

fn nonce(number: u32, part: Part) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    let [a, b, c, d] = number.to_be_bytes();
    nonce[7..].copy_from_slice(&[a, b, c, d, part as u8]);
    Nonce::assume_unique_for_key(nonce)
}

/// What the last tag covers. An address has no NUL, the length has eight bytes: neither is mistaken for the other.
fn place(address: &str, bytes: u64) -> Vec<u8> {
    [address.as_bytes(), &[0], &bytes.to_be_bytes()].concat()
}

/// The length of a file whose content is `bytes` long.
#[cfg(test)]
pub(crate) const fn sealed_bytes(bytes: u64) -> u64 {
    let chunks = if bytes == 0 { 1 } else { bytes.div_ceil(CHUNK_BYTES as u64) };
    bytes + chunks * TAG_BYTES as u64 + FRAME_BYTES
}

/// The length of the content of a sealed file that is `bytes` long; none if no sealed file is.
pub(crate) fn content_bytes(bytes: u64) -> Option<u64> {
    let chunks = bytes.checked_sub(FRAME_BYTES)?;
    let (full, rest) = (chunks / SEALED_CHUNK_BYTES, chunks % SEALED_CHUNK_BYTES);
    match rest {
        0 if full > 0 => Some(full * CHUNK_BYTES as u64),
        // An empty chunk is only that of an empty file.
        rest if rest > TAG_BYTES as u64 || (rest == TAG_BYTES as u64 && full == 0) => {
            Some(full * CHUNK_BYTES as u64 + rest - TAG_BYTES as u64)
        }
        _ => None,
    }
}

/// The key of one file.
fn file_key(key: &DataKey, owner: TenantId, header: &[u8; HEADER_BYTES]) -> Result<LessSafeKey, SealError> {
    let (fixed, salt) = header.split_at(HEADER_BYTES - SALT_BYTES);
    let secret = Salt::new(HKDF_SHA256, salt).extract(key.secret.as_bytes());
    let owner = owner.to_string();
    let info = [KEY_INFO, fixed, owner.as_bytes()];
    let made = secret.expand(&info, &AES_256_GCM).map_err(|_| SealError::TooLarge)?;
    Ok(LessSafeKey::new(UnboundKey::from(made)))
}

/// Seals one file, chunk by chunk.
pub(crate) struct Sealer {
    /// Held so that whoever removes old generations sees that this one is still written with.
    data_key: Arc<DataKey>,
    key: LessSafeKey,
    header: [u8; HEADER_BYTES],
    next: u32,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("generation", &self.generation())
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Sealer {
    /// `salt` is to be random, and is used for this file only.
    pub(crate) fn new(data_key: Arc<DataKey>, owner: TenantId, salt: [u8; SALT_BYTES]) -> Result<Self, SealError> {
        let mut header = [0; HEADER_BYTES];
        let (magic, rest) = header.split_at_mut(MAGIC.len());
        magic.copy_from_slice(&MAGIC);
        let (form, rest) = rest.split_at_mut(1);
        form.copy_from_slice(&[FORM]);
        let (generation, rest) = rest.split_at_mut(4);
        generation.copy_from_slice(&data_key.generation.to_be_bytes());
        rest.copy_from_slice(&salt);
        let key = file_key(&data_key, owner, &header)?;
        Ok(Self { data_key, key, header, next: 0 })
    }

    pub(crate) fn generation(&self) -> u32 {
        self.data_key.generation
    }

    /// What the file begins with.
    pub(crate) const fn header(&self) -> &[u8; HEADER_BYTES] {
        &self.header
    }

    /// Seals the next chunk in place and appends its tag. All but the last are [`CHUNK_BYTES`] long.
    pub(crate) fn chunk(
        &mut self,
        content: &mut (impl AsMut<[u8]> + for<'a> Extend<&'a u8>),
        is_last: bool,
    ) -> Result<(), SealError> {
        let part = if is_last { Part::LastChunk } else { Part::Chunk };
        let sealed = self.key.seal_in_place_append_tag(nonce(self.next, part), Aad::empty(), content);
        sealed.map_err(|_| SealError::TooLarge)?;
        self.next = self.next.checked_add(1).ok_or(SealError::TooLarge)?;
        Ok(())
    }

    /// What the file ends with, once its address and the length of its content are known.
    pub(crate) fn end(self, address: &str, bytes: u64) -> Result<[u8; TAG_BYTES], SealError> {
        let nonce = nonce(self.next, Part::Place);
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(place(address, bytes)), &mut []);
        let tag = tag.map_err(|_| SealError::TooLarge)?;
        tag.as_ref().try_into().map_err(|_| SealError::TooLarge)
    }
}

/// A sealed file of which the beginning was read.
#[derive(Debug)]
pub(crate) struct Sealed {
    file: File,
    header: [u8; HEADER_BYTES],
    pub(crate) generation: u32,
    pub(crate) content_bytes: u64,
}

impl Sealed {
    /// Reads the header. It is believed only once [`Sealed::reader`] has checked the file's end.
    pub(crate) fn read(file: File) -> Result<Self, SealError> {
        let bytes = file.metadata()?.len();
        let mut header = [0; HEADER_BYTES];
        match file.read_exact_at(&mut header, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(SealError::NotSealed),
            other => other?,
        }
        let [m0, m1, m2, m3, m4, m5, m6, form, g0, g1, g2, g3, ..] = header;
        if [m0, m1, m2, m3, m4, m5, m6] != MAGIC {
            return Err(SealError::NotSealed);
        }
        if form != FORM {
            return Err(SealError::Version(form));
        }
        let content_bytes = content_bytes(bytes).ok_or(SealError::Length)?;
        Ok(Self { file, header, generation: u32::from_be_bytes([g0, g1, g2, g3]), content_bytes })
    }

    /// Checks that the file was sealed for this owner and address with this key, and reads it from its beginning.
    pub(crate) fn reader(self, data_key: &DataKey, owner: TenantId, address: &str) -> Result<Reader, SealError> {
        let key = file_key(data_key, owner, &self.header)?;
        let chunks = self.content_bytes.div_ceil(CHUNK_BYTES as u64).max(1);
        let chunks = u32::try_from(chunks).map_err(|_| SealError::Length)?;
        let ends_at = HEADER_BYTES as u64 + self.content_bytes + u64::from(chunks) * TAG_BYTES as u64;
        let mut tag = [0; TAG_BYTES];
        self.file.read_exact_at(&mut tag, ends_at)?;
        let covered = Aad::from(place(address, self.content_bytes));
        key.open_in_place(nonce(chunks, Part::Place), covered, &mut tag).map_err(|_| SealError::Place)?;
        Ok(Reader {
            file: self.file,
            key,
            chunks,
            next: 0,
            content_bytes: self.content_bytes,
            chunk: Vec::new(),
            at: 0,
        })
    }
}

/// The content of a sealed file, chunk by chunk; nothing of a chunk is given out before its tag was checked.
pub(crate) struct Reader {
    file: File,
    key: LessSafeKey,
    chunks: u32,
    next: u32,
    content_bytes: u64,
    /// The chunk that was decrypted last, followed by its tag.
    chunk: Vec<u8>,
    /// How much of it was given out by [`Read`].
    at: usize,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("chunks", &self.chunks).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Reader {
    /// The next chunk's content; none after the last.
    pub(crate) fn chunk(&mut self) -> Result<Option<&[u8]>, SealError> {
        if self.next == self.chunks {
            return Ok(None);
        }
        let number = self.next;
        let begin = u64::from(number) * CHUNK_BYTES as u64;
        let content = (self.content_bytes.saturating_sub(begin)).min(CHUNK_BYTES as u64) as usize;
        self.chunk.resize(content + TAG_BYTES, 0);
        let at = HEADER_BYTES as u64 + u64::from(number) * SEALED_CHUNK_BYTES;
        self.file.read_exact_at(&mut self.chunk, at)?;
        let part = if number + 1 == self.chunks { Part::LastChunk } else { Part::Chunk };
        if self.key.open_in_place(nonce(number, part), Aad::empty(), &mut self.chunk).is_err() {
            // Nothing that was not checked is ever given out.
            self.chunk.clear();
            return Err(SealError::Chunk(number));
        }
        self.chunk.truncate(content);
        self.next += 1;
        Ok(Some(&self.chunk))
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.len() == self.at {
            self.at = 0;
            if self.chunk().map_err(io::Error::other)?.is_none() {
                self.chunk.clear();
                return Ok(0);
            }
        }
        let rest = self.chunk.get(self.at..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.at += count;
        Ok(count)
    }
}
