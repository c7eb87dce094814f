//! Whether a shared library is whole: `dlopen` maps a truncated one happily and then dies of SIGBUS.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Why a file is not a whole ELF library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Not the right kind of file.
    #[error("not a 64-bit shared library")]
    NotElf,
    /// Shorter than its header says.
    #[error("truncated: {found} of {expected} bytes")]
    Truncated {
        /// Bytes there are.
        found: u64,
        /// Bytes its header promises.
        expected: u64,
    },
    /// Cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(std::io::ErrorKind),
}

const HEADER_BYTES: usize = 64;

/// Compares the file's length with where its section table, the last thing in it, ends (ELF-64, `e_shoff`,
/// `e_shentsize`, `e_shnum`).
pub(crate) fn check_whole(file: &File) -> Result<(), ElfError> {
    let unreadable = |error: std::io::Error| ElfError::Unreadable(error.kind());
    let found = file.metadata().map_err(unreadable)?.len();
    let mut header = [0_u8; HEADER_BYTES];
    if found < HEADER_BYTES as u64 {
        return Err(ElfError::NotElf);
    }
    file.read_exact_at(&mut header, 0).map_err(unreadable)?;
    if !header.starts_with(b"\x7fELF\x02") {
        return Err(ElfError::NotElf);
    }
    let number = |at: usize, bytes: usize| {
        let field = header.get(at..at + bytes).unwrap_or_default();
        field.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let expected = number(0x28, 8).saturating_add(number(0x3a, 2) * number(0x3c, 2));
    if expected > found { Err(ElfError::Truncated { found, expected }) } else { Ok(()) }
}
