//! Reading an issuer's keys: its discovery document (OpenID Connect Discovery 1.0, section 4; RFC 8414), then the set it names.
//!
//! Only addresses of the configuration are asked, and the one that the discovery document names; encrypted, but for this
//! machine; no redirect is followed; answers are small and come soon.

use std::io;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::config::{IssuerSettings, is_fit_to_fetch};

/// How long all of one request may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest document, bytes.
const MAX_BYTES: u64 = 512 << 10;

/// Why an issuer's keys could not be read. For the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("asking it failed")]
    Ask(#[from] ureq::Error),
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("the file of its authorities cannot be used")]
    Ca(#[source] io::Error),
    #[error("its discovery document says it is another issuer's")]
    OtherIssuer,
    #[error("its discovery document names no address of keys that may be asked")]
    NoKeys,
    #[error("its set of keys is none")]
    NoSet,
}

/// The set of keys, as a document. Waits for the network.
pub(super) fn keys(settings: &IssuerSettings) -> Result<Value, FetchError> {
    let agent = agent(settings)?;
    let url = match &settings.jwks_url {
        Some(url) => url.clone(),
        None => {
            let document =
                get(&agent, &format!("{}/.well-known/openid-configuration", settings.url.trim_end_matches('/')))?;
            // Or somebody's keys could be passed off as another's (OpenID Connect Discovery 1.0, section 4.3).
            if document.get("issuer").and_then(Value::as_str) != Some(&settings.url) {
                return Err(FetchError::OtherIssuer);
            }
            let url = document.get("jwks_uri").and_then(Value::as_str).filter(|url| is_fit_to_fetch(url));
            url.ok_or(FetchError::NoKeys)?.to_owned()
        }
    };
    let set = get(&agent, &url)?;
    if set.get("keys").is_some_and(Value::is_array) { Ok(set) } else { Err(FetchError::NoSet) }
}

fn agent(settings: &IssuerSettings) -> Result<Agent, FetchError> {
    let mut tls = TlsConfig::builder();
    if let Some(path) = &settings.ca {
        let text = std::fs::read(path).map_err(FetchError::Ca)?;
        let certificates: Vec<Certificate<'static>> = parse_pem(&text)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        if certificates.is_empty() {
            return Err(FetchError::Ca(io::Error::from(io::ErrorKind::InvalidData)));
        }
        tls = tls.root_certs(RootCerts::from(certificates));
    }
    let config = Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        // What the environment says of proxies is for other programs.
        .proxy(None)
        .tls_config(tls.build());
    Ok(Agent::new_with_config(config.build()))
}

fn get(agent: &Agent, url: &str) -> Result<Value, FetchError> {
    let mut answer = agent.get(url).call()?;
    if answer.status() != 200 {
        return Err(FetchError::Status(answer.status().as_u16()));
    }
    Ok(answer.body_mut().with_config().limit(MAX_BYTES).read_json()?)
}
