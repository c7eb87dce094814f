//! The client of the public HTTP API: what the commands and the demo talk through.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tenantry_oip::{Form, ReplyFormat};
use tenantry_types::{InferRequest, InferResponse, ModelRef, Payload};
use ureq::http::{Method, Request, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, SendBody};

/// The largest answer that is read, bytes.
const MAX_ANSWER_BYTES: u64 = 1 << 30;
/// How long the server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The header that asks where a request's time goes.
const EXPLAIN: &str = "x-tenantry-explain";
/// The header that says it.
const TIMING: &str = "x-tenantry-timing";
/// The header with the length of the JSON part of a body with binary tensors.
pub(crate) const JSON_LENGTH: &str = "inference-header-content-length";

/// What the server refused, in its own words.
#[derive(Debug, thiserror::Error)]
#[error("{message}{}", hint(*status, has_key))]
pub(crate) struct Refused {
    /// The HTTP status.
    pub(crate) status: u16,
    /// What the server said.
    pub(crate) message: String,
    /// Whether a key was sent.
    pub(crate) has_key: bool,
    /// Which limit refused it, in the server's word for programs.
    pub(crate) reason: Option<String>,
}

fn hint(status: u16, has_key: &bool) -> &'static str {
    match (status, has_key) {
        (401, false) => "\nhint: name your key with --key or in TENANTRY_KEY",
        (401, true) => "\nhint: the key was not accepted; it may be mistyped, expired or revoked",
        (403, _) => "\nhint: this needs a key with a higher role",
        _ => "",
    }
}

/// A raw answer: what inference reads its tensors from.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Where the time went, as the server says, if it was asked.
    pub(crate) timing: Option<String>,
    /// The length of the JSON part, where binary tensors follow.
    pub(crate) json_length: Option<String>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// Whose certificates are trusted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust(Option<Arc<Vec<Certificate<'static>>>>);

impl Trust {
    /// The authorities of a file; without one, the public ones.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self> {
        let Some(file) = file else { return Ok(Self::default()) };
        let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let authorities: Vec<_> = parse_pem(&text)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            })
            .collect::<Result<_, _>>()
            .with_context(|| format!("{} is not in PEM form", file.display()))?;
        anyhow::ensure!(!authorities.is_empty(), "{} holds no certificate in PEM form", file.display());
        Ok(Self(Some(Arc::new(authorities))))
    }

    fn config(&self) -> TlsConfig {
        let roots = self.0.as_ref().map_or(RootCerts::WebPki, |roots| RootCerts::Specific(Arc::clone(roots)));
        TlsConfig::builder().root_certs(roots).build()
    }
}

/// A connection to one server with one key.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: Agent,
    server: String,
    key: Option<String>,
}

impl Client {
    /// A client of the server at `server`, such as `http://127.0.0.1:8000`.
    pub(crate) fn new(server: &str, key: Option<&str>) -> Self {
        Self::build(server, key, None, &Trust::default())
    }

    /// A client that gives up a call after `patience`.
    pub(crate) fn with_patience(server: &str, key: Option<&str>, patience: Duration) -> Self {
        Self::build(server, key, Some(patience), &Trust::default())
    }

    /// A client that believes the servers whose certificates these authorities have signed.
    pub(crate) fn trusting(server: &str, key: Option<&str>, trust: &Trust) -> Self {
        Self::build(server, key, None, trust)
    }

    /// Without `patience` a call may take as long as the server lets it.
    fn build(server: &str, key: Option<&str>, patience: Option<Duration>, trust: &Trust) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(patience)
            .tls_config(trust.config())
            .user_agent(concat!("tenantry/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into(), server: server.trim_end_matches('/').to_owned(), key: key.map(str::to_owned) }
    }

    /// The server's URL, without a slash at the end.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Reads something.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        read_json(self.call(Method::GET, path, &[], SendBody::none())?)
    }

    /// Reads a text.
    pub(crate) fn text(&self, path: &str) -> Result<String> {
        let body = read_bytes(self.call(Method::GET, path, &[], SendBody::none())?)?;
        String::from_utf8(body).context("the server's answer is no text")
    }

    /// Removes something.
    pub(crate) fn delete(&self, path: &str) -> Result<()> {
        self.call(Method::DELETE, path, &[], SendBody::none()).map(drop)
    }

    /// Sends `value` as JSON and reads the answer.
    pub(crate) fn send<T: DeserializeOwned>(&self, method: Method, path: &str, value: &impl Serialize) -> Result<T> {
        let json = serde_json::to_vec(value)?;
        let headers = [("content-type", "application/json".to_owned()), ("content-length", json.len().to_string())];
        read_json(self.call(method, path, &headers, SendBody::from_reader(&mut json.as_slice()))?)
    }

    /// Sends a body of known length as it is read.
    pub(crate) fn upload<T: DeserializeOwned>(&self, path: &str, mut body: impl Read, bytes: u64) -> Result<T> {
        let headers = [("content-type", "application/octet-stream".to_owned()), ("content-length", bytes.to_string())];
        read_json(self.call(Method::POST, path, &headers, SendBody::from_reader(&mut body))?)
    }

