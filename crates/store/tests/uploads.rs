//! An upload's digest and bytes do not depend on how it was cut into chunks.

use std::io::Read as _;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tenantry_store::limits::UPLOAD_PART_BYTES;
use tenantry_store::{Store, StoreConfig, UploadError};
use tenantry_types::Digest;

/// Lengths around the part size are the interesting ones.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        0_usize..5_000,
        UPLOAD_PART_BYTES - 2..UPLOAD_PART_BYTES + 3,
        2 * UPLOAD_PART_BYTES - 2..2 * UPLOAD_PART_BYTES + 3,
        UPLOAD_PART_BYTES..3 * UPLOAD_PART_BYTES,
    ]
}

#[test]
fn any_chunking_gives_the_same_artefact() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig { database_url: None, data_dir: folder.path().to_owned() };
    let store = runtime.block_on(Store::open(&config)).unwrap();
    let owner = |name: &str| runtime.block_on(store.create_tenant(&name.parse().unwrap(), false, 1)).unwrap().id;
    // Owners of their own, or bytes drawn twice would be there from the time before.
    let (fitting, refused) = (owner("fitting"), owner("refused"));
    let chunks = prop::collection::vec(prop_oneof![0_usize..10, 0..70_000_usize, 1_000_000..1_200_000_usize], 1..8);
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&(length(), chunks, any::<u8>(), any::<bool>()), |(length, chunks, salt, too_small)| {
            let data: Vec<u8> = (0..length).map(|at| (at as u8).wrapping_mul(31) ^ (at >> 9) as u8 ^ salt).collect();
            let limit_bytes = (length as u64).saturating_sub(u64::from(too_small));
            let owner = if too_small { refused } else { fitting };
            let outcome = runtime.block_on(async {
                let mut upload = store.begin_upload(owner, limit_bytes).await?;
                let mut rest = Bytes::from(data.clone());
                // The lengths again and again, and never so short that it takes for ever.
                for chunk in chunks.iter().cycle() {
                    if rest.is_empty() {
                        break;
                    }
                    let chunk = (*chunk).max(1 + length / 1_000).min(rest.len());
                    upload.write(rest.split_to(chunk)).await?;
                }
                upload.finish().await
            });
            if too_small && length > 0 {
                let is_too_large =
                    matches!(outcome, Err(UploadError::TooLarge { limit_bytes: limit }) if limit == limit_bytes);
                prop_assert!(is_too_large);
                prop_assert_eq!(runtime.block_on(store.artefact(owner, Digest::of(&data))).unwrap(), None);
                return Ok(());
            }
            let artefact = outcome.unwrap();
            prop_assert_eq!((artefact.digest, artefact.bytes), (Digest::of(&data), length as u64));
            let mut kept = Vec::new();
            let mut file = runtime.block_on(store.open_artefact(owner, artefact.digest)).unwrap();
            file.read_to_end(&mut kept).unwrap();
            prop_assert!(kept == data);
            Ok(())
        })
        .unwrap();
}
