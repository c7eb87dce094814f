//! Reading an uploaded archive (`.tar`, also gzipped) into named files.
//!
//! Nothing is unpacked to a file system: names stay names, and each file's bytes go to the store's own address. Still
//! everything that has no business in a model is refused with a reason: links, devices, `..`, absolute paths, duplicates,
//! more files or bytes than the limits. The reader asks the `tar` crate for raw entries and interprets the two ways of
//! writing long names itself, because the crate would read such a name into memory whatever its length.

use std::cell::Cell;
use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use tar::EntryType;
use tenantry_types::error::sanitise;

/// The longest name of a file inside a version, bytes.
pub(crate) const MAX_NAME_BYTES: usize = tenantry_store::limits::MAX_FILE_NAME_BYTES;
/// The most entries looked at, folders included.
const MAX_ENTRIES: usize = 4 * tenantry_types::limits::MAX_ARCHIVE_FILES;
/// The longest extended header; a path of [`MAX_NAME_BYTES`] with time stamps and attributes fits several times.
const MAX_EXTENDED_HEADER_BYTES: u64 = 64 << 10;
/// How much padding after the end mark is looked at; writers fill up to a block of their tape, usually 10 KiB.
const MAX_PADDING_BYTES: u64 = 1 << 20;
/// Characters of an offending name that are shown.
const SHOWN_NAME_CHARS: usize = 80;
/// The name a version's model gets when an archive has several `.onnx` files at its top level.
const MODEL_NAME: &str = "model.onnx";
/// What stands in for a model where there is none: the manifest of a chain of other models' versions.
const MANIFEST_NAME: &str = "tenantry.toml";

/// What an archive may contain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ArchiveLimits {
    /// Files.
    pub(crate) max_files: usize,
    /// Bytes of all files, unpacked.
    pub(crate) max_bytes: u64,
}

/// Why an archive is refused. Names are sanitised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError<E> {
    #[error("the archive cannot be read: {0}")]
    Unreadable(String),
    #[error("`{name}` in the archive is a {kind}; only plain files and folders are accepted")]
    Kind { name: String, kind: &'static str },
    #[error("`{0}` is no name for a file of a model: names are relative, without `..`, at most {MAX_NAME_BYTES} bytes")]
    Name(String),
    #[error("the archive holds `{0}` twice")]
    Duplicate(String),
    #[error("the archive holds more than {0} files")]
    TooManyFiles(usize),
    #[error("the archive's files are larger than {0} bytes together")]
    TooLarge(u64),
    #[error(
        "the archive holds no model: it needs exactly one `.onnx` file at its top level, or one that is called \
         `{MODEL_NAME}`, or none and a `{MANIFEST_NAME}` that chains other models"
    )]
    NoModel,
    /// The sink failed; not the archive's fault.
    #[error("a file of the archive cannot be kept")]
    Sink(E),
}

/// Whether a file of this name is to be read as an archive.
pub(crate) fn is_archive(filename: &str) -> bool {
    let lower = filename.to_ascii_lowercase();
    [".tar", ".tar.gz", ".tgz"].iter().any(|end| lower.ends_with(end))
}

/// The file's last path component if it is fit to be a name: what clients send as a file name may carry their folders.
pub(crate) fn plain_name(filename: &str) -> Option<&str> {
    let last = filename.rsplit(['/', '\\']).next()?;
    checked_name(last.as_bytes()).filter(|name| *name == last)?;
    Some(last)
}

/// Reads every file of an archive into `sink`, the model first.
///
/// # Errors
/// See [`ArchiveError`]. What `sink` took before the error is the caller's to forget.
pub(crate) fn read<R: Read, T, E>(
    mut reader: R,
    limits: ArchiveLimits,
    mut sink: impl FnMut(&str, u64, &mut dyn Read) -> Result<T, E>,
) -> Result<Vec<(String, T)>, ArchiveError<E>> {
    let mut magic = [0_u8; 2];
    let filled = read_full(&mut reader, &mut magic).map_err(unreadable)?;
    let head = magic.get(..filled).unwrap_or_default();
    let whole = head.chain(reader);
    let mut files = if head == [0x1f, 0x8b] {
        read_tar(MultiGzDecoder::new(whole), limits, &mut sink)?
    } else {
        read_tar(whole, limits, &mut sink)?
    };
    let model = choose_model(files.iter().map(|(name, _)| name.as_str())).ok_or(ArchiveError::NoModel)?;
    files.swap(0, model);
    Ok(files)
}

/// The position of the model among the names.
fn choose_model<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<usize> {
    if let Some(position) = names.clone().position(|name| name == MODEL_NAME) {
        return Some(position);
    }
    let mut top_level = names.clone().enumerate().filter(|(_, name)| !name.contains('/') && name.ends_with(".onnx"));
    let Some((position, _)) = top_level.next() else {
        return names.clone().position(|name| name == MANIFEST_NAME);
    };
    top_level.next().is_none().then_some(position)
}

