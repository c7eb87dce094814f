//! Encryption in transit: who is let in, what is refused, and that certificates change under way.

use std::time::Duration;

use tenantry_oip::grpc::proto::{ServerMetadataRequest, ServerMetadataResponse};
use tenantry_server::config::{ClientAuth, TlsVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::support::grpc::Client;
use crate::support::http2::{Http2, PREFACE};
use crate::support::tls::{Authority, Files, client, connect, simple};
use crate::support::{Connection, PATIENCE, Running};

const HERE: &str = "127.0.0.1";

/// One request on a connection of its own; an error where none can be made.
async fn ready(connector: &TlsConnector, running: &Running) -> std::io::Result<u16> {
    let mut stream = connect(connector, running.address).await?;
    // With TLS 1.3 a client hears only now that its certificate is refused.
    let head = b"GET /v2/health/ready HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    stream.write_all(head).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end")?;
    Ok(String::from_utf8(answer).unwrap().split(' ').nth(1).unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn http_and_grpc_are_served_encrypted_and_not_otherwise() {
    let (authority, files) = (Authority::new(), Files::new());
    let tls = files.put(&authority.sign(HERE));
    let mut running = Running::start_with(|settings| settings.tls = Some(tls)).await;
    for version in [&TLS12, &TLS13] {
        let http = client(&authority, None, &[version], &["http/1.1"]);
        let stream = connect(&http, running.address).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let mut connection = Connection::over(stream);
        // A connection is kept, large bodies arrive, and so does a refusal before the body is read.
        for _ in 0..2 {
            connection.send("GET", "/v2/health/ready", None, &[], b"").await;
            assert_eq!(connection.answer().await.status, 200);
        }
        let key = running.admin_key.clone();
        connection.send("POST", "/v2/models/nothing/infer", Some(&key), &[], &vec![b' '; 4 << 20]).await;
        assert_eq!(connection.answer().await.status, 400);
        connection.send("POST", "/v2/models/nothing/infer", None, &[], &vec![b' '; 4 << 20]).await;
        assert_eq!(connection.answer().await.status, 401);

        let grpc = client(&authority, None, &[version], &["h2"]);
        let mut grpc = Client::over(connect(&grpc, running.grpc_address).await.unwrap()).await;
        let ended = grpc.call("ServerMetadata", Some(&key), &[], &ServerMetadataRequest {}).await;
        assert_eq!(ended.message::<ServerMetadataResponse>().name, "tenantry");
    }
    // Of two protocols the newer; of none the older. Metrics and gRPC have one each.
    for (protocols, spoken) in
        [(&["http/1.1", "h2"][..], Some(&b"h2"[..])), (&["http/1.1"], Some(b"http/1.1")), (&[], None)]
    {
        let stream = connect(&client(&authority, None, &[&TLS13], protocols), running.address).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), spoken);
        let status = if spoken == Some(b"h2") {
            Http2::over(stream).await.send("GET", "/v2/health/ready", None, &[], b"").await.status
        } else {
            let mut connection = Connection::over(stream);
            connection.send("GET", "/v2/health/ready", None, &[], b"").await;
            connection.answer().await.status
        };
        assert_eq!(status, 200, "{protocols:?}");
    }
    assert!(connect(&simple(&authority, None, "http/1.1"), running.grpc_address).await.is_err());
    // What is spoken encrypted is agreed on before.
    let mut unsaid =
        Connection::over(connect(&client(&authority, None, &[&TLS13], &[]), running.address).await.unwrap());
    unsaid.write(PREFACE).await;
    assert_eq!(unsaid.closed().await, b"");
    // An authority that the client does not know, a protocol that is not served, and no encryption at all.
    assert!(ready(&simple(&Authority::new(), None, "http/1.1"), &running).await.is_err());
    assert!(ready(&simple(&authority, None, "http/0.9"), &running).await.is_err());
    let mut plain = running.connect().await;
    plain.send("GET", "/v2/health/ready", None, &[], b"").await;
    let said = plain.closed().await;
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    // The metrics stay as they are unless that is asked for.
    let mut metrics = Connection::over(TcpStream::connect(running.metrics_address).await.unwrap());
    metrics.send("GET", "/metrics", None, &[], b"").await;
    assert_eq!(metrics.answer().await.status, 200);
    running.begin_drain();
    running.drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_than_the_oldest_is_refused_and_metrics_are_encrypted_when_asked_for() {
    let (authority, files) = (Authority::new(), Files::new());
    let mut tls = files.put(&authority.sign(HERE));
    (tls.min_version, tls.metrics) = (TlsVersion::Tls13, true);
    let running = Running::start_with(|settings| settings.tls = Some(tls)).await;
    assert!(ready(&client(&authority, None, &[&TLS12], &[]), &running).await.is_err());
    assert_eq!(ready(&client(&authority, None, &[&TLS13], &[]), &running).await.unwrap(), 200);
    let http = simple(&authority, None, "http/1.1");
    let mut metrics = Connection::over(connect(&http, running.metrics_address).await.unwrap());
    metrics.send("GET", "/metrics", None, &[], b"").await;
    assert_eq!(metrics.answer().await.status, 200);
    assert!(connect(&simple(&authority, None, "h2"), running.metrics_address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_show_a_certificate_where_it_is_required() {
    let (authority, clients, files) = (Authority::new(), Authority::new(), Files::new());
    let (known, unknown) = (clients.sign("batch"), Authority::new().sign("batch"));
    let pair = authority.sign(HERE);
    let tls = files.put_mutual(&pair, &clients, ClientAuth::Required);
    let running = Running::start_with(|settings| settings.tls = Some(tls)).await;
    let (with, without, other) = (Some(&known), None, Some(&unknown));
    for version in [&TLS12, &TLS13] {
        let calling = async |shown| ready(&client(&authority, shown, &[version], &["http/1.1"]), &running).await;
        assert_eq!(calling(with).await.unwrap(), 200);
        assert!(calling(without).await.is_err());
        assert!(calling(other).await.is_err());
    }
    let tls = files.put_mutual(&pair, &clients, ClientAuth::Optional);
    let running = Running::start_with(|settings| settings.tls = Some(tls)).await;
    let calling = async |shown| ready(&simple(&authority, shown, "http/1.1"), &running).await;
    assert_eq!((calling(with).await.unwrap(), calling(without).await.unwrap()), (200, 200));
    assert!(calling(other).await.is_err(), "one that is shown must be good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_served_without_a_restart_and_a_broken_one_is_not() {
    let (first, second, files) = (Authority::new(), Authority::new(), Files::new());
    let tls = files.put(&first.sign(HERE));
    let running = Running::start_with(|settings| settings.tls = Some(tls)).await;
    let (old, new) = (simple(&first, None, "http/1.1"), simple(&second, None, "http/1.1"));
    let mut kept = Connection::over(connect(&old, running.address).await.unwrap());
    assert!(ready(&new, &running).await.is_err());

    let tls = running.tls.as_ref().unwrap();
    let (pair, other) = (second.sign(HERE), second.sign(HERE));
    files.put(&pair);
    assert!(tls.reload().await);
    assert_eq!(ready(&new, &running).await.unwrap(), 200);
    assert!(ready(&old, &running).await.is_err());
    kept.send("GET", "/v2/health/ready", None, &[], b"").await;
    assert_eq!(kept.answer().await.status, 200, "a connection goes on with what it began with");

    // Half of a new pair, no certificate, an empty file.
    let broken = [(&*other.certificate, &*pair.key), ("nothing", &*other.key), ("", "")];
    for (certificate, key) in broken {
        files.put(&crate::support::tls::Pair { certificate: certificate.to_owned(), key: key.to_owned() });
        assert!(!tls.reload().await);
        assert_eq!(ready(&new, &running).await.unwrap(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_does_not_come_to_an_end_is_ended_and_holds_up_nobody() {
    let (authority, files) = (Authority::new(), Files::new());
    let tls = files.put(&authority.sign(HERE));
    let change = |settings: &mut tenantry_server::config::HttpSettings| {
        settings.tls = Some(tls);
        settings.max_connections = 4;
        settings.header_timeout = Duration::from_secs(2);
    };
    let running = Running::start_with(change).await;
    let http = simple(&authority, None, "http/1.1");
    let mut silent = Vec::new();
    for address in [running.address, running.grpc_address] {
        for _ in 0..3 {
            let mut connection = Connection::over(TcpStream::connect(address).await.unwrap());
            // The beginning of a handshake, and no more of it.
            connection.write(&[22, 3, 1]).await;
            silent.push(connection);
        }
    }
    assert_eq!(ready(&http, &running).await.unwrap(), 200);
    for connection in &mut silent {
        connection.closed().await;
    }
    // Their places are free again: more than there are come in one after the other.
    for _ in 0..6 {
        assert_eq!(ready(&http, &running).await.unwrap(), 200);
    }
}
