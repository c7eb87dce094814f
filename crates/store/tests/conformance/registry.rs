//! Models, versions, deployments and aliases.

use std::collections::{BTreeMap, BTreeSet};

use tenantry_store::limits::{DEFAULT_IDLE_AFTER_MS, MAX_CACHE_TTL_MS};
use tenantry_store::{
    Deployment, DeploymentChange, ModelUpdate, NewModel, NewVersion, ReadError, Sharing, Store, StoredFile, Thing,
    VersionState, WriteError,
};
use tenantry_types::model::{Optimization, VersionSettings};
use tenantry_types::{Digest, Level, ModelId, TenantId, VersionId};

use crate::support::{
    Shared, file, model, optimised, pairs, ready, registration, tenant, upload, version, version_with,
};

fn deploy(version: u32) -> DeploymentChange {
    DeploymentChange {
        version: Some(version),
        min_replicas: 0,
        max_replicas: 1,
        idle_after_ms: None,
        default_timeout_ms: None,
        cache_ttl_ms: None,
    }
}

pub(crate) async fn a_model_is_created_once_with_its_deployment(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let name = "magika".parse().unwrap();
    let new = NewModel {
        description: "what type a file is,\nin two lines".to_owned(),
        framework: "onnx".to_owned(),
        tags: pairs(&[("task", "classification"), ("z", "")]),
        dependencies: vec!["dataset:files".to_owned()],
        min_isolation: Level::Confined,
        shared: Sharing::Everyone,
    };
    let created = store.create_model(acme.id, &name, new.clone(), 7).await.unwrap();
    assert_eq!(created.tags, new.tags);
    assert_eq!((created.created_ms, created.updated_ms, created.next_version), (7, 7, 1));
    let again = store.create_model(acme.id, &name, NewModel::default(), 8).await.unwrap();
    assert_eq!(again, created);
    assert_eq!(store.model(created.id).await.unwrap(), created);
    assert_eq!(store.model_by_name(acme.id, &name).await.unwrap(), created);
    let deployment = store.deployment(created.id).await.unwrap();
    let expected = Deployment {
        id: deployment.id,
        model: created.id,
        generation: 0,
        version: None,
        previous: None,
        min_replicas: 0,
        max_replicas: 1,
        idle_after_ms: Some(DEFAULT_IDLE_AFTER_MS),
        default_timeout_ms: None,
        cache_ttl_ms: None,
    };
    assert_eq!(deployment, expected);

    // The same name in another tenant is another model.
    let globex = tenant(&store, "globex").await;
    assert!(matches!(store.model_by_name(globex.id, &name).await, Err(ReadError::NotFound(Thing::Model))));
    assert_ne!(store.create_model(globex.id, &name, new.clone(), 9).await.unwrap().id, created.id);
    let nobody = store.create_model(TenantId::from_parts(1, [0; 10]), &name, new, 9).await;
    assert!(matches!(nobody, Err(WriteError::NotFound(Thing::Tenant))));

    // Two at once make one.
    let name = "twice".parse().unwrap();
    let (one, other) = tokio::join!(
        store.create_model(acme.id, &name, NewModel::default(), 10),
        store.create_model(acme.id, &name, NewModel::default(), 10)
    );
    assert_eq!(one.unwrap(), other.unwrap());
}

