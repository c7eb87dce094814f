//! Files at rest are encrypted.

use std::io::{Cursor, Read as _};
use std::sync::Arc;

use bytes::Bytes;
use sqlx::{AnyConnection, Connection as _};
use tenantry_store::master::{EnvironmentKey, FileKey, MasterKeyError, new_master_key};
use tenantry_store::{Encryption, OpenError, ReadError, Rekeyed, SealError, SealedFiles, Store, Thing, WriteError};
use tenantry_types::{Digest, TenantId};

use crate::support::{Place, Shared, model, optimised, ready, tenant, upload};

async fn read(store: &Store, owner: TenantId, digest: Digest) -> Result<Vec<u8>, ReadError> {
    let mut data = Vec::new();
    store.open_artefact(owner, digest).await?.read_to_end(&mut data).unwrap();
    Ok(data)
}

/// Bytes of which any sixteen in a row are there once.
fn distinct(bytes: usize, seed: u64) -> Vec<u8> {
    (0..bytes.div_ceil(16) as u64)
        .flat_map(|at| [at.to_be_bytes(), (seed ^ at).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()].concat())
        .take(bytes)
        .collect()
}

/// Whether any file under the data folder holds a run of these bytes.
fn is_on_disk(place: &Place, data: &[u8]) -> bool {
    fn search(folder: &std::path::Path, run: &[u8]) -> bool {
        std::fs::read_dir(folder).unwrap().map(Result::unwrap).any(|entry| {
            let path = entry.path();
            if path.is_dir() {
                return search(&path, run);
            }
            // A temporary file may go meanwhile.
            let content = std::fs::read(&path).unwrap_or_default();
            content.windows(run.len()).any(|window| window == run)
        })
    }
    let middle = data.len() / 2;
    search(&place.config.data_dir, &data[middle..middle + 16])
}

pub(crate) async fn leaves_nothing_of_a_file_on_the_disk_in_the_clear(backend: Shared) {
    let (place, store) = backend.encrypted_store().await;
    let acme = tenant(&store, "acme").await;
    let data = distinct((2 << 20) + 77, 1);
    let mut uploading = store.begin_upload(acme.id, u64::MAX).await.unwrap();
    for chunk in data.chunks(700_001) {
        uploading.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    assert!(place.raw_files().iter().any(|file| file.starts_with("staging/")));
    assert!(!is_on_disk(&place, &data[..2 << 20]), "what is on its way is encrypted, too");
    let artefact = uploading.finish().await.unwrap();
    assert_eq!((artefact.digest, artefact.bytes), (Digest::of(&data), data.len() as u64));
    let form = optimised(&store, acme.id, "k", &data[1..]).await;
    assert!(!is_on_disk(&place, &data));
    let mut expected = vec![
        format!("artefacts/{}/{}.sealed", acme.id, artefact.digest),
        format!("optimised/{}/{}/{}.sealed", acme.id, Digest::of(b"k"), form.digest),
    ];
    expected.sort_unstable();
    assert_eq!(place.raw_files(), expected);
    assert_eq!(store.artefact(acme.id, artefact.digest).await.unwrap(), Some(data.len() as u64));
    assert!(read(&store, acme.id, artefact.digest).await.unwrap() == data);
    let mut streamed = Vec::new();
    store.read_artefact(acme.id, artefact.digest).await.unwrap().read_to_end(&mut streamed).unwrap();
    assert!(streamed == data && store.clear_bytes() == (0, 0), "read without being held in memory");
    let mut read = Vec::new();
    store.open_optimised(acme.id, &form).await.unwrap().read_to_end(&mut read).unwrap();
    assert!(read == data[1..]);
    let files = SealedFiles { files: 2, bytes: 2 * data.len() as u64 - 1, plain: 0, behind: 0 };
    assert_eq!(store.sealed_files(acme.id).await.unwrap(), files);
}

pub(crate) async fn makes_one_first_key_however_many_begin(backend: Shared) {
    let (_place, store) = backend.encrypted_store().await;
    let acme = tenant(&store, "acme").await;
    let uploads = (0..8_u64).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { upload(&store, acme.id, &distinct(100, number)).await })
    });
    let mut artefacts = Vec::new();
    for uploading in uploads.collect::<Vec<_>>() {
        artefacts.push(uploading.await.unwrap());
    }
    assert_eq!(store.key_generations(acme.id).await.unwrap().len(), 1);
    for (number, artefact) in (0..).zip(artefacts) {
        assert!(read(&store, acme.id, artefact.digest).await.unwrap() == distinct(100, number));
    }
    assert!(store.begin_upload(TenantId::from_parts(1, [0; 10]), 1).await.is_err());
}

