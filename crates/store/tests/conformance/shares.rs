//! Organisations and the settings of the share tree.

use tenantry_store::{NewKey, Role, ShareRecord, Store, Thing, WriteError};
use tenantry_types::share::{DeviceRate, RequestRate, ShareTier, WorkerLimits};
use tenantry_types::{ErrorCode, KeyId, ServiceError, ShareSettings, ShareSubject, TenantId};

use crate::support::{Shared, model, tenant};

async fn set(store: &Store, subject: ShareSubject, settings: ShareSettings) -> Result<ShareRecord, WriteError> {
    store.set_share(subject, None, settings, |_| Ok(())).await
}

fn weight(weight_milli: u32) -> ShareSettings {
    ShareSettings { weight_milli: Some(weight_milli), ..ShareSettings::default() }
}

fn reserved(ppm: u32) -> ShareSettings {
    ShareSettings { reservation: Some(DeviceRate { ppm, burst_ms: 100 }), ..ShareSettings::default() }
}

pub(crate) async fn organisations_have_unique_names_and_go_when_empty(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = store.create_organisation(&"acme-group".parse().unwrap(), 5).await.unwrap();
    let again = store.create_organisation(&acme.name, 6).await.unwrap_err();
    assert!(matches!(again, WriteError::AlreadyExists(Thing::Organisation)), "{again:?}");
    assert_eq!(store.catalogue().await.unwrap().organisations, std::slice::from_ref(&acme));

    let member = tenant(&store, "acme").await;
    let joined = ShareSettings { organisation: Some(acme.id), ..ShareSettings::default() };
    set(&store, ShareSubject::Tenant(member.id), joined).await.unwrap();
    set(&store, ShareSubject::Organisation(acme.id), weight(3_000)).await.unwrap();
    let refused = store.delete_organisation(acme.id).await.unwrap_err();
    assert!(matches!(&refused, WriteError::WrongState(text) if text.contains("1 tenants")), "{refused:?}");
    assert_eq!(ServiceError::from(refused).code, ErrorCode::Conflict);
    set(&store, ShareSubject::Tenant(member.id), ShareSettings::default()).await.unwrap();
    store.delete_organisation(acme.id).await.unwrap();
    let left = store.catalogue().await.unwrap();
    assert!(left.organisations.is_empty());
    assert!(left.shares.iter().all(|share| share.subject != ShareSubject::Organisation(acme.id)));
    let gone = store.delete_organisation(acme.id).await.unwrap_err();
    assert!(matches!(gone, WriteError::NotFound(Thing::Organisation)), "{gone:?}");
    let joined = ShareSettings { organisation: Some(acme.id), ..ShareSettings::default() };
    let nowhere = set(&store, ShareSubject::Tenant(member.id), joined).await.unwrap_err();
    assert!(matches!(nowhere, WriteError::NotFound(Thing::Organisation)), "{nowhere:?}");
}

