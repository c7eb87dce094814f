//! Tenants and their keys.

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};
use tenantry_store::limits::MAX_KEYS_PER_TENANT;
use tenantry_store::{KeySecret, ReadError, Role, Store, TenantMinimum, TenantMinimumChange, Thing, WriteError};
use tenantry_types::{Digest, ErrorCode, KeyId, Level, ServiceError, TenantId};

use crate::support::{Shared, model, optimised, ready, registration, tenant, upload, version};

pub(crate) async fn have_unique_names_and_are_listed_oldest_first(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = store.create_tenant(&"acme".parse().unwrap(), false, 10).await.unwrap();
    let platform = store.create_tenant(&"platform".parse().unwrap(), true, 9).await.unwrap();
    assert_eq!(acme.created_ms, 10);
    assert!(platform.operator && !acme.operator);
    assert_eq!(store.tenants().await.unwrap(), [platform.clone(), acme.clone()]);
    assert_eq!(store.tenant_by_name(&acme.name).await.unwrap(), acme);
    assert_eq!(store.tenant(platform.id).await.unwrap(), platform);

    let again = store.create_tenant(&acme.name, false, 11).await.unwrap_err();
    assert!(matches!(again, WriteError::AlreadyExists(Thing::Tenant)), "{again:?}");
    assert_eq!(ServiceError::from(again).code, ErrorCode::AlreadyExists);
    let unknown = store.tenant_by_name(&"globex".parse().unwrap()).await.unwrap_err();
    assert!(matches!(unknown, ReadError::NotFound(Thing::Tenant)));
    assert!(matches!(
        store.delete_tenant(TenantId::from_parts(1, [0; 10])).await,
        Err(WriteError::NotFound(Thing::Tenant))
    ));
}

pub(crate) async fn have_two_minimums_of_which_the_higher_counts(backend: Shared) {
    let (place, store) = backend.store().await;
    let (acme, globex) = (tenant(&store, "acme").await, tenant(&store, "globex").await);
    assert_eq!((acme.minimum, acme.minimum.level()), (TenantMinimum::default(), Level::None));
    let platform = TenantMinimumChange { platform: Some(Level::Isolated), own: None };
    store.set_tenant_minimum(acme.id, platform).await.unwrap();
    let own = TenantMinimumChange { platform: None, own: Some(Level::Full) };
    let raised = store.set_tenant_minimum(acme.id, own).await.unwrap();
    let expected = TenantMinimum { platform: Level::Isolated, own: Level::Full };
    assert_eq!((raised.minimum, raised.minimum.level()), (expected, Level::Full));
    let own = TenantMinimumChange { platform: None, own: Some(Level::None) };
    assert_eq!(store.set_tenant_minimum(acme.id, own).await.unwrap().minimum.level(), Level::Isolated);
    store.close().await;
    drop(store);

    let store = Store::open(&place.config).await.unwrap();
    let kept = TenantMinimum { platform: Level::Isolated, own: Level::None };
    assert_eq!(store.tenant(acme.id).await.unwrap().minimum, kept);
    let catalogue = store.catalogue().await.unwrap();
    assert_eq!(catalogue.tenants.iter().find(|tenant| tenant.id == acme.id).unwrap().minimum, kept);
    assert_eq!(store.tenant(globex.id).await.unwrap(), globex);
    let nobody = store.set_tenant_minimum(TenantId::from_parts(1, [0; 10]), own).await.unwrap_err();
    assert!(matches!(nobody, WriteError::NotFound(Thing::Tenant)), "{nobody:?}");
}

pub(crate) async fn take_everything_with_them_when_deleted(backend: Shared) {
    let (place, store) = backend.store().await;
    let keep = tenant(&store, "keep").await;
    let kept = ready(&store, &model(&store, keep.id, "m").await, b"kept").await;
    let before = store.catalogue().await.unwrap();
    let files_before = place.files();

    let gone = tenant(&store, "gone").await;
    store.create_key(gone.id, Role::Admin, "k", None, 5).await.unwrap();
    let mine = model(&store, gone.id, "m").await;
    let first = version(&store, &mine, b"kept").await;
    let form = optimised(&store, gone.id, "key", b"optimised").await;
    store.finish_version(first.id, &registration("x"), Some(&form)).await.unwrap();
    store.set_alias(mine.id, &"stable".parse().unwrap(), 1).await.unwrap();
    upload(&store, gone.id, b"never used").await;
    assert_eq!(place.files().len(), files_before.len() + 3);

    store.delete_tenant(gone.id).await.unwrap();
    let after = store.catalogue().await.unwrap();
    assert_eq!(tenantry_store::Catalogue { revision: before.revision, ..after }, before);
    assert_eq!(place.files(), files_before);
    assert!(!place.config.data_dir.join("artefacts").join(gone.id.to_string()).exists());
    assert_eq!(store.artefact(keep.id, kept.files[0].digest).await.unwrap(), Some(4));
    assert!(matches!(store.version(first.id).await, Err(ReadError::NotFound(Thing::Version))));
    // The name is free again, for somebody else.
    assert_ne!(tenant(&store, "gone").await.id, gone.id);
}

