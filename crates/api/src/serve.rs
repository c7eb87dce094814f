//! The listeners and the connection loop, with every limit on what a network peer may hold.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tenantry_server::Server;
use tenantry_server::config::HttpSettings;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{Opened, Peer};
use crate::route::{Edge, Entrance};
use crate::stream::Stream;
use crate::tls::{self, Tls, TlsError};
use crate::{grpc, http1, http2};

/// The most bytes of a request's line and headers.
pub(crate) const MAX_HEADER_BYTES: usize = 32 << 10;
/// The most bytes of a connection's read buffer: what one read of a large body takes.
pub(crate) const MAX_BUFFER_BYTES: usize = 256 << 10;
/// Connections to the metrics listener: a few scrapers.
const MAX_METRICS_CONNECTIONS: usize = 32;
/// The listeners.
const DOORS: usize = 3;
/// How long accepting pauses when the process has no descriptors left: until some connection ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Sockets that are bound and listening.
#[derive(Debug)]
pub struct Listeners {
    main: TcpListener,
    metrics: TcpListener,
    grpc: TcpListener,
    tls: Option<Arc<Tls>>,
}

/// Why the listeners cannot be made. For the operator.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Address {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Encryption cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
}

impl Listeners {
    /// Binds the addresses of the settings; port 0 lets the system choose. Reads the files of TLS.
    ///
    /// # Errors
    /// What the system says, with the address it says it of; files that are not good.
    pub async fn bind(settings: &HttpSettings) -> Result<Self, BindError> {
        let tls = settings.tls.clone().map(Tls::open).transpose()?.map(Arc::new);
        let listeners = Self {
            main: bind(settings.listen).await?,
            metrics: bind(settings.metrics_listen).await?,
            grpc: bind(settings.grpc_listen).await?,
            tls,
        };
        listeners.warn_of_plain_text(settings);
        Ok(listeners)
    }

    /// Says loudly what can be read on the way. That it was asked for is the settings' business.
    fn warn_of_plain_text(&self, settings: &HttpSettings) {
        let encrypts_metrics = settings.tls.as_ref().is_some_and(|tls| tls.metrics);
        let doors = [
            ("HTTP", &self.main, self.tls.is_some()),
            ("gRPC", &self.grpc, self.tls.is_some()),
            ("metrics", &self.metrics, encrypts_metrics),
        ];
        for (what, listener, is_encrypted) in doors {
            if let Ok(address) = listener.local_addr()
                && !is_encrypted
                && !address.ip().to_canonical().is_loopback()
            {
                tracing::warn!(
                    %address,
                    "PLAIN TEXT: {what} is served without encryption on an address that other machines reach; \
                     keys and data can be read on the way (see [http.tls])"
                );
            }
        }
    }

    /// How connections are encrypted, if they are: for whoever wants the files read again.
    pub fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.clone()
    }

    /// Where the data plane and the admin API are reached.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.main.local_addr()
    }

    /// Where `/metrics` is reached.
    ///
    /// # Errors
    /// What the system says.
    pub fn metrics_address(&self) -> io::Result<SocketAddr> {
        self.metrics.local_addr()
    }

    /// Where gRPC is reached.
    ///
    /// # Errors
    /// What the system says.
    pub fn grpc_address(&self) -> io::Result<SocketAddr> {
        self.grpc.local_addr()
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError::Address { address, source })
}