    /// Posts an inference as it is.
    pub(crate) fn infer_raw(
        &self,
        model: &ModelRef,
        version: Option<&str>,
        json_length: Option<usize>,
        body: &[u8],
        timeout: Option<Duration>,
        explain: bool,
    ) -> Result<Answer> {
        let mut headers = vec![("content-length", body.len().to_string())];
        headers.extend(timeout.map(|timeout| ("x-request-timeout-ms", timeout.as_millis().max(1).to_string())));
        if explain {
            headers.push((EXPLAIN, "1".to_owned()));
        }
        match json_length {
            Some(length) => {
                headers.push((JSON_LENGTH, length.to_string()));
                headers.push(("content-type", "application/octet-stream".to_owned()));
            }
            None => headers.push(("content-type", "application/json".to_owned())),
        }
        let path = format!("{}/infer", model_path(model, version));
        let response = self.call(Method::POST, &path, &headers, SendBody::from_reader(&mut &*body))?;
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (timing, json_length) = (text(TIMING), text(JSON_LENGTH));
        Ok(Answer { timing, json_length, body: read_bytes(response)? })
    }

    /// Runs one inference with binary tensors both ways.
    pub(crate) fn infer(&self, request: &InferRequest) -> Result<InferResponse> {
        let reply =
            ReplyFormat { default: Form::Binary, outputs: request.outputs.iter().map(|_| Form::Binary).collect() };
        let encoded = tenantry_oip::encode_request(request, Form::Binary, &reply)?;
        let body = encoded.body.to_contiguous();
        let version = request.version.as_deref();
        let answer = self.infer_raw(&request.model, version, encoded.json_length, &body, request.timeout, false)?;
        answer.decode()
    }

    fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: SendBody<'_>,
    ) -> Result<Response<Body>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.server));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request.body(body).context("this is not a URL a server could have")?;
        let response = self.agent.run(request).map_err(|error| self.unreachable(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refused(response).into())
    }

    fn unreachable(&self, error: ureq::Error) -> anyhow::Error {
        let server = &self.server;
        let nobody = match &error {
            ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
            ureq::Error::ConnectionFailed => true,
            _ => false,
        };
        if nobody {
            anyhow::anyhow!(
                "no server answers at {server}\nhint: start it with `tenantry serve`, or name another one with --server"
            )
        } else if error.to_string().contains("peer certificate") {
            anyhow::anyhow!(
                "the certificate of {server} is not trusted: {error}\nhint: name the authority that signed it with --ca or in \
                 TENANTRY_CA"
            )
        } else {
            anyhow::Error::new(error).context(format!("the call to {server} failed"))
        }
    }

    fn refused(&self, response: Response<Body>) -> Refused {
        #[derive(serde::Deserialize)]
        struct Said {
            error: String,
            #[serde(default)]
            reason: Option<String>,
        }
        let status = response.status();
        let has_key = self.key.is_some();
        let said = read_bytes(response).ok().and_then(|body| serde_json::from_slice::<Said>(&body).ok());
        let (message, reason) =
            said.map_or_else(|| (format!("the server answered {status}"), None), |said| (said.error, said.reason));
        Refused { status: status.as_u16(), message, has_key, reason }
    }
}

impl Answer {
    /// The tensors in it.
    pub(crate) fn decode(self) -> Result<InferResponse> {
        tenantry_oip::decode_response(self.json_length.as_deref(), Payload::from(self.body))
            .context("the server's answer is not one of the protocol")
    }
}

/// The path of a model in the data plane.
pub(crate) fn model_path(model: &ModelRef, version: Option<&str>) -> String {
    match version {
        Some(version) => format!("/v2/models/{model}/versions/{}", escape(version)),
        None => format!("/v2/models/{model}"),
    }
}

/// Makes free text fit a URL (RFC 3986, section 2.1): everything but unreserved characters becomes %XX.
pub(crate) fn escape(text: &str) -> String {
    use std::fmt::Write as _;

    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

fn read_bytes(response: Response<Body>) -> Result<Vec<u8>> {
    let mut body = response.into_body();
    body.with_config().limit(MAX_ANSWER_BYTES).read_to_vec().context("the server's answer broke off")
}

fn read_json<T: DeserializeOwned>(response: Response<Body>) -> Result<T> {
    let body = read_bytes(response)?;
    // An answer without a body reads as null, which is what `()` wants.
    let body = if body.is_empty() { b"null".to_vec() } else { body };
    serde_json::from_slice(&body)
        .context("the server's answer is not what this client expects; are both of one version?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_owner_and_version() {
        let model: ModelRef = "acme/digits".parse().unwrap();
        assert_eq!(model_path(&model, None), "/v2/models/acme/digits");
        assert_eq!(model_path(&model, Some("a b")), "/v2/models/acme/digits/versions/a%20b");
        assert_eq!(escape("k=v&ü"), "k%3Dv%26%C3%BC");
    }

    #[test]
    fn a_server_that_is_not_there_says_how_to_start_it() {
        // A port that was free a moment ago, and nobody listens on.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let error = Client::new(&server, None).get::<()>("/v2").unwrap_err().to_string();
        assert!(error.contains("tenantry serve"), "{error}");
    }
}
