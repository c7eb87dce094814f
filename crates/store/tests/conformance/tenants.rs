//! Tenants and their keys.

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};
use tenantry_store::limits::MAX_KEYS_PER_TENANT;
use tenantry_store::{
    KeySecret, ModelSearch, ModelUpdate, NewKey, NewModel, ReadError, Role, Sharing, Store, TenantMinimum,
    TenantMinimumChange, Thing, WriteError,
};
use tenantry_types::share::DeviceRate;
use tenantry_types::{
    Action, CustomRole, Digest, ErrorCode, KeyId, Level, Scope, ServiceError, ShareSettings, ShareSubject, TenantId,
};

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
    store.create_key(gone.id, NewKey { label: "k".to_owned(), ..NewKey::of(Role::Admin) }, 5).await.unwrap();
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
    let (key, secret) = store
        .create_key(
            acme.id,
            NewKey { label: "laptop".to_owned(), expires_ms: Some(2_000), ..NewKey::of(Role::Invoker) },
            1_000,
        )
        .await
        .unwrap();
    let (other, other_secret) = store.create_key(acme.id, NewKey::of(Role::Admin), 1_001).await.unwrap();
    assert_ne!(secret, other_secret);
    assert_eq!(store.keys(acme.id).await.unwrap(), [key.clone(), other.clone()]);
    assert_eq!(store.keys(globex.id).await.unwrap(), []);

    let (id, hash) = KeySecret::parse(&secret.unwrap()).unwrap();
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

    let wrong = store.create_key(acme.id, NewKey::of(Role::PlatformAdmin), 1).await.unwrap_err();
    assert!(matches!(wrong, WriteError::Invalid(_)), "{wrong:?}");
    store.create_key(platform.id, NewKey::of(Role::PlatformAdmin), 1).await.unwrap();
    let nobody = store.create_key(TenantId::from_parts(1, [0; 10]), NewKey::of(Role::Admin), 1).await.unwrap_err();
    assert!(matches!(nobody, WriteError::NotFound(Thing::Tenant)));
    let unknown = store.revoke_key(acme.id, KeyId::from_parts(1, [0; 10]), 1).await.unwrap_err();
    assert!(matches!(unknown, WriteError::NotFound(Thing::Key)));
    assert!(matches!(
        store.create_key(acme.id, NewKey { label: "a\nb".to_owned(), ..NewKey::of(Role::Admin) }, 1).await,
        Err(WriteError::Invalid(_))
    ));
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
    let columns = "id, tenant_id, role, label, secret_sha256, created_ms, expires_ms, revoked_ms";
    raw.execute(AssertSqlSafe(format!("INSERT INTO api_keys ({columns}) VALUES {}", rows.join(", ")))).await.unwrap();
    raw.close().await.unwrap();
    store.create_key(acme.id, NewKey::of(Role::Invoker), 1_000).await.unwrap();
    let keys = store.keys(acme.id).await.unwrap();
    assert_eq!(keys.len(), MAX_KEYS_PER_TENANT);
    let refused = store.create_key(acme.id, NewKey::of(Role::Invoker), 4_999).await.unwrap_err();
    assert!(matches!(refused, WriteError::LimitReached { limit: MAX_KEYS_PER_TENANT, .. }), "{refused:?}");
    store.create_key(acme.id, NewKey::of(Role::Invoker), 5_000).await.unwrap();
    store.revoke_key(acme.id, keys[2].id, 5_001).await.unwrap();
    store.create_key(acme.id, NewKey::of(Role::Invoker), 5_002).await.unwrap();
    let left = store.keys(acme.id).await.unwrap();
    assert_eq!(left.len(), MAX_KEYS_PER_TENANT);
    assert!(left.iter().all(|key| key.id != keys[2].id && key.id != keys[499].id && key.is_live(6_000)));
}