pub(crate) async fn settings_are_kept_by_subject_and_change_by_compare_and_set(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let subject = ShareSubject::Tenant(acme.id);
    let everything = ShareSettings {
        organisation: None,
        tier: Some(ShareTier::Guaranteed),
        weight_milli: Some(2_500),
        reservation: Some(DeviceRate { ppm: 250_000, burst_ms: 100 }),
        device_time: Some(DeviceRate { ppm: 1_500_000, burst_ms: 1_000 }),
        request_rate: Some(RequestRate { milli_per_second: 500, burst: 3 }),
        max_requests: Some(10),
        max_queued_tasks: Some(20),
        max_queued_bytes: Some(1 << 40),
        max_body_bytes: Some(1 << 20),
        max_bodies_bytes: Some(1 << 30),
        max_cache_bytes: Some(1 << 20),
        slot_group: Some("gold".to_owned()),
        batch_with_others: Some(true),
        worker: WorkerLimits { memory_bytes: Some(1 << 30), max_processes: Some(64), max_cpu_milli: Some(1_500) },
    };
    let first = set(&store, subject, everything.clone()).await.unwrap();
    assert_eq!((first.generation, &first.settings), (1, &everything));
    assert_eq!(store.catalogue().await.unwrap().shares, [first]);

    let stale = store.set_share(subject, Some(0), weight(1), |_| Ok(())).await.unwrap_err();
    assert!(matches!(stale, WriteError::Conflict { thing: Thing::Share, generation: 1 }), "{stale:?}");
    let second = store.set_share(subject, Some(1), ShareSettings::default(), |_| Ok(())).await.unwrap();
    assert_eq!(store.catalogue().await.unwrap().shares, [second]);

    let before = store.revision().await.unwrap();
    let organisation = store.create_organisation(&"o".parse().unwrap(), 1).await.unwrap();
    for (subject, wrong) in [
        (subject, weight(0)),
        (subject, weight(1_000_001)),
        (subject, reserved(0)),
        (subject, ShareSettings { max_requests: Some(0), ..ShareSettings::default() }),
        (subject, ShareSettings { slot_group: Some("a\nb".to_owned()), ..ShareSettings::default() }),
        (ShareSubject::Organisation(organisation.id), reserved(1)),
    ] {
        let refused = set(&store, subject, wrong.clone()).await.unwrap_err();
        assert!(matches!(refused, WriteError::Invalid(_)), "{wrong:?} {refused:?}");
    }
    let refused = store.set_share(subject, None, weight(7), |_| Err("no".to_owned())).await.unwrap_err();
    assert!(matches!(refused, WriteError::WrongState(text) if text == "no"));
    let nobody = TenantId::from_parts(1, [0; 10]);
    let unknown = set(&store, ShareSubject::Tenant(nobody), weight(1)).await.unwrap_err();
    assert!(matches!(unknown, WriteError::NotFound(Thing::Tenant)), "{unknown:?}");
    assert_eq!(store.revision().await.unwrap(), before + 1, "what is refused is no change");
}

pub(crate) async fn settings_go_with_what_they_are_for(backend: Shared) {
    let (_place, store) = backend.store().await;
    let (acme, globex) = (tenant(&store, "acme").await, tenant(&store, "globex").await);
    let mine = model(&store, globex.id, "m").await;
    let deployment = store.deployment(mine.id).await.unwrap().id;
    let (key, _) = store.create_key(acme.id, NewKey::of(Role::Invoker), 1).await.unwrap();
    let subjects = [
        ShareSubject::Tenant(acme.id),
        ShareSubject::Deployment(acme.id, deployment),
        ShareSubject::Deployment(globex.id, deployment),
        ShareSubject::Key(acme.id, key.id),
    ];
    for subject in subjects {
        set(&store, subject, weight(1)).await.unwrap();
    }
    let foreign = set(&store, ShareSubject::Key(globex.id, key.id), weight(1)).await.unwrap_err();
    assert!(matches!(foreign, WriteError::NotFound(Thing::Key)), "{foreign:?}");
    let left = async || -> Vec<ShareSubject> {
        store.catalogue().await.unwrap().shares.into_iter().map(|share| share.subject).collect()
    };
    assert_eq!(left().await.len(), 4);
    store.revoke_key(acme.id, key.id, 2).await.unwrap();
    assert!(!left().await.contains(&subjects[3]));
    let revoked = set(&store, subjects[3], weight(1)).await.unwrap_err();
    assert!(matches!(revoked, WriteError::NotFound(Thing::Key)), "{revoked:?}");
    let unknown = ShareSubject::Key(acme.id, KeyId::from_parts(9, [9; 10]));
    assert!(set(&store, unknown, weight(1)).await.is_err());
    store.delete_model(mine.id).await.unwrap();
    assert_eq!(left().await, [subjects[0]]);
    store.delete_tenant(acme.id).await.unwrap();
    assert!(left().await.is_empty());
}

pub(crate) async fn are_checked_together_even_when_set_at_the_same_time(backend: Shared) {
    let (_place, store) = backend.store().await;
    let mut setting = Vec::new();
    for number in 0..6 {
        let tenant = tenant(&store, &format!("t{number}")).await.id;
        let store = store.clone();
        setting.push(tokio::spawn(async move {
            let check = |all: &[ShareRecord]| {
                let sum: u32 = all.iter().filter_map(|share| share.settings.reservation).map(|rate| rate.ppm).sum();
                if sum <= 800_000 { Ok(()) } else { Err(format!("{sum}")) }
            };
            store.set_share(ShareSubject::Tenant(tenant), None, reserved(300_000), check).await
        }));
    }
    let mut kept = 0;
    for set in setting {
        match set.await.unwrap() {
            Ok(_) => kept += 1,
            Err(WriteError::WrongState(sum)) => assert_eq!(sum, "900000"),
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(kept, 2);
}
