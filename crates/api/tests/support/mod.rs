//! A whole server on a port of its own, and a client that sends exactly the bytes it is told to.

pub(crate) mod grpc;
pub(crate) mod http2;
pub(crate) mod tls;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tenantry_api::{Listeners, Tls};
use tenantry_node::{Node, NodeConfig};
use tenantry_server::config::{Config, HttpSettings, Settings};
use tenantry_server::{Server, ServerConfig};
use tenantry_store::{Store, StoreConfig};
use tenantry_types::testing::cache;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Turns a hang into a failure; nothing waits for it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A server with a platform administrator's key.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) grpc_address: SocketAddr,
    pub(crate) metrics_address: SocketAddr,
    pub(crate) admin_key: String,
    pub(crate) server: Arc<Server>,
    pub(crate) tls: Option<Arc<Tls>>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
    _folder: TempDir,
}

fn worker_binary() -> PathBuf {
    let binary = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("tenantry-worker");
    assert!(binary.exists(), "build the worker first: cargo build --release -p tenantry-worker");
    binary
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts with changed settings of the edges.
    pub(crate) async fn start_with(change: impl FnOnce(&mut HttpSettings)) -> Self {
        let (spawner, exits) = tenantry_jail::Spawner::start(&worker_binary()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::from_config(&Config::default()).unwrap();
        change(&mut settings.http);
        settings.limits.max_body_bytes = settings.http.max_body_bytes;
        let node = NodeConfig {
            max_queued_tasks: 100,
            max_queued_bytes: 1 << 28,
            max_queued_tasks_per_tenant: 100,
            load_limit: Duration::from_secs(30),
            ..NodeConfig::small(worker_binary(), cache::runtime_library())
        };
        let node = Node::start(node, spawner, exits).unwrap();
        let data_dir = folder.path().to_owned();
        let store = Store::open(&StoreConfig { database_url: None, data_dir: data_dir.clone() }).await.unwrap();
        let config = ServerConfig {
            data_dir: data_dir.clone(),
            billing: settings.billing,
            identity: settings.identity,
            limits: settings.limits,
        };
        let server = Server::start(config, store, node).await.unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        (settings.http.listen, settings.http.grpc_listen, settings.http.metrics_listen) = (any, any, any);
        let listeners = Listeners::bind(&settings.http).await.unwrap();
        let (address, metrics_address) = (listeners.address().unwrap(), listeners.metrics_address().unwrap());
        let (grpc_address, tls) = (listeners.grpc_address().unwrap(), listeners.tls());
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(tenantry_api::serve(Arc::clone(&server), listeners, settings.http, async {
            let _ = stopped.await;
        }));
        let admin_key = std::fs::read_to_string(data_dir.join("admin.key")).unwrap().trim().to_owned();
        Self {
            address,
            grpc_address,
            metrics_address,
            admin_key,
            server,
            tls,
            stop: Some(stop),
            serving: Some(serving),
            _folder: folder,
        }
    }

    pub(crate) fn begin_drain(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    pub(crate) async fn drained(&mut self) {
        tokio::time::timeout(PATIENCE, self.serving.take().unwrap()).await.expect("draining ends").unwrap();
    }

    /// One request on a connection of its own.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut connection = self.connect().await;
        connection.send(method, path, key, headers, body).await;
        connection.answer().await
    }

    pub(crate) async fn get(&self, path: &str, key: &str) -> Answer {
        self.send("GET", path, Some(key), &[], b"").await
    }

    pub(crate) async fn post(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.send("POST", path, Some(key), &[], body.to_string().as_bytes()).await
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::over(TcpStream::connect(self.address).await.unwrap())
    }

    /// A tenant with a key of each role but the platform's: (administrator's, invoker's).
    pub(crate) async fn tenant(&self, name: &str) -> (String, String) {
        let created = self.post("/admin/v1/tenants", &self.admin_key, &serde_json::json!({ "name": name })).await;
        assert_eq!(created.status, 201, "{created:?}");
        let mut keys = Vec::new();
        for role in ["admin", "invoker"] {
            let path = format!("/admin/v1/tenants/{name}/keys");
            let created =
                self.post(&path, &self.admin_key, &serde_json::json!({ "role": role, "label": "test" })).await;
            assert_eq!(created.status, 201, "{created:?}");
            keys.push(created.json()["key"].as_str().unwrap().to_owned());
        }
        let invoker = keys.pop().unwrap();
        (keys.pop().unwrap(), invoker)
    }

    /// Uploads a model file, makes a version of it and waits until it is registered.
    pub(crate) async fn push(&self, owner: &str, model: &str, key: &str, file: &[u8]) -> Value {
        self.push_as(owner, model, key, file, "model.onnx").await
    }

    /// The same for several files in an archive.
    pub(crate) async fn push_files(&self, owner: &str, model: &str, key: &str, files: &[(&str, &[u8])]) -> Value {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, *content).unwrap();
        }
        self.push_as(owner, model, key, &archive.into_inner().unwrap(), "model.tar").await
    }

    async fn push_as(&self, owner: &str, model: &str, key: &str, file: &[u8], name: &str) -> Value {
        let uploaded = self
            .send("POST", &format!("/admin/v1/tenants/{owner}/artefacts?filename={name}"), Some(key), &[], file)
            .await;
        assert_eq!(uploaded.status, 201, "{uploaded:?}");
        let new = serde_json::json!({ "artefact": uploaded.json()["digest"], "filename": name });
        let path = format!("/admin/v1/tenants/{owner}/models/{model}/versions");
        let created = self.post(&path, key, &new).await;
        assert_eq!(created.status, 202, "{created:?}");
        let number = created.json()["number"].as_u64().unwrap();
        let registered = self.get(&format!("{path}/{number}?wait_ms=60000"), key).await;
        assert_eq!(registered.status, 200, "{registered:?}");
        registered.json()
    }
}

