//! Opening a store: again, twice, with the wrong database.

use tenantry_store::{NewKey, OpenError, Role, Store, StoreConfig};

use crate::support::{Shared, model, ready, tenant};

pub(crate) async fn again_finds_everything(backend: Shared) {
    let (place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    store
        .create_key(acme.id, NewKey { label: "k".to_owned(), expires_ms: Some(9), ..NewKey::of(Role::Admin) }, 1)
        .await
        .unwrap();
    let mine = model(&store, acme.id, "m").await;
    let version = ready(&store, &mine, b"x").await;
    let before = store.catalogue().await.unwrap();
    store.close().await;
    assert!(store.catalogue().await.is_err());
    drop(store);

    let store = Store::open(&place.config).await.unwrap();
    assert_eq!(store.catalogue().await.unwrap(), before);
    assert_eq!(store.artefact(acme.id, version.files[0].digest).await.unwrap(), Some(1));
}

pub(crate) async fn is_for_one_process_at_a_time(backend: Shared) {
    let (place, store) = backend.store().await;
    let clone = store.clone();
    drop(store);
    let second = Store::open(&place.config).await.unwrap_err();
    assert!(matches!(second, OpenError::InUse), "{second:?}");
    drop(clone);
    Store::open(&place.config).await.unwrap();
}

pub(crate) async fn with_another_database_is_refused(backend: Shared) {
    let (place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let mine = model(&store, acme.id, "m").await;
    ready(&store, &mine, b"x").await;
    drop(store);
    let files = place.files();

    // An empty database, which would have every artefact swept away.
    let fresh = backend.place().await;
    let fresh_url = fresh.config.database_url.unwrap_or_else(|| {
        std::fs::create_dir_all(&fresh.config.data_dir).unwrap();
        format!("sqlite://{}?mode=rwc", fresh.config.data_dir.join("other.sqlite").display())
    });
    let wrong = StoreConfig { database_url: Some(fresh_url), ..place.config.clone() };
    let refused = Store::open(&wrong).await.unwrap_err();
    assert!(matches!(refused, OpenError::Mismatch), "{refused:?}");
    // The other way round: the database of one folder with the artefacts of another.
    let (other_place, other) = backend.store().await;
    let owner = tenant(&other, "acme").await;
    ready(&other, &model(&other, owner.id, "m").await, b"y").await;
    drop(other);
    let wrong = StoreConfig { database_url: Some(other_place.raw_url()), ..place.config.clone() };
    assert!(matches!(Store::open(&wrong).await, Err(OpenError::Mismatch)));

    let store = Store::open(&place.config).await.unwrap();
    assert_eq!(place.files(), files);
    assert_eq!(store.catalogue().await.unwrap().versions.len(), 1);
    drop(store);
    let unknown = StoreConfig { database_url: Some("mysql://localhost/x".to_owned()), ..place.config.clone() };
    assert!(matches!(Store::open(&unknown).await, Err(OpenError::Scheme)));
}

/// Several servers may start on one Postgres at once, each with its own folder.
pub(crate) async fn at_the_same_time_migrates_once(backend: Shared) {
    let place = backend.place().await;
    // On SQLite each folder has its own database, so there they only must not get in each other's way.
    let folders: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let opening: Vec<_> = folders
        .iter()
        .map(|folder| StoreConfig { data_dir: folder.path().to_owned(), ..place.config.clone() })
        .map(|config| tokio::spawn(async move { Store::open(&config).await }))
        .collect();
    let mut opened = Vec::new();
    for task in opening {
        opened.push(task.await.unwrap().unwrap());
    }
    let creating: Vec<_> = opened
        .into_iter()
        .map(|store| tokio::spawn(async move { store.create_tenant(&"acme".parse().unwrap(), false, 1).await.is_ok() }))
        .collect();
    let mut created = 0;
    for task in creating {
        created += usize::from(task.await.unwrap());
    }
    assert_eq!(created, if place.config.database_url.is_some() { 1 } else { 4 });
    for folder in folders {
        let config = StoreConfig { data_dir: folder.path().to_owned(), ..place.config.clone() };
        Store::open(&config).await.unwrap();
    }
}
