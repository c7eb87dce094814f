use std::io::{Read as _, Write as _};
use std::sync::Arc;

use proptest::prelude::*;
use tenantry_types::{Digest, TenantId};

use super::format::{CHUNK_BYTES, HEADER_BYTES, TAG_BYTES, content_bytes, sealed_bytes};
use super::{SealError, Sealed, Sealer, memory};
use crate::data_keys::DataKey;
use crate::master::SecretKey;

const ADDRESS: &str = "artefacts/ten_x/abc";

fn owner(number: u8) -> TenantId {
    TenantId::from_parts(1, [number; 10])
}

fn key(generation: u32, byte: u8) -> Arc<DataKey> {
    Arc::new(DataKey { generation, secret: SecretKey::new(&[byte; 32]) })
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at as u8).wrapping_mul(31) ^ (at >> 9) as u8).collect()
}

fn seal_with(data: &[u8], key: &Arc<DataKey>, owner: TenantId, salt: u8, address: &str) -> Vec<u8> {
    let mut sealer = Sealer::new(Arc::clone(key), owner, [salt; 32]).unwrap();
    let mut sealed = sealer.header().to_vec();
    let mut chunks: Vec<&[u8]> = data.chunks(CHUNK_BYTES).collect();
    if chunks.is_empty() {
        chunks.push(b"");
    }
    let last = chunks.len() - 1;
    for (number, chunk) in chunks.into_iter().enumerate() {
        let mut chunk = chunk.to_vec();
        sealer.chunk(&mut chunk, number == last).unwrap();
        sealed.extend(chunk);
    }
    sealed.extend(sealer.end(address, data.len() as u64).unwrap());
    sealed
}

fn seal(data: &[u8]) -> Vec<u8> {
    seal_with(data, &key(1, 1), owner(1), 9, ADDRESS)
}

fn open_with(sealed: &[u8], key: &DataKey, owner: TenantId, address: &str) -> Result<Vec<u8>, SealError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(sealed).unwrap();
    let mut reader = Sealed::read(file)?.reader(key, owner, address)?;
    let mut content = Vec::new();
    while let Some(chunk) = reader.chunk()? {
        content.extend_from_slice(chunk);
    }
    Ok(content)
}

fn open(sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    open_with(sealed, &key(1, 1), owner(1), ADDRESS)
}

/// Lengths around the chunk's are the interesting ones.
const LENGTHS: [usize; 8] =
    [0, 1, 1_000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 7];

#[test]
fn every_length_comes_back_and_shows_nothing() {
    for length in LENGTHS {
        let data = content(length);
        let sealed = seal(&data);
        assert_eq!(sealed.len() as u64, sealed_bytes(length as u64));
        assert_eq!(content_bytes(sealed.len() as u64), Some(length as u64));
        assert!(open(&sealed).unwrap() == data);
        if length > 64 {
            assert!(!sealed.windows(16).any(|window| window == &data[32..48]));
        }
    }
    // No length is that of two contents, and those between are none.
    let bare = sealed_bytes(0);
    assert!((0..bare).all(|bytes| content_bytes(bytes).is_none()));
    let two = sealed_bytes(CHUNK_BYTES as u64) + 1;
    assert!((two..two + TAG_BYTES as u64).all(|bytes| content_bytes(bytes).is_none()));
}

#[test]
fn the_same_bytes_are_never_sealed_alike() {
    let (one, other) = (seal(&content(100)), seal_with(&content(100), &key(1, 1), owner(1), 8, ADDRESS));
    assert_ne!(one[HEADER_BYTES..], other[HEADER_BYTES..]);
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let sealed = seal(&content(300));
    for at in 0..sealed.len() {
        for bit in [0, 7] {
            let mut changed = sealed.clone();
            changed[at] ^= 1 << bit;
            assert!(open(&changed).is_err(), "byte {at}, bit {bit}");
        }
    }
    let large = seal(&content(2 * CHUNK_BYTES + 5));
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&(0..large.len(), 0..8_u8), |(at, bit)| {
            let mut changed = large.clone();
            changed[at] ^= 1 << bit;
            prop_assert!(open(&changed).is_err(), "byte {}, bit {}", at, bit);
            Ok(())
        })
        .unwrap();
}