pub(crate) async fn keys_are_confined_rotated_and_proved_by_certificates(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = store.create_tenant(&"acme".parse().unwrap(), false, 1).await.unwrap();
    let globex = store.create_tenant(&"globex".parse().unwrap(), false, 1).await.unwrap();
    let scope = Scope {
        models: Some(["digits".to_owned(), "globex/faces".to_owned()].into_iter().collect()),
        actions: Some([Action::ModelInfer].into_iter().collect()),
    };
    let new = NewKey { scope: scope.clone(), label: "app".to_owned(), ..NewKey::of(Role::Invoker) };
    let (key, secret) = store.create_key(acme.id, new, 1_000).await.unwrap();
    assert_eq!(store.keys(acme.id).await.unwrap(), std::slice::from_ref(&key));
    let wrong = Scope { models: Some(["a/b/c".to_owned()].into_iter().collect()), actions: None };
    let wrong = store.create_key(acme.id, NewKey { scope: wrong, ..NewKey::of(Role::Invoker) }, 1).await;
    assert!(matches!(wrong, Err(WriteError::Invalid(_))));

    // The settings go along, and what is kept free for the old one moves.
    let settings = ShareSettings {
        weight_milli: Some(2_000),
        reservation: Some(DeviceRate { ppm: 1_000, burst_ms: 10 }),
        ..ShareSettings::default()
    };
    let of = |key| ShareSubject::Key(acme.id, key);
    store.set_share(of(key.id), None, settings.clone(), |_| Ok(())).await.unwrap();
    let (next, next_secret) = store.rotate_key(acme.id, key.id, 500, Some(9_000), 2_000).await.unwrap();
    assert_ne!(secret, next_secret);
    assert_eq!((next.role.clone(), next.scope.clone(), next.label.as_str()), (Role::Invoker, scope, "app"));
    let keys = store.keys(acme.id).await.unwrap();
    assert_eq!(keys.iter().map(|key| key.expires_ms).collect::<Vec<_>>(), [Some(2_500), Some(9_000)]);
    let shares = store.catalogue().await.unwrap().shares;
    let settings_of = |key| shares.iter().find(|share| share.subject == of(key)).unwrap().settings.clone();
    assert_eq!(settings_of(next.id), settings);
    assert_eq!(settings_of(key.id), ShareSettings { reservation: None, ..settings });
    // Another tenant's, one that has expired, one there is not.
    for (tenant, key, now_ms) in [(globex.id, next.id, 3_000), (acme.id, key.id, 2_500), (acme.id, next.id, 9_000)] {
        let refused = store.rotate_key(tenant, key, 0, None, now_ms).await.unwrap_err();
        assert!(matches!(refused, WriteError::NotFound(Thing::Key)), "{refused:?}");
    }

    // Written down without a revision, and never back in time.
    let revision = store.revision().await.unwrap();
    store.note_keys_used(&[(next.id, 4_000)]).await.unwrap();
    store.note_keys_used(&[(next.id, 3_000)]).await.unwrap();
    assert_eq!(store.keys(acme.id).await.unwrap()[1].last_used_ms, Some(4_000));
    assert_eq!(store.revision().await.unwrap(), revision);

    let bound =
        |name: &str, expires_ms| NewKey { certificate: Some(name.to_owned()), expires_ms, ..NewKey::of(Role::Invoker) };
    let (proved, none) = store.create_key(acme.id, bound("DNS:batch.acme", Some(10_000)), 5_000).await.unwrap();
    assert_eq!(none, None);
    assert!(!proved.matches(&proved.secret_sha256), "it has no secret");
    let taken = store.create_key(globex.id, bound("DNS:batch.acme", None), 6_000).await.unwrap_err();
    assert!(matches!(taken, WriteError::AlreadyExists(Thing::Key)));
    for wrong in ["batch.acme", "DNS:", "EMAIL:a@b", "CN:a\nb"] {
        let refused = store.create_key(acme.id, bound(wrong, None), 6_000).await;
        assert!(matches!(refused, Err(WriteError::Invalid(_))), "{wrong}");
    }
    assert!(matches!(store.rotate_key(acme.id, proved.id, 0, None, 6_000).await, Err(WriteError::Invalid(_))));
    // Revoked or expired, it is in nobody's way.
    store.create_key(globex.id, bound("DNS:batch.acme", None), 10_000).await.unwrap();
}

