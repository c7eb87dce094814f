//! Pre- and post-processing steps as plain functions: bytes of a client's media in, tensors out, and back.
//!
//! Each module does for one family of models exactly what its authors' own Python package does; the references its
//! tests compare with were made by those packages (`tests/golden/generate.py`). Nothing here does IO: files, labels
//! and tokenizers come in as bytes. In production these steps run only inside a worker, because they read what a
//! tenant sent; the demo and the client's helpers run them on data of their own.
#![forbid(unsafe_code)]

pub mod file_type;
pub mod picture;
pub mod sentence;
pub mod speech;

#[cfg(test)]
mod testing;