/// What a connection is made of, encrypted or not.
pub(crate) trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Bytes for S {}

/// A connection to the server.
pub(crate) struct Connection {
    stream: Box<dyn Bytes>,
    received: Vec<u8>,
}

/// An answer of the server.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The text of an error, whose form is checked.
    pub(crate) fn error(&self) -> String {
        let body = self.json();
        // A refusal says why in a word for programs, too.
        assert_eq!(body.as_object().unwrap().len(), if body["reason"].is_string() { 4 } else { 3 }, "{body}");
        assert!(body["code"].is_string(), "{body}");
        assert_eq!(body["request_id"].as_str(), self.header("x-request-id"), "{body}");
        body["error"].as_str().unwrap().to_owned()
    }
}

impl Connection {
    pub(crate) fn over(stream: impl Bytes + 'static) -> Self {
        Self { stream: Box::new(stream), received: Vec::new() }
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        key: Option<&str>,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
        if let Some(key) = key {
            write!(head, "authorization: Bearer {key}\r\n").unwrap();
        }
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        if !headers.iter().any(|(name, _)| ["content-length", "transfer-encoding"].contains(name)) {
            write!(head, "content-length: {}\r\n", body.len()).unwrap();
        }
        head.push_str("\r\n");
        self.write(&[head.as_bytes(), body].concat()).await;
    }

    /// Sends bytes as they are. A server that has refused already may have closed; the answer tells.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        // What is encrypted and found no room in the socket waits for this.
        let _ = self.stream.flush().await;
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        tokio::time::timeout(PATIENCE, self.read_answer()).await.expect("an answer")
    }

    /// Waits for the server to close; whatever it still sends is returned.
    pub(crate) async fn closed(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.received);
        let end = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("the end");
        // A reset is an end too.
        let _ = end;
        rest
    }

    async fn read_answer(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.read_more().await;
        };
        let head = String::from_utf8(self.received.drain(..end).collect()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length =
            headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, value)| value.parse().unwrap());
        while self.received.len() < length {
            self.read_more().await;
        }
        let body = self.received.drain(..length).collect();
        Answer { status, headers, body }
    }

    async fn read_more(&mut self) {
        let read = self.stream.read_buf(&mut self.received).await.unwrap();
        assert!(
            read > 0,
            "the server closed in the middle of an answer: {:?}",
            String::from_utf8_lossy(&self.received)
        );
    }
}