pub(crate) async fn a_models_fields_change_and_bad_ones_are_refused(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let before = model(&store, acme.id, "m").await;
    let update = ModelUpdate { tags: Some(pairs(&[("a", "1"), ("b", "2")])), ..ModelUpdate::default() };
    store.update_model(before.id, update, 20).await.unwrap();
    let update = ModelUpdate {
        description: Some("quotes ' \" and ; -- DROP TABLE models; 日本語".to_owned()),
        tags: Some(pairs(&[("b", "3")])),
        shared: Some(Sharing::Everyone),
        min_isolation: Some(Level::Isolated),
        ..ModelUpdate::default()
    };
    let after = store.update_model(before.id, update.clone(), 21).await.unwrap();
    assert_eq!(Some(&after.description), update.description.as_ref());
    assert_eq!(
        (after.tags.clone(), after.shared.clone(), after.updated_ms),
        (pairs(&[("b", "3")]), Sharing::Everyone, 21)
    );
    assert_eq!((before.min_isolation, after.min_isolation), (Level::None, Level::Isolated));
    assert_eq!((after.created_ms, &after.framework), (before.created_ms, &before.framework));
    assert_eq!(store.model(before.id).await.unwrap(), after);

    let bad = [
        ModelUpdate { description: Some("nul \0".to_owned()), ..ModelUpdate::default() },
        ModelUpdate { description: Some("x".repeat(16 * 1024 + 1)), ..ModelUpdate::default() },
        ModelUpdate { framework: Some("x".repeat(257)), ..ModelUpdate::default() },
        ModelUpdate { tags: Some(pairs(&[("", "x")])), ..ModelUpdate::default() },
        ModelUpdate { tags: Some((0..65).map(|n| (n.to_string(), String::new())).collect()), ..ModelUpdate::default() },
        ModelUpdate { dependencies: Some(vec!["a\tb".to_owned()]), ..ModelUpdate::default() },
    ];
    for update in bad {
        let refused = store.update_model(before.id, update.clone(), 22).await;
        assert!(matches!(refused, Err(WriteError::Invalid(_))), "{update:?}: {refused:?}");
    }
    assert_eq!(store.model(before.id).await.unwrap(), after);
    let unknown = store.update_model(ModelId::from_parts(1, [0; 10]), ModelUpdate::default(), 1).await;
    assert!(matches!(unknown, Err(WriteError::NotFound(Thing::Model))));
}

pub(crate) async fn a_version_is_registered_or_refused_once(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let mine = model(&store, acme.id, "m").await;
    let weights = upload(&store, acme.id, b"weights").await;
    let graph = upload(&store, acme.id, b"graph").await;
    let new = NewVersion {
        files: vec![file("model.onnx", graph), file("data/weights.bin", weights)],
        description: "first".to_owned(),
        tags: pairs(&[("stage", "test")]),
        quality: BTreeMap::from([("f1".to_owned(), 0.1 + 0.2), ("loss".to_owned(), -1e-300)]),
        settings: VersionSettings {
            max_batch: Some(4),
            optimization: Some(Optimization::Basic),
            disabled_optimizers: vec!["QDQFusion".to_owned()],
            ..VersionSettings::default()
        },
        deploy: true,
    };
    let created = store.create_version(mine.id, new.clone(), 30).await.unwrap();
    assert_eq!((created.number, &created.state), (1, &VersionState::Registering));
    assert_eq!((&created.files, &created.quality), (&new.files, &new.quality));
    assert_eq!(store.version(created.id).await.unwrap(), created);
    assert_eq!(store.version_by_number(mine.id, 1).await.unwrap(), created);

    let form = optimised(&store, acme.id, "graph+1.0+avx2", b"fast").await;
    let finished = store.finish_version(created.id, &registration("ids"), Some(&form)).await.unwrap();
    assert_eq!(finished.state, VersionState::Ready);
    assert_eq!(finished.registration, Some(registration("ids")));
    assert_eq!(finished.optimised, Some(form));
    assert_eq!(store.version(created.id).await.unwrap(), finished);
    let deployment = store.deployment(mine.id).await.unwrap();
    assert_eq!((deployment.generation, deployment.version, deployment.previous), (1, Some(1), None));

    for late in [
        store.finish_version(created.id, &registration("other"), None).await,
        store.refuse_version(created.id, "late").await,
    ] {
        assert!(matches!(late, Err(WriteError::WrongState(_))), "{late:?}");
    }
    assert_eq!(store.version(created.id).await.unwrap(), finished);

    let second = version(&store, &mine, b"bad").await;
    let refused = store.refuse_version(second.id, &format!("no\0 graph {}", "x".repeat(9_000))).await.unwrap();
    let VersionState::Refused { reason } = &refused.state else { panic!("{refused:?}") };
    assert!(reason.starts_with("no  graph x") && reason.chars().count() <= 501, "{reason}");
    assert_eq!(store.versions(mine.id).await.unwrap(), [finished, refused]);
    assert_eq!(store.deployment(mine.id).await.unwrap(), deployment);
    let unknown = store.refuse_version(VersionId::from_parts(1, [0; 10]), "").await;
    assert!(matches!(unknown, Err(WriteError::NotFound(Thing::Version))));
}