/// Serves until `shutdown` is ready, then drains: no new connections, idle ones are closed, running requests get
/// `settings.drain_timeout` to end. Returns when all connections are closed or that time is over.
pub async fn serve(
    server: Arc<Server>,
    listeners: Listeners,
    settings: HttpSettings,
    shutdown: impl Future<Output = ()>,
) {
    let max_connections = most(settings.max_connections);
    let drain_timeout = settings.drain_timeout;
    let edge = Arc::new(Edge::new(server, settings).await);
    let stopping = edge.stopping.clone();
    let tracker = TaskTracker::new();
    let Listeners { main, metrics, grpc, tls } = listeners;
    let metrics_tls = tls.clone().filter(|_| edge.settings.tls.as_ref().is_some_and(|tls| tls.metrics));
    let door = |entrance, listener, tls, max_connections| Door {
        entrance,
        listener,
        tls,
        places: Arc::new(Semaphore::new(max_connections)),
        edge: Arc::clone(&edge),
        stopping: stopping.clone(),
        tracker: tracker.clone(),
    };
    tracker.spawn(door(Entrance::Main, main, tls.clone(), max_connections).run());
    tracker.spawn(door(Entrance::Grpc, grpc, tls.clone(), max_connections).run());
    tracker.spawn(door(Entrance::Metrics, metrics, metrics_tls, MAX_METRICS_CONNECTIONS).run());
    let following = tls.map(|tls| tokio::spawn(tls.follow(stopping.clone())));

    shutdown.await;
    tracing::info!(connections = tracker.len().saturating_sub(DOORS), "draining");
    edge.drain().await;
    tracker.close();
    if tokio::time::timeout(drain_timeout, tracker.wait()).await.is_err() {
        tracing::warn!(connections = tracker.len(), "the time to drain is over; closing the rest");
    }
    if let Some(following) = following {
        // It ends when `stopping`; one that panicked was logged by the runtime.
        let _ = following.await;
    }
}

/// As many places as a setting says.
fn most(places: u32) -> usize {
    usize::try_from(places).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

/// One listener and what it lets in.
struct Door {
    entrance: Entrance,
    listener: TcpListener,
    places: Arc<Semaphore>,
    /// How its connections are encrypted, if they are.
    tls: Option<Arc<Tls>>,
    edge: Arc<Edge>,
    stopping: CancellationToken,
    tracker: TaskTracker,
}

impl Door {
    async fn run(self) {
        loop {
            // Beyond the limit, connections wait in the system's backlog, which is bounded too.
            let accepted = async {
                let place = Arc::clone(&self.places).acquire_owned().await;
                (place, self.listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                accepted = accepted => accepted,
                () = self.stopping.cancelled() => return,
            };
            // Nobody closes the semaphore.
            let Ok(place) = place else { return };
            match accepted {
                Ok((stream, address)) => {
                    let (entrance, edge, stopping) = (self.entrance, Arc::clone(&self.edge), self.stopping.clone());
                    let tls = self.tls.clone();
                    self.tracker.spawn(async move {
                        let opened = tokio::select! {
                            opened = open(entrance, stream, address, tls, edge.settings.header_timeout) => opened,
                            () = stopping.cancelled() => None,
                        };
                        if let Some(opened) = opened {
                            serve_connection(entrance, opened, &edge).await;
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Makes a connection ready for its first request: the handshake, where it is encrypted, within `limit`. It has its place
/// among the connections already.
async fn open(
    entrance: Entrance,
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    limit: Duration,
) -> Option<Opened> {
    // Replies are written whole; waiting to fill a packet would only delay them. A socket that cannot is as good.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        let (stream, peer) = (Stream::Plain(stream), Peer::new(address, None));
        return Some(Opened { stream, peer, is_http2: false, read: Bytes::new() });
    };
    match tokio::time::timeout(limit, tls.accept(entrance, stream)).await {
        Ok(Ok(stream)) => {
            let peer = Peer::new(address, tls::client_certificate(&stream));
            let is_http2 = tls::is_http2(&stream);
            Some(Opened { stream: Stream::Tls(Box::new(stream)), peer, is_http2, read: Bytes::new() })
        }
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "a handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(%address, "a handshake took too long");
            None
        }
    }
}

/// Serves a connection to its end, in the protocol its client speaks.
async fn serve_connection(entrance: Entrance, opened: Opened, edge: &Arc<Edge>) {
    let opened = match entrance {
        Entrance::Grpc => return http2::serve(entrance, opened, edge, grpc::answer).await,
        Entrance::Main if opened.is_http2 => Some(opened),
        Entrance::Main | Entrance::Metrics => http1::serve(entrance, opened, edge).await,
    };
    if let Some(opened) = opened {
        http2::serve(entrance, opened, edge, http2::answer).await;
    }
}