pub(crate) async fn keys_open_by_their_secret_until_revoked_or_expired(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let globex = tenant(&store, "globex").await;
    let platform = store.create_tenant(&"platform".parse().unwrap(), true, 1).await.unwrap();
    let (key, secret) = store.create_key(acme.id, Role::Invoker, "laptop", Some(2_000), 1_000).await.unwrap();
    let (other, other_secret) = store.create_key(acme.id, Role::Admin, "", None, 1_001).await.unwrap();
    assert_ne!(secret, other_secret);
    assert_eq!(store.keys(acme.id).await.unwrap(), [key.clone(), other.clone()]);
    assert_eq!(store.keys(globex.id).await.unwrap(), []);

    let (id, hash) = KeySecret::parse(&secret).unwrap();
    assert_eq!(id, key.id);
    assert!(key.matches(&hash) && !other.matches(&hash));
    assert!(key.is_live(1_999) && !key.is_live(2_000));

    let foreign = store.revoke_key(globex.id, key.id, 1_500).await.unwrap_err();
    assert!(matches!(foreign, WriteError::NotFound(Thing::Key)), "{foreign:?}");
    let revoked = store.revoke_key(acme.id, key.id, 1_500).await.unwrap();
    assert_eq!(revoked.revoked_ms, Some(1_500));
    assert!(!revoked.is_live(1_600));
    assert_eq!(store.revoke_key(acme.id, key.id, 1_700).await.unwrap(), revoked);
    assert_eq!(store.keys(acme.id).await.unwrap(), [revoked, other]);

    let wrong = store.create_key(acme.id, Role::PlatformAdmin, "", None, 1).await.unwrap_err();
    assert!(matches!(wrong, WriteError::Invalid(_)), "{wrong:?}");
    store.create_key(platform.id, Role::PlatformAdmin, "", None, 1).await.unwrap();
    let nobody = store.create_key(TenantId::from_parts(1, [0; 10]), Role::Admin, "", None, 1).await.unwrap_err();
    assert!(matches!(nobody, WriteError::NotFound(Thing::Tenant)));
    let unknown = store.revoke_key(acme.id, KeyId::from_parts(1, [0; 10]), 1).await.unwrap_err();
    assert!(matches!(unknown, WriteError::NotFound(Thing::Key)));
    assert!(matches!(store.create_key(acme.id, Role::Admin, "a\nb", None, 1).await, Err(WriteError::Invalid(_))));
}

pub(crate) async fn keys_are_bounded_and_dead_ones_make_room(backend: Shared) {
    let (place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    // All but one beside the store, at once: a thousand commits would only take time. One in the middle expires.
    let rows: Vec<String> = (1_u64..MAX_KEYS_PER_TENANT as u64)
        .map(|at| {
            let (id, secret) = (KeyId::from_parts(at, [0; 10]), Digest::of(&at.to_be_bytes()));
            let expires_ms = if at == 500 { "5000" } else { "NULL" };
            format!("('{id}', '{}', 'invoker', '', '{secret}', {at}, {expires_ms}, NULL)", acme.id)
        })
        .collect();
    let mut raw = AnyConnection::connect(&place.raw_url()).await.unwrap();
    raw.execute(AssertSqlSafe(format!("INSERT INTO api_keys VALUES {}", rows.join(", ")))).await.unwrap();
    raw.close().await.unwrap();
    store.create_key(acme.id, Role::Invoker, "", None, 1_000).await.unwrap();
    let keys = store.keys(acme.id).await.unwrap();
    assert_eq!(keys.len(), MAX_KEYS_PER_TENANT);
    let refused = store.create_key(acme.id, Role::Invoker, "", None, 4_999).await.unwrap_err();
    assert!(matches!(refused, WriteError::LimitReached { limit: MAX_KEYS_PER_TENANT, .. }), "{refused:?}");
    store.create_key(acme.id, Role::Invoker, "", None, 5_000).await.unwrap();
    store.revoke_key(acme.id, keys[2].id, 5_001).await.unwrap();
    store.create_key(acme.id, Role::Invoker, "", None, 5_002).await.unwrap();
    let left = store.keys(acme.id).await.unwrap();
    assert_eq!(left.len(), MAX_KEYS_PER_TENANT);
    assert!(left.iter().all(|key| key.id != keys[2].id && key.id != keys[499].id && key.is_live(6_000)));
}