pub(crate) async fn a_version_needs_its_files_uploaded_by_its_owner(backend: Shared) {
    let (_place, store) = backend.store().await;
    let (acme, globex) = (tenant(&store, "acme").await, tenant(&store, "globex").await);
    let mine = model(&store, acme.id, "m").await;
    let own = upload(&store, acme.id, b"own").await;
    let foreign = upload(&store, globex.id, b"foreign").await;
    let missing = StoredFile { name: "m".to_owned(), digest: Digest::of(b"missing"), bytes: 7 };
    let bad = [
        vec![],
        vec![file("model.onnx", foreign)],
        vec![missing],
        vec![StoredFile { bytes: 4, ..file("model.onnx", own) }],
        vec![file("../model.onnx", own)],
        vec![file("model.onnx", own), file("model.onnx", own)],
        (0..257).map(|n| file(&n.to_string(), own)).collect(),
    ];
    for files in bad {
        let refused = store.create_version(mine.id, NewVersion { files, ..NewVersion::default() }, 1).await;
        assert!(matches!(refused, Err(WriteError::Invalid(_))), "{refused:?}");
    }
    let infinite = NewVersion {
        files: vec![file("model.onnx", own)],
        quality: BTreeMap::from([("auc".to_owned(), f64::NAN)]),
        ..NewVersion::default()
    };
    assert!(matches!(store.create_version(mine.id, infinite, 1).await, Err(WriteError::Invalid(_))));
    // Refusals took no number.
    assert_eq!(version(&store, &mine, b"own").await.number, 1);
    let unknown = NewVersion { files: vec![file("model.onnx", own)], ..NewVersion::default() };
    let unknown = store.create_version(ModelId::from_parts(1, [0; 10]), unknown, 1).await;
    assert!(matches!(unknown, Err(WriteError::NotFound(Thing::Model))));
}

