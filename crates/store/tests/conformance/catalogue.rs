//! The catalogue and the revision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};
use tenantry_store::{Catalogue, NewKey, NewModel, NewVersion, ReadError, Role, Thing, VersionState};

use crate::support::{Shared, file, model, optimised, pairs, ready, registration, tenant, upload, version};

/// What holds between the lists of any one moment.
fn check(catalogue: &Catalogue) {
    let tenants: BTreeSet<_> = catalogue.tenants.iter().map(|tenant| tenant.id).collect();
    let models: BTreeMap<_, _> = catalogue.models.iter().map(|model| (model.id, model)).collect();
    assert_eq!(models.len(), catalogue.deployments.len());
    assert!(catalogue.models.iter().all(|model| tenants.contains(&model.owner)));
    assert!(catalogue.keys.iter().all(|key| tenants.contains(&key.tenant)));
    let versions: BTreeMap<_, _> =
        catalogue.versions.iter().map(|version| ((version.model, version.number), version)).collect();
    for version in &catalogue.versions {
        assert!(version.number < models[&version.model].next_version);
        assert_eq!(version.registration.is_some(), version.state == VersionState::Ready);
    }
    for deployment in &catalogue.deployments {
        for number in deployment.version.into_iter().chain(deployment.previous) {
            assert_eq!(versions[&(deployment.model, number)].state, VersionState::Ready);
        }
    }
    assert!(catalogue.aliases.iter().all(|alias| versions.contains_key(&(alias.model, alias.version))));
}

pub(crate) async fn is_one_moment_however_busy_the_writers(backend: Shared) {
    let (_place, store) = backend.store().await;
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..4 {
                    let owner = tenant(&store, &format!("t{writer}-{round}")).await;
                    let mine = model(&store, owner.id, "m").await;
                    ready(&store, &mine, b"1").await;
                    ready(&store, &mine, b"2").await;
                    store.set_alias(mine.id, &"stable".parse().unwrap(), 1).await.unwrap();
                    store.create_key(owner.id, NewKey::of(Role::Admin), 1).await.unwrap();
                    if round % 2 == 0 {
                        store.delete_tenant(owner.id).await.unwrap();
                    }
                }
            })
        })
        .collect();
    let reader = {
        let (store, done) = (store.clone(), done.clone());
        tokio::spawn(async move {
            let mut last: Option<Catalogue> = None;
            while !done.load(Ordering::Relaxed) {
                let now = store.catalogue().await.unwrap();
                check(&now);
                if let Some(last) = last {
                    assert!(last.revision <= now.revision);
                    assert_eq!(last.revision == now.revision, last == now, "a revision is one state");
                }
                last = Some(now);
            }
        })
    };
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    reader.await.unwrap();
    let catalogue = store.catalogue().await.unwrap();
    check(&catalogue);
    assert_eq!((catalogue.tenants.len(), catalogue.versions.len()), (6, 12));
}

pub(crate) async fn of_many_models_is_whole(backend: Shared) {
    const MODELS: usize = 100;
    let (_place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let artefact = upload(&store, acme.id, b"x").await;
    let form = optimised(&store, acme.id, "k", b"y").await;
    for number in 0..MODELS {
        let name = format!("m{number:04}").parse().unwrap();
        let new = NewModel { tags: pairs(&[("n", &number.to_string())]), ..NewModel::default() };
        let mine = store.create_model(acme.id, &name, new, 1).await.unwrap();
        let new = NewVersion { files: vec![file("model.onnx", artefact)], deploy: true, ..NewVersion::default() };
        let version = store.create_version(mine.id, new, 1).await.unwrap();
        store.finish_version(version.id, &registration("x"), Some(&form)).await.unwrap();
    }
    let catalogue = store.catalogue().await.unwrap();
    check(&catalogue);
    assert_eq!((catalogue.models.len(), catalogue.versions.len()), (MODELS, MODELS));
    assert!(catalogue.models.iter().all(|model| model.tags.len() == 1));
    assert!(catalogue.versions.iter().all(|version| version.files.len() == 1 && version.optimised.is_some()));
    assert!(catalogue.deployments.iter().all(|deployment| deployment.version == Some(1)));
}

pub(crate) async fn counts_commits_only(backend: Shared) {
    let (_place, store) = backend.store().await;
    let before = store.revision().await.unwrap();
    let acme = tenant(&store, "acme").await;
    assert_eq!(store.revision().await.unwrap(), before + 1);
    let mine = model(&store, acme.id, "m").await;
    assert_eq!(store.revision().await.unwrap(), before + 2);
    let created = version(&store, &mine, b"x").await;
    assert_eq!(store.revision().await.unwrap(), before + 3);
    // What changes nothing has no revision: a refusal, finding what exists, an upload.
    store.create_tenant(&acme.name, false, 1).await.unwrap_err();
    store.delete_model(tenantry_types::ModelId::from_parts(1, [0; 10])).await.unwrap_err();
    model(&store, acme.id, "m").await;
    upload(&store, acme.id, b"y").await;
    assert_eq!(store.revision().await.unwrap(), before + 3);
    store.refuse_version(created.id, "no").await.unwrap();
    assert_eq!(store.catalogue().await.unwrap().revision, before + 4);
}

pub(crate) async fn a_damaged_row_is_an_error_that_names_the_column(backend: Shared) {
    let (place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let mine = model(&store, acme.id, "m").await;
    ready(&store, &mine, b"x").await;
    let mut raw = AnyConnection::connect(&place.raw_url()).await.unwrap();
    for (statement, thing, column) in [
        ("UPDATE versions SET settings = '{\"max_batch\":-1}'", Thing::Version, "settings"),
        ("UPDATE versions SET settings = '{}', state = 'lost'", Thing::Version, "state"),
        ("UPDATE models SET name = 'Not A Name'", Thing::Model, "name"),
        ("UPDATE models SET name = 'm', min_isolation = 'some'", Thing::Model, "min_isolation"),
        ("UPDATE deployments SET generation = -1", Thing::Deployment, "generation"),
    ] {
        raw.execute(AssertSqlSafe(statement)).await.unwrap();
        let damaged = match thing {
            Thing::Deployment => store.deployment(mine.id).await.map(drop).unwrap_err(),
            Thing::Model => store.model(mine.id).await.map(drop).unwrap_err(),
            _ => store.catalogue().await.map(drop).unwrap_err(),
        };
        assert!(
            matches!(&damaged, ReadError::Damaged { thing: t, column: c } if *t == thing && *c == column),
            "{statement}: {damaged:?}"
        );
    }
    raw.close().await.unwrap();
}