pub(crate) async fn follows_a_tenants_new_key_while_files_are_written(backend: Shared) {
    let (place, store) = backend.encrypted_store().await;
    let (acme, globex) = (tenant(&store, "acme").await, tenant(&store, "globex").await);
    let (old, theirs) = (distinct(3_000_000, 1), distinct(1_000, 2));
    let first = upload(&store, acme.id, &old).await;
    let foreign = upload(&store, globex.id, &theirs).await;
    let before = std::fs::read(place.path(&format!("artefacts/{}/{}", globex.id, foreign.digest))).unwrap();
    let mut running = store.begin_upload(acme.id, u64::MAX).await.unwrap();
    running.write(Bytes::from_static(b"begun under the old key")).await.unwrap();

    assert_eq!(store.rotate_data_key(acme.id, 5).await.unwrap(), 2);
    let second = upload(&store, acme.id, b"new").await;
    let sealed = store.sealed_files(acme.id).await.unwrap();
    assert_eq!((sealed.files, sealed.behind), (2, 1));
    let mut last = (SealedFiles::default(), SealedFiles::default());
    let done = store.rekey(acme.id, |through, all| last = (through, all)).await.unwrap();
    let expected = Rekeyed { files: 1, bytes: old.len() as u64, generations_left: 1, ..Rekeyed::default() };
    assert_eq!(done, expected, "an upload holds the old key");
    assert_eq!((last.0, last.1.files), (last.1, 2));

    let third = running.finish().await.unwrap();
    let done = store.rekey(acme.id, |_, _| {}).await.unwrap();
    assert_eq!((done.files, done.generations_gone, done.generations_left), (1, 1, 0));
    let kept: Vec<u32> = store.key_generations(acme.id).await.unwrap().iter().map(|key| key.generation).collect();
    assert_eq!(kept, [2]);
    assert_eq!(store.rekey(acme.id, |_, _| {}).await.unwrap(), Rekeyed::default(), "nothing is left to do");
    drop(store);

    let store = place.open().await;
    assert!(read(&store, acme.id, first.digest).await.unwrap() == old);
    assert_eq!(read(&store, acme.id, second.digest).await.unwrap(), b"new");
    assert_eq!(read(&store, acme.id, third.digest).await.unwrap(), b"begun under the old key");
    assert_eq!(std::fs::read(place.path(&format!("artefacts/{}/{}", globex.id, foreign.digest))).unwrap(), before);
    assert!(matches!(
        store.rotate_data_key(TenantId::from_parts(1, [0; 10]), 1).await,
        Err(WriteError::NotFound(Thing::Tenant))
    ));
}

