//! Uploads, artefacts, optimised forms and their removal.

use std::io::{Cursor, Read as _, Write as _};

use bytes::Bytes;
use tenantry_store::limits::{MAX_UPLOADS, UNREFERENCED_MS};
use tenantry_store::{Model, NewVersion, Optimised, ReadError, Store, Swept, Thing, UploadError, WriteError};
use tenantry_types::{Digest, TenantId};

use crate::support::{Shared, file, model, optimised, registration, tenant, upload, version, version_with};

async fn read(store: &Store, owner: TenantId, digest: Digest) -> Vec<u8> {
    let mut data = Vec::new();
    store.open_artefact(owner, digest).await.unwrap().read_to_end(&mut data).unwrap();
    data
}

pub(crate) async fn are_kept_by_owner_and_digest(backend: Shared) {
    let (place, store) = backend.store().await;
    let (acme, globex) = (tenant(&store, "acme").await, tenant(&store, "globex").await);
    let artefact = upload(&store, acme.id, b"bytes").await;
    assert_eq!((artefact.digest, artefact.bytes), (Digest::of(b"bytes"), 5));
    assert_eq!(store.artefact(acme.id, artefact.digest).await.unwrap(), Some(5));
    assert_eq!(read(&store, acme.id, artefact.digest).await, b"bytes");
    // Knowing a digest is not having the bytes.
    assert_eq!(store.artefact(globex.id, artefact.digest).await.unwrap(), None);
    let foreign = store.open_artefact(globex.id, artefact.digest).await.unwrap_err();
    assert!(matches!(foreign, ReadError::NotFound(Thing::Artefact)), "{foreign:?}");

    let opened = store.open_artefact(acme.id, artefact.digest).await.unwrap();
    assert!((&*opened.into_shared()).write_all(b"x").is_err(), "an artefact is opened for reading only");
    assert_eq!(upload(&store, acme.id, b"bytes").await, artefact);
    let empty = upload(&store, acme.id, b"").await;
    assert_eq!(read(&store, acme.id, empty.digest).await, b"");
    let mut expected =
        vec![format!("artefacts/{}/{}", acme.id, artefact.digest), format!("artefacts/{}/{}", acme.id, empty.digest)];
    expected.sort_unstable();
    assert_eq!(place.files(), expected);
}