#[test]
fn chunks_cannot_be_cut_off_moved_repeated_or_added() {
    let sealed = seal(&content(3 * CHUNK_BYTES));
    let chunk = CHUNK_BYTES + TAG_BYTES;
    let (header, rest) = sealed.split_at(HEADER_BYTES);
    let (chunks, end) = rest.split_at(3 * chunk);
    let part = |number: usize| &chunks[number * chunk..(number + 1) * chunk];
    let put = |parts: &[&[u8]]| [&[header], parts, &[end]].concat().concat();
    assert!(open(&put(&[part(0), part(1), part(2)])).is_ok());
    for wrong in [
        vec![part(1), part(0), part(2)],
        vec![part(0), part(2), part(1)],
        vec![part(0), part(1)],
        vec![part(1), part(2)],
        vec![part(0), part(1), part(2), part(2)],
        vec![part(0), part(1), part(1), part(2)],
    ] {
        assert!(open(&put(&wrong)).is_err());
    }
    for kept in [0, 1, HEADER_BYTES, sealed.len() - TAG_BYTES, sealed.len() - 1] {
        assert!(open(&sealed[..kept]).is_err(), "{kept}");
    }
    assert!(open(&[sealed.as_slice(), b"x"].concat()).is_err());
}

#[test]
fn a_file_is_of_one_tenant_one_generation_one_key_and_one_place() {
    let data = content(100);
    let sealed = seal(&data);
    let place = |outcome: Result<Vec<u8>, SealError>| matches!(outcome, Err(SealError::Place));
    assert!(place(open_with(&sealed, &key(1, 1), owner(2), ADDRESS)));
    assert!(place(open_with(&sealed, &key(1, 2), owner(1), ADDRESS)));
    assert!(place(open_with(&sealed, &key(1, 1), owner(1), "artefacts/ten_x/abd")));
    // A file that says it is of another generation, even where both have the same key.
    let other = seal_with(&data, &key(2, 1), owner(1), 9, ADDRESS);
    let forged = [&other[..HEADER_BYTES], &sealed[HEADER_BYTES..]].concat();
    assert!(place(open_with(&forged, &key(2, 1), owner(1), ADDRESS)));
    // A chunk out of another file of the same tenant, at the same place in it.
    let another = seal_with(&data, &key(1, 1), owner(1), 8, ADDRESS);
    let end = sealed.len() - TAG_BYTES;
    let mixed = [&sealed[..HEADER_BYTES], &another[HEADER_BYTES..end], &sealed[end..]].concat();
    assert!(matches!(open(&mixed), Err(SealError::Chunk(0))));
}

#[test]
fn what_is_no_sealed_file_is_said_to_be_none() {
    assert!(matches!(open(b""), Err(SealError::NotSealed)));
    assert!(matches!(open(&content(500)), Err(SealError::NotSealed)));
    let mut newer = seal(b"x");
    newer[7] = 2;
    assert!(matches!(open(&newer), Err(SealError::Version(2))));
}

#[test]
fn it_reads_like_any_file_and_stops_at_the_first_wrong_chunk() {
    let data = content(2 * CHUNK_BYTES + 5);
    let mut sealed = seal(&data);
    let reader = |sealed: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(sealed).unwrap();
        Sealed::read(file).unwrap().reader(&key(1, 1), owner(1), ADDRESS).unwrap()
    };
    let mut read = Vec::new();
    reader(&sealed).read_to_end(&mut read).unwrap();
    assert!(read == data);
    sealed[HEADER_BYTES + CHUNK_BYTES + TAG_BYTES + 3] ^= 1;
    let mut damaged = reader(&sealed);
    let mut read = Vec::new();
    let error = damaged.read_to_end(&mut read).unwrap_err();
    assert!(read == data[..CHUNK_BYTES], "{} bytes", read.len());
    assert!(matches!(error.downcast::<SealError>(), Ok(SealError::Chunk(1))));
}

#[test]
fn memory_is_sealed_checked_and_for_reading_only() {
    let data = content(CHUNK_BYTES + 10);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&seal(&data)).unwrap();
    let reader = || Sealed::read(file.try_clone().unwrap()).unwrap().reader(&key(1, 1), owner(1), ADDRESS).unwrap();
    let wrong = memory::decrypt(reader(), data.len() as u64, Digest::of(b"something else"));
    assert!(matches!(wrong, Err(SealError::Digest)));
    let mut clear = memory::decrypt(reader(), data.len() as u64, Digest::of(&data)).unwrap();
    let seals = rustix::fs::fcntl_get_seals(&clear).unwrap();
    use rustix::fs::SealFlags;
    assert!(seals.contains(SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL));
    assert!(clear.write_all(b"x").is_err() && clear.set_len(1).is_err());
    let again = std::fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", {
        use std::os::fd::AsRawFd as _;
        clear.as_raw_fd()
    }));
    assert!(again.is_err() || again.unwrap().write_all(b"x").is_err());
    let mut read = Vec::new();
    clear.read_to_end(&mut read).unwrap();
    assert!(read == data);

    let mut plain = tempfile::tempfile().unwrap();
    plain.write_all(b"from before").unwrap();
    assert!(matches!(memory::copy(&plain, Digest::of(b"x")), Err(SealError::Digest)));
    let copied = memory::copy(&plain, Digest::of(b"from before")).unwrap();
    assert_eq!(std::io::read_to_string(copied).unwrap(), "from before");
}