pub(crate) async fn reads_what_was_there_before_and_encrypts_it(backend: Shared) {
    let place = backend.place().await;
    let store = Store::open(&place.config).await.unwrap();
    let acme = tenant(&store, "acme").await;
    let data = distinct(1_500_000, 1);
    let version = ready(&store, &model(&store, acme.id, "m").await, &data).await;
    let form = optimised(&store, acme.id, "k", b"a form").await;
    let lost = upload(&store, acme.id, b"to be damaged").await;
    assert!(is_on_disk(&place, &data));
    drop(store);

    let encrypted = async || Store::open_encrypted(&place.config, place.encryption(true)).await.unwrap();
    let store = encrypted().await;
    assert!(read(&store, acme.id, version.files[0].digest).await.unwrap() == data);
    assert_eq!(store.sealed_files(acme.id).await.unwrap().plain, 3);
    let damaged = place.config.data_dir.join(format!("artefacts/{}/{}", acme.id, lost.digest));
    std::fs::write(&damaged, b"to be damageD").unwrap();
    let wrong = read(&store, acme.id, lost.digest).await.unwrap_err();
    assert!(
        matches!(wrong, ReadError::Sealed(SealError::Digest)),
        "no other bytes are put in a file's place: {wrong:?}"
    );
    let done = store.rekey(acme.id, |_, _| {}).await.unwrap();
    assert_eq!((done.files, done.damaged), (2, 1));
    assert!(!is_on_disk(&place, &data));
    assert_eq!(place.raw_files().iter().filter(|file| file.ends_with(".sealed")).count(), 2);
    assert_eq!(place.raw_files().len(), 3);
    drop(store);
    let store = encrypted().await;
    assert!(read(&store, acme.id, version.files[0].digest).await.unwrap() == data);
    assert_eq!(std::io::read_to_string(store.open_optimised(acme.id, &form).await.unwrap()).unwrap(), "a form");
    store.delete_model(version.model).await.unwrap();
    assert_eq!(store.artefact(acme.id, version.files[0].digest).await.unwrap(), None);
}

pub(crate) async fn refuses_files_that_were_moved_changed_or_put_back(backend: Shared) {
    let (place, store) = backend.encrypted_store().await;
    let (acme, globex) = (tenant(&store, "acme").await, tenant(&store, "globex").await);
    let one = upload(&store, acme.id, b"one").await;
    let two = upload(&store, acme.id, b"two").await;
    let theirs = upload(&store, globex.id, b"one").await;
    let path = |owner: TenantId, digest: Digest| place.path(&format!("artefacts/{owner}/{digest}"));
    let good = std::fs::read(path(acme.id, one.digest)).unwrap();
    let refused = async |what: &str, content: Vec<u8>| {
        std::fs::write(path(acme.id, one.digest), content).unwrap();
        let error = read(&store, acme.id, one.digest).await.unwrap_err();
        assert!(matches!(error, ReadError::Sealed(_)), "{what}: {error:?}");
        assert!(!error.to_string().contains("ten_"), "{error}");
    };
    refused("another file of the tenant's", std::fs::read(path(acme.id, two.digest)).unwrap()).await;
    refused("another tenant's, with the same bytes", std::fs::read(path(globex.id, theirs.digest)).unwrap()).await;
    refused("cut", good[..good.len() - 1].to_vec()).await;
    refused("nothing", Vec::new()).await;
    let mut flipped = good.clone();
    flipped[50] ^= 1;
    refused("changed", flipped).await;
    std::fs::write(path(acme.id, one.digest), &good).unwrap();
    assert_eq!(read(&store, acme.id, one.digest).await.unwrap(), b"one");

    // From before a rekey, with the key that is gone.
    store.rotate_data_key(acme.id, 2).await.unwrap();
    store.rekey(acme.id, |_, _| {}).await.unwrap();
    std::fs::write(path(acme.id, one.digest), &good).unwrap();
    let gone = read(&store, acme.id, one.digest).await.unwrap_err();
    assert!(matches!(gone, ReadError::NotFound(Thing::DataKey)), "{gone:?}");
    assert_eq!(store.rekey(acme.id, |_, _| {}).await.unwrap().damaged, 1);
}