fn read_tar<R: Read, T, E>(
    reader: R,
    limits: ArchiveLimits,
    sink: &mut impl FnMut(&str, u64, &mut dyn Read) -> Result<T, E>,
) -> Result<Vec<(String, T)>, ArchiveError<E>> {
    let ended = Cell::new(false);
    let mut archive = tar::Archive::new(Watched { inner: reader, ended: &ended });
    let mut files: Vec<(String, T)> = Vec::new();
    let mut bytes_left = limits.max_bytes;
    // A name that is too long for the header, given by the entry before.
    let mut long_name: Option<Vec<u8>> = None;
    for (count, entry) in archive.entries().map_err(unreadable)?.raw(true).enumerate() {
        let mut entry = entry.map_err(unreadable)?;
        if count >= MAX_ENTRIES {
            return Err(ArchiveError::TooManyFiles(limits.max_files));
        }
        let bytes = entry.header().entry_size().map_err(unreadable)?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => {
                let mut name = extended_header(&mut entry, bytes)?;
                while name.last() == Some(&0) {
                    name.pop();
                }
                long_name = Some(name);
                continue;
            }
            EntryType::XHeader => {
                let records = extended_header(&mut entry, bytes)?;
                long_name = pax_path(&records)?.or(long_name);
                continue;
            }
            EntryType::XGlobalHeader => {
                extended_header(&mut entry, bytes)?;
                continue;
            }
            _ => {}
        }
        let raw_name = long_name.take().unwrap_or_else(|| entry.header().path_bytes().into_owned());
        let shown = || sanitise(&String::from_utf8_lossy(&raw_name), SHOWN_NAME_CHARS);
        let name = checked_name(&raw_name);
        match kind {
            EntryType::Directory => {
                // The archive's own top folder, `./`, is an empty name here.
                if name.is_none() && !matches!(raw_name.as_slice(), b"." | b"./") {
                    return Err(ArchiveError::Name(shown()));
                }
                continue;
            }
            EntryType::Regular | EntryType::Continuous => {}
            other => return Err(ArchiveError::Kind { name: shown(), kind: kind_text(other) }),
        }
        let name = name.ok_or_else(|| ArchiveError::Name(shown()))?;
        if files.iter().any(|(known, _)| known == name) {
            return Err(ArchiveError::Duplicate(shown()));
        }
        if files.len() >= limits.max_files {
            return Err(ArchiveError::TooManyFiles(limits.max_files));
        }
        bytes_left = bytes_left.checked_sub(bytes).ok_or(ArchiveError::TooLarge(limits.max_bytes))?;
        let mut content = Counted { inner: &mut entry, left: bytes, failure: None };
        let kept = sink(name, bytes, &mut content);
        if let Some(problem) = content.failure {
            return Err(ArchiveError::Unreadable(problem));
        }
        files.push((name.to_owned(), kept.map_err(ArchiveError::Sink)?));
    }
    // Entries end at a block of zeros. Where they end because the input does, more may have followed once.
    if ended.get() {
        return Err(ArchiveError::Unreadable("it ends without an end mark; was it cut short?".to_owned()));
    }
    // A gzip stream's checksum is at its end.
    io::copy(&mut archive.into_inner().take(MAX_PADDING_BYTES), &mut io::sink()).map_err(unreadable)?;
    Ok(files)
}

/// A reader that notices its end.
struct Watched<'a, R> {
    inner: R,
    ended: &'a Cell<bool>,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            self.ended.set(true);
        }
        Ok(count)
    }
}

/// An entry's content that must be as long as its header says. An archive cut short would otherwise pass for whole.
struct Counted<'a, R> {
    inner: &'a mut R,
    left: u64,
    failure: Option<String>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let outcome = match self.inner.read(buffer) {
            Ok(0) if self.left > 0 && !buffer.is_empty() => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends inside a file"))
            }
            other => other,
        };
        match &outcome {
            Ok(count) => self.left = self.left.saturating_sub(*count as u64),
            Err(error) => self.failure = Some(describe(error)),
        }
        outcome
    }
}

/// A name that stays inside the version: relative, of plain components, printable. `./` at its front is dropped.
fn checked_name(raw: &[u8]) -> Option<&str> {
    let mut name = std::str::from_utf8(raw).ok()?;
    while let Some(rest) = name.strip_prefix("./") {
        name = rest;
    }
    let name = name.strip_suffix('/').unwrap_or(name);
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    let good = !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && !name.contains('\\')
        && !name.contains(char::is_control)
        && name.split('/').all(plain);
    good.then_some(name)
}

fn extended_header<R: Read, E>(entry: &mut R, bytes: u64) -> Result<Vec<u8>, ArchiveError<E>> {
    if bytes > MAX_EXTENDED_HEADER_BYTES {
        return Err(ArchiveError::Unreadable("an extended header is too long".to_owned()));
    }
    let mut content = Vec::new();
    entry.take(bytes).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 != bytes {
        return Err(ArchiveError::Unreadable("it ends inside an extended header".to_owned()));
    }
    Ok(content)
}

/// The path among POSIX extended header records (IEEE Std 1003.1, pax). A size there would contradict the header's.
fn pax_path<E>(records: &[u8]) -> Result<Option<Vec<u8>>, ArchiveError<E>> {
    let mut path = None;
    for record in tar::PaxExtensions::new(records) {
        let record = record.map_err(unreadable)?;
        match record.key_bytes() {
            b"path" => path = Some(record.value_bytes().to_vec()),
            b"size" => {
                return Err(ArchiveError::Unreadable(
                    "it gives a file's size in an extended header; write it with `tar --format=ustar`".to_owned(),
                ));
            }
            key if key.starts_with(b"GNU.sparse.") => {
                return Err(ArchiveError::Unreadable("it holds sparse files; write it without `--sparse`".to_owned()));
            }
            _ => {}
        }
    }
    Ok(path)
}

fn kind_text(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Symlink => "symbolic link",
        EntryType::Link | EntryType::GNULongLink => "hard link",
        EntryType::Char | EntryType::Block => "device",
        EntryType::Fifo => "named pipe",
        EntryType::GNUSparse => "sparse file",
        _ => "special entry",
    }
}

fn unreadable<E>(error: io::Error) -> ArchiveError<E> {
    ArchiveError::Unreadable(describe(&error))
}

fn describe(error: &io::Error) -> String {
    sanitise(&error.to_string(), 200)
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;