pub(crate) async fn version_numbers_are_distinct_under_concurrency_and_never_reused(backend: Shared) {
    const VERSIONS: u32 = 24;
    let (_place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let mine = model(&store, acme.id, "m").await;
    let tasks: Vec<_> = (0..VERSIONS)
        .map(|_| {
            let (store, mine) = (store.clone(), mine.clone());
            tokio::spawn(async move { version(&store, &mine, b"same bytes").await.number })
        })
        .collect();
    let mut numbers = BTreeSet::new();
    for task in tasks {
        numbers.insert(task.await.unwrap());
    }
    assert_eq!(numbers, (1..=VERSIONS).collect());
    let last = store.version_by_number(mine.id, VERSIONS).await.unwrap();
    store.delete_version(last.id).await.unwrap();
    assert_eq!(version(&store, &mine, b"more").await.number, VERSIONS + 1);
    assert_eq!(store.model(mine.id).await.unwrap().next_version, VERSIONS + 2);
}

pub(crate) async fn a_deployment_changes_by_compare_and_set(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let mine = model(&store, acme.id, "m").await;
    ready(&store, &mine, b"1").await;
    ready(&store, &mine, b"2").await;
    version(&store, &mine, b"3").await;
    let now = store.deployment(mine.id).await.unwrap();
    assert_eq!((now.generation, now.version, now.previous), (2, Some(2), Some(1)));

    let stale = store.set_deployment(mine.id, 1, deploy(1)).await.unwrap_err();
    assert!(matches!(stale, WriteError::Conflict { thing: Thing::Deployment, generation: 2 }), "{stale:?}");
    let unready = store.set_deployment(mine.id, 2, deploy(3)).await.unwrap_err();
    assert!(matches!(unready, WriteError::WrongState(_)), "{unready:?}");
    let unknown = store.set_deployment(mine.id, 2, deploy(9)).await.unwrap_err();
    assert!(matches!(unknown, WriteError::NotFound(Thing::Version)), "{unknown:?}");
    for (min_replicas, max_replicas) in [(0, 0), (2, 1), (0, 65)] {
        let change = DeploymentChange { min_replicas, max_replicas, ..deploy(1) };
        assert!(matches!(store.set_deployment(mine.id, 2, change).await, Err(WriteError::Invalid(_))));
    }
    for ttl_ms in [0, MAX_CACHE_TTL_MS + 1] {
        let change = DeploymentChange { cache_ttl_ms: Some(ttl_ms), ..deploy(1) };
        assert!(matches!(store.set_deployment(mine.id, 2, change).await, Err(WriteError::Invalid(_))));
    }
    assert_eq!(store.deployment(mine.id).await.unwrap(), now);

    let back = store.set_deployment(mine.id, 2, deploy(1)).await.unwrap();
    assert_eq!((back.generation, back.version, back.previous), (3, Some(1), Some(2)));
    let change = DeploymentChange {
        min_replicas: 1,
        max_replicas: 4,
        idle_after_ms: Some(5),
        default_timeout_ms: Some(9),
        cache_ttl_ms: Some(11),
        ..deploy(1)
    };
    let same = store.set_deployment(mine.id, 3, change).await.unwrap();
    assert_eq!((same.generation, same.previous, same.min_replicas, same.max_replicas), (4, Some(2), 1, 4));
    let off = store.set_deployment(mine.id, 4, DeploymentChange { version: None, ..change }).await.unwrap();
    assert_eq!((off.version, off.previous, off.idle_after_ms), (None, Some(1), Some(5)));
    assert_eq!((off.default_timeout_ms, off.cache_ttl_ms), (Some(9), Some(11)));
    assert_eq!(store.deployment(mine.id).await.unwrap(), off);
}

pub(crate) async fn exactly_one_of_many_concurrent_changes_wins(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let mine = model(&store, acme.id, "m").await;
    ready(&store, &mine, b"1").await;
    let tasks: Vec<_> = (1..=16)
        .map(|max_replicas| {
            let (store, change) = (store.clone(), DeploymentChange { max_replicas, ..deploy(1) });
            tokio::spawn(async move { store.set_deployment(mine.id, 1, change).await })
        })
        .collect();
    let mut won = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(deployment) => won.push(deployment),
            Err(error) => assert!(matches!(error, WriteError::Conflict { generation: 2, .. }), "{error:?}"),
        }
    }
    assert_eq!(won, [store.deployment(mine.id).await.unwrap()]);
}

pub(crate) async fn a_late_registration_does_not_displace_a_newer_version(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let mine = model(&store, acme.id, "m").await;
    let slow = version(&store, &mine, b"slow").await;
    let fast = version(&store, &mine, b"fast").await;
    store.finish_version(fast.id, &registration("x"), None).await.unwrap();
    store.finish_version(slow.id, &registration("x"), None).await.unwrap();
    assert_eq!(store.version(slow.id).await.unwrap().state, VersionState::Ready);
    let deployment = store.deployment(mine.id).await.unwrap();
    assert_eq!((deployment.generation, deployment.version), (1, Some(fast.number)));
}

