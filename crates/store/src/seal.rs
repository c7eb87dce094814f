//! Files at rest: what lies on the disk of a tenant is sealed, and what a worker gets lies in memory only.
//!
//! **Wanted.** Whoever takes the disk, or a copy of it, learns nothing of a file but its owner, its digest and its length;
//! whoever writes to the disk can at most take a file away. No bit of a file can be changed, no part moved, cut off or put
//! into another file, of the same tenant or of another, unnoticed. Files are written while their bytes arrive and their
//! digest is not known yet; they are as large as memory allows.
//!
//! **How.** Each tenant has data keys, numbered by generation; a master key wraps them (`crate::master`), and they are kept
//! wrapped, in SQL (`crate::data_keys`). Each file has a key of its own, made of the data key, a salt drawn for this file,
//! the tenant and the generation by HKDF (RFC 5869), so that no nonce is ever used twice under one key, whoever writes the
//! file again. Under it the file is a STREAM (Hoang, Reyhanitabar, Rogaway, Vizár: Online Authenticated-Encryption and its
//! Nonce-Reuse Misuse-Resistance, 2015): chunks of AES-256-GCM whose nonces are their numbers and whether they are the last.
//! Behind the last chunk stands a tag over the file's address and length, which are known by then: a file that was moved to
//! another address is refused before anything of it is decrypted. `format` has the bytes, `memory` what decrypted bytes go to.

pub(crate) mod format;
pub(crate) mod memory;

pub(crate) use format::{Reader, Sealed, Sealer};

/// Why a sealed file cannot be opened. No text says where it lies or whose it is.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// It does not begin as a sealed file does.
    #[error("it is no sealed file")]
    NotSealed,
    /// It is of a form this version does not know.
    #[error("it is sealed in form {0}, which this version does not know; was it written by a newer one?")]
    Version(u8),
    /// No sealed file is so long: something is missing, or there is too much.
    #[error("it has a length that no sealed file has; it was cut or damaged")]
    Length,
    /// It was sealed for another address, tenant or generation, or its end was changed.
    #[error("it was not sealed for this place, or was changed")]
    Place,
    /// A chunk was changed, moved or cut off.
    #[error("chunk {0} is not what was written")]
    Chunk(u32),
    /// What was decrypted is not what the address says.
    #[error("its content does not have the digest of its address")]
    Digest,
    /// The cipher does not take it: a chunk or a file beyond its bounds.
    #[error("it is larger than a sealed file can be")]
    TooLarge,
    /// The disk or the memory does not give or take it.
    #[error("it cannot be read now")]
    Io(#[from] std::io::Error),
}

#[cfg(test)]
mod tests;