pub(crate) async fn are_visible_whole_or_not_at_all(backend: Shared) {
    let (place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let data = vec![7_u8; 3 << 20];
    let mut running = store.begin_upload(acme.id, u64::MAX).await.unwrap();
    running.write(Bytes::from(data.clone())).await.unwrap();
    assert_eq!(running.taken_bytes(), 3 << 20);
    assert_eq!(store.artefact(acme.id, Digest::of(&data)).await.unwrap(), None);
    drop(running);

    let mut large = store.begin_upload(acme.id, 10).await.unwrap();
    large.write(Bytes::from_static(b"0123456789")).await.unwrap();
    let refused = large.write(Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(refused, UploadError::TooLarge { limit_bytes: 10 }), "{refused:?}");
    drop(large);
    let form = store.put_optimised(acme.id, "k", Cursor::new(data), 1_000).await.unwrap_err();
    assert!(matches!(form, UploadError::TooLarge { limit_bytes: 1_000 }), "{form:?}");

    // Dropped uploads are removed in the background; opening again waits for nothing and still finds the area clear.
    drop(store);
    let store = place.open().await;
    assert_eq!(place.files(), [""; 0]);
    assert_eq!(store.artefact(acme.id, Digest::of(b"0123456789")).await.unwrap(), None);
}

pub(crate) async fn of_a_deleted_tenant_are_not_taken(backend: Shared) {
    let (place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let mut running = store.begin_upload(acme.id, 100).await.unwrap();
    running.write(Bytes::from_static(b"x")).await.unwrap();
    store.delete_tenant(acme.id).await.unwrap();
    let refused = running.finish().await.unwrap_err();
    assert!(matches!(refused, UploadError::OwnerGone), "{refused:?}");
    assert_eq!(place.files(), [""; 0]);
}

pub(crate) async fn go_with_the_last_version_that_refers_to_them(backend: Shared) {
    let (_place, store) = backend.store().await;
    let (acme, globex) = (tenant(&store, "acme").await, tenant(&store, "globex").await);
    let (mine, theirs) = (model(&store, acme.id, "m").await, model(&store, globex.id, "m").await);
    let first = version_with(&store, &mine, b"same", false).await;
    let second = version_with(&store, &mine, b"same", false).await;
    version(&store, &theirs, b"same").await;
    let form = optimised(&store, acme.id, "k", b"form").await;
    for version in [&first, &second] {
        store.finish_version(version.id, &registration("x"), Some(&form)).await.unwrap();
    }
    let digest = Digest::of(b"same");
    let open = store.open_artefact(acme.id, digest).await.unwrap();
    store.delete_version(first.id).await.unwrap();
    assert_eq!(store.artefact(acme.id, digest).await.unwrap(), Some(4));
    store.open_optimised(acme.id, &form).await.unwrap();
    store.delete_version(second.id).await.unwrap();
    assert_eq!(store.artefact(acme.id, digest).await.unwrap(), None);
    assert!(matches!(store.open_optimised(acme.id, &form).await, Err(ReadError::NotFound(Thing::Artefact))));
    // Who had it open still reads it; who owns the same bytes keeps them.
    assert_eq!(open.len_bytes().unwrap(), 4);
    assert_eq!(store.artefact(globex.id, digest).await.unwrap(), Some(4));
}

pub(crate) async fn nothing_refers_to_are_swept_after_a_day(backend: Shared) {
    let (place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let mine = model(&store, acme.id, "m").await;
    let used = version(&store, &mine, b"used").await;
    let form = optimised(&store, acme.id, "k", b"used form").await;
    store.finish_version(used.id, &registration("x"), Some(&form)).await.unwrap();
    let unused = upload(&store, acme.id, b"unused").await;
    optimised(&store, acme.id, "k", b"unused form").await;
    let foreign_folder = place.config.data_dir.join("artefacts/notes");
    std::fs::create_dir(&foreign_folder).unwrap();
    std::fs::write(foreign_folder.join("x"), b"the operator's").unwrap();

    let newest = std::fs::metadata(place.path(&format!("artefacts/{}/{}", acme.id, unused.digest)));
    let written = newest.unwrap().modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    let written_ms = i64::try_from(written.as_millis()).unwrap();
    assert_eq!(store.sweep(written_ms).await.unwrap(), Swept::default());
    // A clock that went back removes nothing either.
    assert_eq!(store.sweep(0).await.unwrap(), Swept::default());
    let swept = store.sweep(written_ms + 2 * UNREFERENCED_MS).await.unwrap();
    assert_eq!(swept, Swept { files: 2, bytes: 6 + 11 });
    let mut expected = vec![
        format!("artefacts/{}/{}", acme.id, Digest::of(b"used")),
        "artefacts/notes/x".to_owned(),
        format!("optimised/{}/{}/{}", acme.id, Digest::of(b"k"), form.digest),
    ];
    expected.sort_unstable();
    assert_eq!(place.files(), expected);
    let again = NewVersion { files: vec![file("model.onnx", unused)], ..NewVersion::default() };
    assert!(store.create_version(mine.id, again, 1).await.is_err(), "a version of swept bytes would be half a version");
}

pub(crate) async fn optimised_forms_never_replace_each_other(backend: Shared) {
    let (_place, store) = backend.store().await;
    let (acme, globex) = (tenant(&store, "acme").await, tenant(&store, "globex").await);
    // The engine may write other bytes for the same key; who refers to the first ones must go on finding them.
    let one = optimised(&store, acme.id, "k", b"one").await;
    let other = optimised(&store, acme.id, "k", b"other one").await;
    for (form, data) in [(&one, "one"), (&other, "other one")] {
        let mut found = String::new();
        store.open_optimised(acme.id, form).await.unwrap().read_to_string(&mut found).unwrap();
        assert_eq!(found, data);
        assert_eq!((form.digest, form.bytes), (Digest::of(data.as_bytes()), data.len() as u64));
    }
    assert!(store.open_optimised(globex.id, &one).await.is_err());
}

pub(crate) async fn optimised_forms_of_one_key_are_kept_once(backend: Shared) {
    let (place, store) = backend.store().await;
    let (acme, globex) = (tenant(&store, "acme").await, tenant(&store, "globex").await);
    let (one, two) = (model(&store, acme.id, "one").await, model(&store, acme.id, "two").await);
    let theirs = model(&store, globex.id, "one").await;
    let finish = async |model: &Model, key: &str, data: &[u8]| {
        let created = version_with(&store, model, b"same", false).await;
        let form = optimised(&store, model.owner, key, data).await;
        store.finish_version(created.id, &registration("x"), Some(&form)).await.unwrap()
    };
    let kept = |owner: TenantId| {
        let prefix = format!("optimised/{owner}/");
        place.files().iter().filter(|file| file.starts_with(&prefix)).count()
    };
    let first = finish(&one, "k", b"form").await;
    let second = finish(&two, "k", b"the same, written otherwise").await;
    let third = finish(&one, "another key", b"form").await;
    let foreign = finish(&theirs, "k", b"of another owner").await;
    let form = first.optimised.clone().unwrap();
    assert_eq!(form.digest, Digest::of(b"form"));
    assert_eq!(second.optimised.as_ref(), Some(&form));
    assert_eq!(store.version(second.id).await.unwrap(), second);
    assert_eq!(third.optimised.unwrap().key, "another key");
    assert_eq!(foreign.optimised.unwrap().digest, Digest::of(b"of another owner"));
    assert_eq!((kept(acme.id), kept(globex.id)), (2, 1));

    store.delete_version(first.id).await.unwrap();
    let mut found = String::new();
    store.open_optimised(acme.id, &form).await.unwrap().read_to_string(&mut found).unwrap();
    assert_eq!(found, "form");
    // One that is lost is not handed on, and one that is not there is not named.
    let lost = place.path(&format!("optimised/{}/{}/{}", acme.id, Digest::of(b"k"), form.digest));
    std::fs::remove_file(&lost).unwrap();
    let fourth = finish(&one, "k", b"made again").await;
    assert_eq!(fourth.optimised.unwrap().digest, Digest::of(b"made again"));
    let fifth = version(&store, &one, b"same").await;
    let nowhere = Optimised { key: "nowhere".to_owned(), ..form };
    let refused = store.finish_version(fifth.id, &registration("x"), Some(&nowhere)).await.unwrap_err();
    assert!(matches!(refused, WriteError::NotFound(Thing::Artefact)), "{refused:?}");
    assert_eq!(store.version(fifth.id).await.unwrap(), fifth);
}

pub(crate) async fn uploads_are_bounded(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let mut running = Vec::new();
    for _ in 0..MAX_UPLOADS {
        running.push(store.begin_upload(acme.id, 10).await.unwrap());
    }
    assert!(matches!(store.begin_upload(acme.id, 10).await, Err(UploadError::Busy)));
    running.pop();
    store.begin_upload(acme.id, 10).await.unwrap();
}