pub(crate) async fn ends_with_the_tenant(backend: Shared) {
    let (place, store) = backend.encrypted_store().await;
    let (acme, globex) = (tenant(&store, "acme").await, tenant(&store, "globex").await);
    let data = distinct(10_000, 1);
    let artefact = upload(&store, acme.id, &data).await;
    let theirs = upload(&store, globex.id, &data).await;
    store.rotate_data_key(acme.id, 2).await.unwrap();
    let file = place.path(&format!("artefacts/{}/{}", acme.id, artefact.digest));
    let backup = std::fs::read(&file).unwrap();
    let mut raw = AnyConnection::connect(&place.raw_url()).await.unwrap();
    let wrapped: Vec<String> = sqlx::query_scalar("SELECT wrapped FROM data_keys WHERE tenant_id = $1")
        .bind(acme.id.to_string())
        .fetch_all(&mut raw)
        .await
        .unwrap();
    raw.close().await.unwrap();
    assert_eq!(wrapped.len(), 2);

    store.delete_tenant(acme.id).await.unwrap();
    assert_eq!(store.key_generations(acme.id).await.unwrap(), []);
    assert!(!file.exists());
    // Whoever brings the file back has bytes without a key, the running server included.
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, backup).unwrap();
    let gone = read(&store, acme.id, artefact.digest).await.unwrap_err();
    assert!(matches!(gone, ReadError::NotFound(Thing::DataKey)), "{gone:?}");
    assert!(read(&store, globex.id, theirs.digest).await.unwrap() == data);
    if place.config.database_url.is_none() {
        for name in ["tenantry.sqlite", "tenantry.sqlite-wal"] {
            let content = std::fs::read(place.config.data_dir.join(name)).unwrap_or_default();
            for wrapped in &wrapped {
                let is_there = content.windows(wrapped.len()).any(|window| window == wrapped.as_bytes());
                assert!(!is_there, "{name} still holds a wrapped key");
            }
        }
    }
}

pub(crate) async fn refuses_another_master_key(backend: Shared) {
    let (place, store) = backend.encrypted_store().await;
    let acme = tenant(&store, "acme").await;
    let artefact = upload(&store, acme.id, b"x").await;
    drop(store);
    let refused = async |master_key: Encryption| match Store::open_encrypted(&place.config, master_key).await {
        Err(OpenError::MasterKey(error)) => error,
        other => panic!("{other:?}"),
    };
    let other = Arc::new(EnvironmentKey::new(&new_master_key().unwrap()).unwrap());
    let error = refused(Encryption { master_key: other, is_on: true }).await;
    assert!(matches!(&error, MasterKeyError::Unknown { wanted } if wanted.starts_with("file:")), "{error:?}");
    assert!(error.to_string().contains("`[encryption]`"), "{error}");
    let elsewhere = place.folder().join("not-there");
    let missing = Arc::new(FileKey::open(&elsewhere).unwrap());
    let error = refused(Encryption { master_key: missing, is_on: true }).await;
    assert!(matches!(error, MasterKeyError::Missing), "{error:?}");
    assert!(!elsewhere.exists(), "no new key is made where one is missing");
    // Without any, what is encrypted is not read, and that is said.
    let store = Store::open(&place.config).await.unwrap();
    let error = read(&store, acme.id, artefact.digest).await.unwrap_err();
    assert!(matches!(error, ReadError::Unavailable(_)), "{error:?}");
    drop(store);
    let store = place.open().await;
    assert_eq!(read(&store, acme.id, artefact.digest).await.unwrap(), b"x");
    // A wrapped key of another tenant in the place of one's own.
    let globex = tenant(&store, "globex").await;
    upload(&store, globex.id, b"x").await;
    drop(store);
    let mut raw = AnyConnection::connect(&place.raw_url()).await.unwrap();
    let both: Vec<String> =
        sqlx::query_scalar("SELECT wrapped FROM data_keys ORDER BY tenant_id").fetch_all(&mut raw).await.unwrap();
    let mut owners = [acme.id.to_string(), globex.id.to_string()];
    owners.sort_unstable();
    for (owner, wrapped) in owners.iter().zip(both.iter().rev()) {
        let swap = sqlx::query("UPDATE data_keys SET wrapped = $1 WHERE tenant_id = $2").bind(wrapped).bind(owner);
        swap.execute(&mut raw).await.unwrap();
    }
    raw.close().await.unwrap();
    assert!(matches!(place.try_open().await, Err(OpenError::MasterKey(MasterKeyError::Refused))));
}

