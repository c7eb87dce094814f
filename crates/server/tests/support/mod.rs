//! A whole service on a folder of its own: real store, real node, real workers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::smallvec;
use tempfile::TempDir;
use tenantry_node::{Layers, Node, NodeConfig};
use tenantry_server::admin::{DeploymentChange, ModelChange, NewKey, NewVersion, VersionInfo, VersionState};
use tenantry_server::config::{Config, Limits, Settings};
use tenantry_server::{
    ADMIN_KEY_FILE, Inferred, OPERATOR_TENANT, Presented, Principal, Role, Server, ServerConfig, Sharing,
};
use tenantry_store::{Store, StoreConfig};
use tenantry_types::testing::cache::runtime_library;
use tenantry_types::{DataType, InferRequest, Inputs, ModelName, ModelRef, ServiceError, Shape, TenantName, Tensor};

/// Turns a hang into a failure; nothing here waits for a duration to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running service.
pub(crate) struct World {
    pub(crate) server: Arc<Server>,
    pub(crate) node: Arc<Node>,
    pub(crate) folder: PathBuf,
    _own: Option<TempDir>,
}

fn worker_binary() -> PathBuf {
    let binary = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("tenantry-worker");
    assert!(binary.exists(), "build the worker first: cargo build --release -p tenantry-worker");
    binary
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Limits)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        Self { _own: Some(folder), ..Self::start_in(&path, change).await }
    }

    /// Starts on a folder that outlives the service.
    pub(crate) async fn start_in(folder: &Path, change: impl FnOnce(&mut Limits)) -> Self {
        Self::start_changed(folder, &worker_binary(), change, |config| config).await
    }

    /// Starts with these barriers around workers.
    pub(crate) async fn start_behind(layers: Layers) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let world =
            Self::start_changed(&path, &worker_binary(), |_| {}, |config| NodeConfig { layers, ..config }).await;
        Self { _own: Some(folder), ..world }
    }

    /// Starts on a folder with this program as spawner and worker.
    pub(crate) async fn start_changed(
        folder: &Path,
        program: &Path,
        change: impl FnOnce(&mut Limits),
        change_node: impl FnOnce(NodeConfig) -> NodeConfig,
    ) -> Self {
        let store = open_store(folder).await;
        let (spawner, exits) = tenantry_jail::Spawner::start(program).unwrap();
        let config = NodeConfig { slots: 2, ..NodeConfig::small(program.to_owned(), runtime_library()) };
        let node = Node::start(change_node(config), spawner, exits).unwrap();
        let mut limits = Limits::defaults();
        change(&mut limits);
        let settings = Settings::from_config(&Config::default()).unwrap();
        let (billing, identity) = (settings.billing, settings.identity);
        let config = ServerConfig { data_dir: folder.to_owned(), billing, identity, limits };
        let server = Server::start(config, store, Arc::clone(&node)).await.unwrap();
        Self { server, node, folder: folder.to_owned(), _own: None }
    }

    /// The platform admin, by the key the first start left.
    pub(crate) fn platform(&self) -> Principal {
        self.login(std::fs::read_to_string(self.folder.join(ADMIN_KEY_FILE)).unwrap().trim()).unwrap()
    }

    pub(crate) fn login(&self, secret: &str) -> Result<Principal, ServiceError> {
        let authorization = format!("Bearer {secret}");
        self.server.authenticate_now(&Presented { authorization: Some(&authorization), ..Presented::default() })
    }

    /// A new tenant and its admin.
    pub(crate) async fn tenant(&self, name: &str) -> Principal {
        self.server.create_tenant(&self.platform(), &tenant(name)).await.unwrap();
        let new = NewKey { label: "test".to_owned(), ..NewKey::of(Role::Admin) };
        let key = self.server.create_key(&self.platform(), &tenant(name), new).await.unwrap();
        self.login(key.secret.as_deref().unwrap()).unwrap()
    }

    /// Uploads a file, makes a version of it and waits until it is registered.
    pub(crate) async fn push(&self, owner: &Principal, name: &str, filename: &str, file: &[u8]) -> VersionInfo {
        let version = self.push_with(owner, name, filename, file, |_| {}).await.unwrap();
        self.registered(owner, name, version.number).await
    }

    pub(crate) async fn push_with(
        &self,
        owner: &Principal,
        name: &str,
        filename: &str,
        file: &[u8],
        change: impl FnOnce(&mut NewVersion),
    ) -> Result<VersionInfo, ServiceError> {
        let bytes = file.len() as u64;
        let mut upload = self.server.begin_upload(owner, &owner.tenant_name, Some(bytes)).await?;
        upload.write(Bytes::copy_from_slice(file)).await?;
        let artefact = upload.finish().await?;
        let mut new = NewVersion {
            artefact: artefact.digest,
            filename: filename.to_owned(),
            settings: Default::default(),
            description: String::new(),
            tags: Default::default(),
            quality: Default::default(),
            framework: None,
            dependencies: None,
            min_isolation: None,
            deploy: true,
        };
        change(&mut new);
        self.server.create_version(owner, &owner.tenant_name, &model(name), new).await
    }

    pub(crate) async fn registered(&self, owner: &Principal, name: &str, number: u32) -> VersionInfo {
        let version =
            self.server.version(owner, &owner.tenant_name, &model(name), number, Some(PATIENCE)).await.unwrap();
        assert_ne!(version.state, VersionState::Registering, "no end of the registration");
        version
    }

    pub(crate) async fn share(&self, owner: &Principal, name: &str) {
        let change = ModelChange { shared: Some(Sharing::Everyone), ..ModelChange::default() };
        self.server.update_model(owner, &owner.tenant_name, &model(name), change).await.unwrap();
    }

    pub(crate) async fn deploy(&self, owner: &Principal, name: &str, change: impl FnOnce(&mut DeploymentChange)) {
        let now = self.server.deployment(owner, &owner.tenant_name, &model(name)).unwrap();
        let mut wanted = DeploymentChange {
            generation: now.generation,
            version: now.version,
            min_replicas: now.min_replicas,
            max_replicas: now.max_replicas,
            idle_after: now.idle_after,
            default_timeout: now.default_timeout,
            cache_ttl: now.cache_ttl,
        };
        change(&mut wanted);
        self.server.set_deployment(owner, &owner.tenant_name, &model(name), wanted).await.unwrap();
    }

    pub(crate) async fn infer(&self, caller: &Principal, request: InferRequest) -> Result<Inferred, ServiceError> {
        let permit = self.server.admit(caller, &request.model, Some(request.data_bytes() as u64))?;
        let answer = self.server.infer(caller, &permit, self.server.new_request_id(), request);
        tokio::time::timeout(PATIENCE, answer).await.expect("no answer")
    }

    /// One row of sixteen equal values through a `matmul16`.
    pub(crate) async fn matmul(&self, caller: &Principal, name: &str, value: f32) -> Result<Vec<f32>, ServiceError> {
        self.infer(caller, request(name, vec![sixteen(value)])).await.map(|inferred| floats(&inferred))
    }

    /// Waits until the node looks as wanted.
    pub(crate) async fn until<T>(&self, what: &str, mut done: impl FnMut(&Arc<Node>) -> Option<T>) -> T {
        let mut changes = self.node.changes();
        let wait = async {
            loop {
                changes.mark_unchanged();
                if let Some(value) = done(&self.node) {
                    return value;
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("no {what}"))
    }

    /// Ends the service as a signal would.
    pub(crate) async fn stop(self) {
        self.server.drain(PATIENCE).await;
    }
}

pub(crate) async fn open_store(folder: &Path) -> Store {
    Store::open(&StoreConfig { database_url: None, data_dir: folder.to_owned() }).await.unwrap()
}

pub(crate) fn tenant(name: &str) -> TenantName {
    name.parse().unwrap()
}

pub(crate) fn operator() -> TenantName {
    tenant(OPERATOR_TENANT)
}

pub(crate) fn model(name: &str) -> ModelName {
    name.parse().unwrap()
}

pub(crate) fn reference(text: &str) -> ModelRef {
    text.parse().unwrap()
}

pub(crate) fn request(name: &str, inputs: Vec<Tensor>) -> InferRequest {
    InferRequest {
        id: Some("mine".to_owned()),
        timeout: Some(PATIENCE),
        ..InferRequest::new(reference(name), Inputs::Named(inputs))
    }
}

pub(crate) fn tensor(name: &str, datatype: DataType, shape: &[u64], data: Vec<u8>) -> Tensor {
    let shape: Shape = shape.iter().copied().collect();
    Tensor { name: name.to_owned(), datatype, shape, data: data.into() }
}

pub(crate) fn sixteen(value: f32) -> Tensor {
    let data = std::iter::repeat_n(value.to_le_bytes(), 16).flatten().collect::<Vec<u8>>();
    Tensor { name: "x".to_owned(), datatype: DataType::Fp32, shape: smallvec![1, 16], data: data.into() }
}

pub(crate) fn integers(name: &str, shape: &[u64], values: &[i64]) -> Tensor {
    tensor(name, DataType::Int64, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

pub(crate) fn floats(inferred: &Inferred) -> Vec<f32> {
    let bytes = inferred.response.outputs[0].data.to_contiguous();
    bytes.chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect()
}