pub(crate) async fn only_versions_made_to_be_deployed_are(backend: Shared) {
    let (place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let mine = model(&store, acme.id, "m").await;
    let shy = version_with(&store, &mine, b"shy", false).await;
    let bold = version_with(&store, &mine, b"bold", true).await;
    let late = version_with(&store, &mine, b"late", false).await;
    assert_eq!((shy.deploy, bold.deploy), (false, true));
    // The wish survives whoever took it.
    drop(store);
    let store = Store::open(&place.config).await.unwrap();
    let deployed = async || store.deployment(mine.id).await.unwrap().version;
    for (version, expected) in [(&shy, None), (&bold, Some(bold.number)), (&late, Some(bold.number))] {
        assert_eq!(store.version(version.id).await.unwrap(), *version);
        let finished = store.finish_version(version.id, &registration("x"), None).await.unwrap();
        assert_eq!((finished.deploy, finished.state), (version.deploy, VersionState::Ready));
        assert_eq!(deployed().await, expected);
    }
}

pub(crate) async fn aliases_move_and_protect_what_they_name(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let mine = model(&store, acme.id, "m").await;
    let first = ready(&store, &mine, b"1").await;
    let second = ready(&store, &mine, b"2").await;
    let third = ready(&store, &mine, b"3").await;
    let (stable, canary) = ("stable".parse().unwrap(), "canary".parse().unwrap());
    let set = store.set_alias(mine.id, &stable, 1).await.unwrap();
    store.set_alias(mine.id, &canary, 2).await.unwrap();
    let names: Vec<_> = store.aliases(mine.id).await.unwrap().into_iter().map(|a| (a.name, a.version)).collect();
    assert_eq!(names, [(canary.clone(), 2), (stable.clone(), 1)]);

    let named = store.delete_version(first.id).await.unwrap_err();
    assert!(matches!(&named, WriteError::WrongState(text) if text.contains("stable")), "{named:?}");
    assert_eq!(store.set_alias(mine.id, &stable, 2).await.unwrap(), tenantry_store::Alias { version: 2, ..set });
    store.delete_version(first.id).await.unwrap();
    let deployed = store.delete_version(third.id).await.unwrap_err();
    assert!(matches!(&deployed, WriteError::WrongState(text) if text.contains("deployed")), "{deployed:?}");

    store.delete_alias(mine.id, &stable).await.unwrap();
    store.delete_alias(mine.id, &canary).await.unwrap();
    assert!(matches!(store.delete_alias(mine.id, &canary).await, Err(WriteError::NotFound(Thing::Alias))));
    // The way back is forgotten with the version it leads to.
    assert_eq!(store.deployment(mine.id).await.unwrap().previous, Some(2));
    store.delete_version(second.id).await.unwrap();
    assert_eq!(store.deployment(mine.id).await.unwrap().previous, None);
    assert_eq!(store.versions(mine.id).await.unwrap(), [third]);

    let digits = store.set_alias(mine.id, &"12".parse().unwrap(), 3).await.unwrap_err();
    assert!(matches!(digits, WriteError::Invalid(_)), "{digits:?}");
    let unknown = store.set_alias(mine.id, &stable, 1).await.unwrap_err();
    assert!(matches!(unknown, WriteError::NotFound(Thing::Version)), "{unknown:?}");
}

pub(crate) async fn deleting_a_model_removes_all_of_it(backend: Shared) {
    let (place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let kept = model(&store, acme.id, "kept").await;
    ready(&store, &kept, b"shared bytes").await;
    let before = store.catalogue().await.unwrap();
    let files_before = place.files();

    let gone = model(&store, acme.id, "gone").await;
    let update = ModelUpdate { tags: Some(pairs(&[("a", "b")])), ..ModelUpdate::default() };
    store.update_model(gone.id, update, 1).await.unwrap();
    ready(&store, &gone, b"shared bytes").await;
    let second = version(&store, &gone, b"own bytes").await;
    let form = optimised(&store, acme.id, "k", b"form").await;
    store.finish_version(second.id, &registration("x"), Some(&form)).await.unwrap();
    store.set_alias(gone.id, &"stable".parse().unwrap(), 1).await.unwrap();

    store.delete_model(gone.id).await.unwrap();
    let after = store.catalogue().await.unwrap();
    assert_eq!(tenantry_store::Catalogue { revision: before.revision, ..after }, before);
    assert_eq!(place.files(), files_before);
    assert!(matches!(store.delete_model(gone.id).await, Err(WriteError::NotFound(Thing::Model))));
    assert!(matches!(store.deployment(gone.id).await, Err(ReadError::NotFound(_))));
}