pub(crate) async fn follows_a_new_master_key(backend: Shared) {
    let (place, store) = backend.encrypted_store().await;
    let mut artefacts = Vec::new();
    for name in ["acme", "globex", "initech"] {
        let owner = tenant(&store, name).await.id;
        artefacts.push((owner, upload(&store, owner, name.as_bytes()).await, name));
    }
    let before: Vec<_> =
        std::fs::read(place.path(&format!("artefacts/{}/{}", artefacts[0].0, artefacts[0].1.digest))).unwrap();
    let old = store.encryption().await.unwrap();
    assert_eq!((old.data_keys, old.behind, old.kind), (3, 0, Some("file")));
    let key_file = std::fs::read_to_string(place.master_key()).unwrap();

    let new = store.rotate_master_key().await.unwrap();
    assert_ne!(new, old.master_key);
    let late = tenant(&store, "late").await.id;
    upload(&store, late, b"late").await;
    assert_eq!(store.encryption().await.unwrap().behind, 3);
    let mut told = Vec::new();
    assert_eq!(store.rewrap(|done, all| told.push((done, all))).await.unwrap(), 3);
    assert_eq!(told, [(0, 3), (3, 3)]);
    let now = store.encryption().await.unwrap();
    assert_eq!((now.data_keys, now.behind, now.master_key), (4, 0, new));
    assert_eq!(store.rewrap(|_, _| {}).await.unwrap(), 0);
    let after = std::fs::read(place.path(&format!("artefacts/{}/{}", artefacts[0].0, artefacts[0].1.digest))).unwrap();
    assert!(before == after, "no file is written for it");
    drop(store);

    let store = place.open().await;
    for (owner, artefact, name) in &artefacts {
        assert_eq!(read(&store, *owner, artefact.digest).await.unwrap(), name.as_bytes());
    }
    drop(store);
    std::fs::write(place.master_key(), key_file).unwrap();
    assert!(matches!(place.try_open().await, Err(OpenError::MasterKey(MasterKeyError::Unknown { .. }))));
}

pub(crate) async fn holds_a_decrypted_file_once_and_only_while_it_is_used(backend: Shared) {
    let (_place, store) = backend.encrypted_store().await;
    let acme = tenant(&store, "acme").await;
    let data = distinct(1_000_000, 3);
    let artefact = upload(&store, acme.id, &data).await;
    assert_eq!(store.clear_bytes(), (0, 0));
    let opening = (0..4).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.open_artefact(acme.id, artefact.digest).await.unwrap() })
    });
    let mut open = Vec::new();
    for opened in opening.collect::<Vec<_>>() {
        open.push(opened.await.unwrap());
    }
    assert_eq!(store.clear_bytes(), (1_000_000, 1));
    // Each reads from its own position.
    let (mut one, mut other) = (open.pop().unwrap(), open.pop().unwrap());
    let mut half = vec![0; 500_000];
    one.read_exact(&mut half).unwrap();
    let mut whole = Vec::new();
    other.read_to_end(&mut whole).unwrap();
    assert!(whole == data && half == data[..500_000]);
    let shared = one.into_shared();
    drop((open, other));
    assert_eq!(store.clear_bytes().1, 1);
    drop(shared);
    assert_eq!(store.clear_bytes(), (0, 0));
}

pub(crate) async fn can_be_left_off(backend: Shared) {
    let (place, store) = backend.encrypted_store().await;
    let acme = tenant(&store, "acme").await;
    let sealed = upload(&store, acme.id, b"sealed").await;
    drop(store);
    let store = Store::open_encrypted(&place.config, place.encryption(false)).await.unwrap();
    let plain = store.put_optimised(acme.id, "k", Cursor::new(b"plain".to_vec()), 10).await.unwrap();
    assert_eq!(read(&store, acme.id, sealed.digest).await.unwrap(), b"sealed");
    assert_eq!(std::io::read_to_string(store.open_optimised(acme.id, &plain).await.unwrap()).unwrap(), "plain");
    let counted = store.sealed_files(acme.id).await.unwrap();
    assert_eq!((counted.files, counted.plain), (2, 1));
    assert!(matches!(store.rekey(acme.id, |_, _| {}).await, Err(WriteError::WrongState(_))));
}
