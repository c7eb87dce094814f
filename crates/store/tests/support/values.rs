//! Things to put into a store.

use std::collections::BTreeMap;

use bytes::Bytes;
use tenantry_store::{Artefact, Model, NewModel, NewVersion, Optimised, Store, StoredFile, Tenant, Version};
use tenantry_types::model::{BatchPoint, EngineOptions, FileMetadata, Profile, Registration};
use tenantry_types::{DataType, Dim, Signature, TenantId, TensorSpec};

pub(crate) async fn tenant(store: &Store, name: &str) -> Tenant {
    store.create_tenant(&name.parse().unwrap(), false, 1).await.unwrap()
}

pub(crate) async fn model(store: &Store, owner: TenantId, name: &str) -> Model {
    store.create_model(owner, &name.parse().unwrap(), NewModel::default(), 2).await.unwrap()
}

pub(crate) async fn upload(store: &Store, owner: TenantId, data: &[u8]) -> Artefact {
    let mut upload = store.begin_upload(owner, 1 << 30).await.unwrap();
    upload.write(Bytes::copy_from_slice(data)).await.unwrap();
    upload.finish().await.unwrap()
}

pub(crate) fn file(name: &str, artefact: Artefact) -> StoredFile {
    StoredFile { name: name.to_owned(), digest: artefact.digest, bytes: artefact.bytes }
}

/// A registering version of one file with these bytes, to be deployed.
pub(crate) async fn version(store: &Store, model: &Model, data: &[u8]) -> Version {
    version_with(store, model, data, true).await
}

pub(crate) async fn version_with(store: &Store, model: &Model, data: &[u8], deploy: bool) -> Version {
    let artefact = upload(store, model.owner, data).await;
    let new = NewVersion { files: vec![file("model.onnx", artefact)], deploy, ..NewVersion::default() };
    store.create_version(model.id, new, 3).await.unwrap()
}

/// A ready and deployed version.
pub(crate) async fn ready(store: &Store, model: &Model, data: &[u8]) -> Version {
    let version = version(store, model, data).await;
    store.finish_version(version.id, &registration("x"), None).await.unwrap()
}

pub(crate) async fn optimised(store: &Store, owner: TenantId, key: &str, data: &[u8]) -> Optimised {
    store.put_optimised(owner, key, std::io::Cursor::new(data.to_vec()), 1 << 30).await.unwrap()
}

/// What a worker might report, with one input of this name.
pub(crate) fn registration(input: &str) -> Registration {
    let tensor = |name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: DataType::Fp32,
        dims: vec![Dim::Any(()), Dim::Named("sequence".to_owned()), Dim::Fixed(384)],
    };
    Registration {
        pipeline: None,
        signature: Signature { inputs: vec![tensor(input)], outputs: vec![tensor("y")] },
        metadata: FileMetadata {
            custom: vec![("k".to_owned(), "with a \u{0} inside".to_owned())],
            ..FileMetadata::default()
        },
        can_batch: true,
        profile: Profile {
            runtime: "1.0.0".to_owned(),
            options: EngineOptions::default(),
            load_ns: 1_000_000,
            optimised_load_ns: u64::MAX,
            resident_bytes: 3 << 20,
            optimised_bytes: 5,
            best_batch: 8,
            points: vec![BatchPoint { rows: 1, run_ns: 10 }, BatchPoint { rows: 8, run_ns: 20 }],
        },
    }
}

pub(crate) fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
