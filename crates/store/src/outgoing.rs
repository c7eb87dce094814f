//! What the server asks of others: keys of its tenants' files, keys of issuers. One client for all of it, so that its bounds are in
//! one place: no redirect is followed, no proxy of the environment is used, all of a call has an end. Whoever makes one says
//! by its address whether plain text may be spoken ([`is_this_machine`]).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A text that holds no certificate in PEM form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no certificate in PEM form")]
pub struct NoCertificate;

/// A client. `authorities`: those who sign certificates, in PEM form; none: the public ones. `https_only`: whether anything else
/// is refused.
///
/// # Errors
/// [`NoCertificate`].
pub fn agent(authorities: Option<&[u8]>, https_only: bool, timeout: Duration) -> Result<Agent, NoCertificate> {
    let roots = match authorities {
        None => RootCerts::WebPki,
        Some(pem) => RootCerts::Specific(Arc::new(certificates(pem)?)),
    };
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .https_only(https_only)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .timeout_connect(Some(CONNECT_TIMEOUT.min(timeout)))
        .timeout_global(Some(timeout))
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .user_agent(concat!("tenantry/", env!("CARGO_PKG_VERSION")));
    Ok(Agent::new_with_config(config.build()))
}

/// Whether a URL's host is this machine, whose programs alone can read what is said to it.
pub fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, NoCertificate> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|_| NoCertificate)? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(NoCertificate) } else { Ok(found) }
}
