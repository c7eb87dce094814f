//! A small world for the tests of pure parts: tenants, keys and models as the store would list them.

use std::collections::BTreeMap;
use std::time::Duration;

use tenantry_store::{
    Alias, Catalogue, Deployment, Key, Model, Optimised, Role, Sharing, StoredFile, Tenant, TenantMinimum, Version,
    VersionState,
};
use tenantry_types::model::{BatchPoint, EngineOptions, FileMetadata, Profile, Registration, VersionSettings};
use tenantry_types::{
    DataType, DeploymentId, Digest, Dim, KeyId, Level, ModelId, Scope, Signature, TenantId, TensorSpec, VersionId,
};

use crate::Principal;
use crate::auth::{self, Access};
use crate::config::Limits;
use crate::routing::Routing;

pub(crate) const RUN_LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn limits() -> Limits {
    Limits { run_limit: RUN_LIMIT, ..Limits::defaults() }
}

pub(crate) fn tenant_id(number: u8) -> TenantId {
    TenantId::from_parts(u64::from(number), [number; 10])
}

pub(crate) fn version_id(model: u8, number: u32) -> VersionId {
    VersionId::from_parts(u64::from(model) * 1_000 + u64::from(number), [model; 10])
}

pub(crate) fn registration() -> Registration {
    let tensor = |name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: DataType::Fp32,
        dims: vec![Dim::Named("batch".to_owned()), Dim::Fixed(4)],
    };
    Registration {
        pipeline: None,
        signature: Signature { inputs: vec![tensor("x")], outputs: vec![tensor("y")] },
        metadata: FileMetadata::default(),
        can_batch: true,
        profile: Profile {
            runtime: "1.31.1".to_owned(),
            options: EngineOptions::default(),
            load_ns: 1,
            optimised_load_ns: 1,
            resident_bytes: 1,
            optimised_bytes: 1,
            best_batch: 8,
            points: vec![BatchPoint { rows: 1, run_ns: 5_000_000 }],
        },
    }
}

/// What a test says about a world, in a few words; the rest is filled in.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) catalogue: Catalogue,
}

impl World {
    /// The operator `platform` (1) and the tenants `acme` (2) and `globex` (3), each without models or keys.
    pub(crate) fn new() -> Self {
        let tenants = [(1, "platform"), (2, "acme"), (3, "globex")];
        let tenants = tenants.map(|(number, name)| Tenant {
            id: tenant_id(number),
            name: name.parse().unwrap(),
            operator: number == 1,
            created_ms: 0,
            minimum: TenantMinimum::default(),
        });
        let catalogue = Catalogue {
            revision: 1,
            organisations: Vec::new(),
            shares: Vec::new(),
            tenants: tenants.into(),
            keys: Vec::new(),
            roles: Vec::new(),
            models: Vec::new(),
            versions: Vec::new(),
            aliases: Vec::new(),
            deployments: Vec::new(),
        };
        Self { catalogue }
    }

    /// A model with versions in these states (`r`eady, `g`istering, `x` refused), the first ready one deployed.
    pub(crate) fn model(mut self, number: u8, owner: u8, name: &str, shared: Sharing, states: &str) -> Self {
        let id = ModelId::from_parts(u64::from(number), [number; 10]);
        self.catalogue.models.push(Model {
            id,
            owner: tenant_id(owner),
            name: name.parse().unwrap(),
            description: String::new(),
            framework: String::new(),
            tags: BTreeMap::new(),
            dependencies: Vec::new(),
            shared,
            created_ms: 0,
            updated_ms: 0,
            min_isolation: Level::None,
            next_version: states.len() as u32 + 1,
        });
        let mut deployed = None;
        for (position, state) in (1_u32..).zip(states.chars()) {
            let ready = state == 'r';
            if ready && deployed.is_none() {
                deployed = Some(position);
            }
            self.catalogue.versions.push(Version {
                id: version_id(number, position),
                model: id,
                number: position,
                digest: Digest::of(&[number, position as u8]),
                files: vec![StoredFile { name: "model.onnx".to_owned(), digest: Digest::of(b"m"), bytes: 1 }],
                description: String::new(),
                tags: BTreeMap::new(),
                quality: BTreeMap::new(),
                settings: VersionSettings::default(),
                deploy: true,
                state: match state {
                    'r' => VersionState::Ready,
                    'x' => VersionState::Refused { reason: "no".to_owned() },
                    _ => VersionState::Registering,
                },
                registration: ready.then(registration),
                optimised: ready.then(|| Optimised { digest: Digest::of(b"o"), bytes: 1, key: "key".to_owned() }),
                created_ms: 0,
            });
        }
        self.catalogue.deployments.push(Deployment {
            id: DeploymentId::from_parts(u64::from(number), [number; 10]),
            model: id,
            generation: 1,
            version: deployed,
            previous: None,
            min_replicas: 0,
            max_replicas: 1,
            idle_after_ms: Some(60_000),
            default_timeout_ms: None,
            cache_ttl_ms: None,
        });
        self
    }

    pub(crate) fn alias(mut self, model: u8, name: &str, version: u32) -> Self {
        let model = ModelId::from_parts(u64::from(model), [model; 10]);
        self.catalogue.aliases.push(Alias { model, name: name.parse().unwrap(), version });
        self
    }

    /// A key of a tenant whose secret has this number in it.
    pub(crate) fn key(mut self, number: u8, tenant: u8, role: Role, expires_ms: Option<i64>) -> Self {
        self.catalogue.keys.push(Key {
            id: key_id(number),
            tenant: tenant_id(tenant),
            role,
            scope: Scope::default(),
            certificate: None,
            label: String::new(),
            secret_sha256: Digest::of(secret(number).as_bytes()),
            created_ms: 0,
            expires_ms,
            revoked_ms: None,
            last_used_ms: None,
        });
        self
    }

    pub(crate) fn routing(&self) -> Routing {
        self.after(&Routing::default())
    }

    pub(crate) fn after(&self, previous: &Routing) -> Routing {
        Routing::build(self.catalogue.clone(), previous, &limits(), &Access::new().unwrap())
    }
}

pub(crate) fn key_id(number: u8) -> KeyId {
    KeyId::from_parts(u64::from(number), [number; 10])
}

/// A secret of the form the store makes.
pub(crate) fn secret(number: u8) -> String {
    let id = key_id(number).to_string();
    let letter = char::from(b'A' + number % 26);
    format!("tnty_{}_{}", id.trim_start_matches(KeyId::PREFIX), letter.to_string().repeat(43))
}

pub(crate) fn principal(routing: &Routing, number: u8) -> Principal {
    auth::authenticate(routing, Some(&format!("Bearer {}", secret(number))), 0).unwrap()
}
