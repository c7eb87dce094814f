//! Encryption in transit: TLS 1.2 and 1.3 with rustls, whose suites all have forward secrecy and authenticated encryption.
//!
//! The files are read at the start, where one that is not good ends it, and again when they change or somebody asks
//! ([`Tls::reload`]). What is read again is put in force whole or not at all: with a certificate that is not good the old one
//! stays. Connections go on with what they began with; sessions that began before are not resumed.
//!
//! Clients say which protocols they speak (ALPN): HTTP/2 or HTTP/1.1 on the main listener, HTTP/1.1 on that of the metrics,
//! HTTP/2 on gRPC's. Of two that both sides speak it is HTTP/2; a client that says nothing gets its listener's older one.

mod certificate;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tenantry_server::config::{ClientAuth, TlsSettings, TlsVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::route::Entrance;

pub(crate) use certificate::ClientCertificate;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The protocols' names (RFC 7301).
const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";
/// The largest file of certificates or keys, bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Why the files cannot be used. For the operator.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} holds no {what} in PEM form", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Certificate and key do not go together, or are of a kind that is not supported.
    #[error("the certificate in {} and the key in {} cannot be used: {reason}", certificate.display(), key.display())]
    Certificate {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What the library said.
        reason: String,
    },
    /// The authority for clients' certificates cannot be used.
    #[error("the authorities in {} cannot be used: {reason}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What the library said.
        reason: String,
    },
}

/// The server's side of TLS.
#[derive(Debug)]
pub struct Tls {
    settings: TlsSettings,
    in_force: ArcSwap<InForce>,
    /// The files as they were when they were read last.
    seen: Mutex<Vec<Option<FileState>>>,
}

/// What connections begin with.
#[derive(Debug)]
struct InForce {
    main: Arc<ServerConfig>,
    metrics: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
}

/// What tells whether a file is still the same.
type FileState = (u64, u64, Option<SystemTime>);

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn open(settings: TlsSettings) -> Result<Self, TlsError> {
        // Before they are read: what changes meanwhile is seen as a change.
        let seen = states(&settings);
        let in_force = ArcSwap::from_pointee(read(&settings)?);
        Ok(Self { settings, in_force, seen: Mutex::new(seen) })
    }

    /// Reads the files again. Answers whether they are in force now; if they are not good, the old ones stay, and the log says
    /// why.
    pub async fn reload(self: &Arc<Self>) -> bool {
        let tls = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            *tls.seen.lock() = states(&tls.settings);
            read(&tls.settings).map(|next| tls.in_force.store(Arc::new(next)))
        });
        match read.await {
            Ok(Ok(())) => {
                tracing::info!("the certificate was read again and is in force");
                true
            }
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the new certificate is not good; the old one stays in force");
                false
            }
            Err(error) => {
                tracing::error!(%error, "reading the certificate again failed");
                false
            }
        }
    }

    /// Reads the files again whenever they change.
    pub(crate) async fn follow(self: Arc<Self>, stopping: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stopping.cancelled() => return,
            }
            let tls = Arc::clone(&self);
            let is_changed = tokio::task::spawn_blocking(move || states(&tls.settings) != *tls.seen.lock());
            if is_changed.await.unwrap_or(false) {
                self.reload().await;
            }
        }
    }

    /// The handshake of a new connection.
    pub(crate) async fn accept(&self, entrance: Entrance, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = {
            let in_force = self.in_force.load();
            Arc::clone(match entrance {
                Entrance::Main => &in_force.main,
                Entrance::Metrics => &in_force.metrics,
                Entrance::Grpc => &in_force.grpc,
            })
        };
        TlsAcceptor::from(config).accept(stream).await
    }
}

/// Whether both sides have agreed on HTTP/2.
pub(crate) fn is_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}

/// The client's certificate of a connection, which the handshake has verified, if it has one.
pub(crate) fn client_certificate(stream: &TlsStream<TcpStream>) -> Option<ClientCertificate> {
    let (_, connection) = stream.get_ref();
    connection.peer_certificates()?.first().map(ClientCertificate::read)
}

fn states(settings: &TlsSettings) -> Vec<Option<FileState>> {
    let files = [Some(&settings.certificate), Some(&settings.key), settings.client_ca.as_ref()];
    let state = |path: &PathBuf| fs::metadata(path).ok().map(|file| (file.ino(), file.len(), file.modified().ok()));
    files.into_iter().flatten().map(state).collect()
}

fn read(settings: &TlsSettings) -> Result<InForce, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let versions: &[&SupportedProtocolVersion] = match settings.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let certificates = certificates(&settings.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes(&settings.key)?)
        .map_err(|_| TlsError::Content { path: settings.key.clone(), what: "private key" })?;
    let unusable = |error: tokio_rustls::rustls::Error| TlsError::Certificate {
        certificate: settings.certificate.clone(),
        key: settings.key.clone(),
        reason: error.to_string(),
    };
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let config = config.with_protocol_versions(versions).map_err(unusable)?;
    let config = match &settings.client_ca {
        None => config.with_no_client_auth(),
        Some(path) => {
            let refused = |reason: String| TlsError::ClientCa { path: path.clone(), reason };
            let mut roots = RootCertStore::empty();
            for authority in self::certificates(path)? {
                roots.add(authority).map_err(|error| refused(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match settings.client_auth {
                ClientAuth::Required => verifier,
                ClientAuth::Optional | ClientAuth::Off => verifier.allow_unauthenticated(),
            };
            config.with_client_cert_verifier(verifier.build().map_err(|error| refused(error.to_string()))?)
        }
    };
    let config = config.with_single_cert(certificates, key).map_err(unusable)?;
    // The first that the client has, too, is what is spoken.
    let speaking = |protocols: &[&[u8]]| {
        let mut config = config.clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    };
    Ok(InForce { main: speaking(&[HTTP2, HTTP1]), metrics: speaking(&[HTTP1]), grpc: speaking(&[HTTP2]) })
}

/// All certificates of a file, in its order.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(path)?).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsError::Content { path: path.to_owned(), what: "certificate" }),
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    use io::Read as _;

    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}