pub(crate) async fn roles_are_a_tenants_own(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = store.create_tenant(&"acme".parse().unwrap(), false, 1).await.unwrap();
    let globex = store.create_tenant(&"globex".parse().unwrap(), false, 1).await.unwrap();
    let role = CustomRole {
        name: "on-call".parse().unwrap(),
        actions: [Action::ModelRead, Action::DeploymentWrite].into_iter().collect(),
        models: Some(["digits".parse().unwrap()].into_iter().collect()),
        description: "nights".to_owned(),
    };
    store.set_role(acme.id, &role, 5).await.unwrap();
    assert_eq!(store.roles(acme.id).await.unwrap(), std::slice::from_ref(&role));
    assert_eq!(store.roles(globex.id).await.unwrap(), []);
    let wider = CustomRole { models: None, ..role.clone() };
    store.set_role(acme.id, &wider, 6).await.unwrap();
    assert_eq!(store.catalogue().await.unwrap().roles, [(acme.id, wider)]);

    let named = || NewKey::of(Role::Custom(role.name.clone()));
    assert!(matches!(store.create_key(globex.id, named(), 7).await, Err(WriteError::Invalid(_))));
    let (key, _) = store.create_key(acme.id, named(), 7).await.unwrap();
    assert_eq!(key.role.as_str(), "on-call");
    assert!(matches!(store.delete_role(acme.id, &role.name, 8).await, Err(WriteError::WrongState(_))));
    store.revoke_key(acme.id, key.id, 8).await.unwrap();
    assert!(matches!(store.delete_role(globex.id, &role.name, 9).await, Err(WriteError::NotFound(Thing::Role))));
    store.delete_role(acme.id, &role.name, 9).await.unwrap();
    assert_eq!(store.roles(acme.id).await.unwrap(), []);
    // Gone with its tenant.
    store.set_role(globex.id, &role, 10).await.unwrap();
    store.delete_tenant(globex.id).await.unwrap();
    assert_eq!(store.catalogue().await.unwrap().roles, []);
}

pub(crate) async fn models_are_shared_with_tenants_by_name(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = store.create_tenant(&"acme".parse().unwrap(), false, 1).await.unwrap();
    let globex = store.create_tenant(&"globex".parse().unwrap(), false, 1).await.unwrap();
    let model = store.create_model(acme.id, &"digits".parse().unwrap(), NewModel::default(), 2).await.unwrap();
    let with = |names: &[&str]| ModelUpdate {
        shared: Some(Sharing::Tenants(names.iter().map(|name| name.parse().unwrap()).collect())),
        ..ModelUpdate::default()
    };
    // Whether there is such a tenant makes no difference.
    let shared = store.update_model(model.id, with(&["globex", "nobody"]), 3).await.unwrap();
    assert_eq!(shared.shared, with(&["globex", "nobody"]).shared.unwrap());
    assert_eq!(store.model(model.id).await.unwrap(), shared);
    assert_eq!(store.catalogue().await.unwrap().models, std::slice::from_ref(&shared));
    assert_eq!(store.search_models(acme.id, &ModelSearch::default()).await.unwrap(), [shared]);
    // Whoever gets the name of one that is gone has been given nothing.
    store.delete_tenant(globex.id).await.unwrap();
    store.create_tenant(&"globex".parse().unwrap(), false, 4).await.unwrap();
    assert_eq!(store.model(model.id).await.unwrap().shared, with(&["nobody"]).shared.unwrap());
    let private = ModelUpdate { shared: Some(Sharing::Private), ..ModelUpdate::default() };
    assert_eq!(store.update_model(model.id, private, 5).await.unwrap().shared, Sharing::Private);
}
