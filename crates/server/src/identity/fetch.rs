//! Reading an issuer's keys: its discovery document (OpenID Connect Discovery 1.0, section 4; RFC 8414), then the set it names.
//!
//! Only addresses of the configuration are asked, and the one that the discovery document names; encrypted, but for this
//! machine; no redirect is followed; answers are small and come soon.

use std::io;
use std::time::Duration;

use serde_json::Value;
use tenantry_store::outgoing::{self, NoCertificate};
use ureq::Agent;

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
    #[error("the file of its authorities cannot be read")]
    Ca(#[from] io::Error),
    #[error("the file of its authorities cannot be used")]
    NoCertificate(#[from] NoCertificate),
    #[error("its discovery document says it is another issuer's")]
    OtherIssuer,
    #[error("its discovery document names no address of keys that may be asked")]
    NoKeys,
    #[error("its set of keys is none")]
    NoSet,
}

/// The set of keys, as a document. Waits for the network.
pub(super) fn keys(settings: &IssuerSettings) -> Result<Value, FetchError> {
    let authorities = settings.ca.as_ref().map(std::fs::read).transpose()?;
    // Every address is looked at before it is asked, so plain text is spoken with this machine only.
    let agent = outgoing::agent(authorities.as_deref(), false, TIMEOUT)?;
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

fn get(agent: &Agent, url: &str) -> Result<Value, FetchError> {
    let mut answer = agent.get(url).call()?;
    if answer.status() != 200 {
        return Err(FetchError::Status(answer.status().as_u16()));
    }
    Ok(answer.body_mut().with_config().limit(MAX_BYTES).read_json()?)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Answers each request with what its path has, one after the other, until nobody asks any more; tells which were asked.
    fn served(answers: impl FnOnce(&str) -> Vec<(&'static str, String)>) -> (Result<Value, FetchError>, Vec<String>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = answers(&url);
        let serving = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
                let Some(path) = lines.next().and_then(|line| line.split(' ').nth(1).map(str::to_owned)) else { break };
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                let answer =
                    answers.iter().find(|(known, _)| *known == path).map_or("HTTP/1.1 404 None\r\n", |(_, text)| text);
                asked.push(path);
                stream.write_all(answer.as_bytes()).unwrap();
            }
            asked
        });
        let settings = IssuerSettings { url: url.clone(), jwks_url: None, ..super::super::tests::settings() };
        let keys = keys(&settings);
        // An empty connection ends it.
        drop(std::net::TcpStream::connect(url.trim_start_matches("http://")).unwrap());
        (keys, serving.join().unwrap())
    }

    fn json(value: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{value}", value.len())
    }

    const DISCOVERY: &str = "/.well-known/openid-configuration";

    #[test]
    fn the_discovery_document_leads_to_the_keys() {
        let (keys, asked) = served(|url| {
            let document = format!(r#"{{"issuer":"{url}","jwks_uri":"{url}/keys"}}"#);
            vec![(DISCOVERY, json(&document)), ("/keys", json(r#"{"keys":[]}"#))]
        });
        assert_eq!(keys.unwrap(), serde_json::json!({ "keys": [] }));
        assert_eq!(asked, [DISCOVERY, "/keys"]);
    }

    #[test]
    fn nothing_leads_elsewhere() {
        let redirect = |url: &str| {
            format!("HTTP/1.1 302 Found\r\nlocation: {url}/keys\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        };
        let (keys, asked) = served(|url| vec![(DISCOVERY, redirect(url)), ("/keys", json(r#"{"keys":[]}"#))]);
        assert!(matches!(keys, Err(FetchError::Status(302))), "{keys:?}");
        assert_eq!(asked, [DISCOVERY]);
        for elsewhere in ["http://192.0.2.1/keys", "file:///etc/passwd", "ftp://localhost/keys", ""] {
            let (keys, asked) =
                served(|url| vec![(DISCOVERY, json(&format!(r#"{{"issuer":"{url}","jwks_uri":"{elsewhere}"}}"#)))]);
            assert!(matches!(keys, Err(FetchError::NoKeys)), "{elsewhere}: {keys:?}");
            assert_eq!(asked, [DISCOVERY]);
        }
        let (keys, _) =
            served(|url| vec![(DISCOVERY, json(&format!(r#"{{"issuer":"{url}/other","jwks_uri":"{url}/keys"}}"#)))]);
        assert!(matches!(keys, Err(FetchError::OtherIssuer)), "{keys:?}");
    }
}
