//! A master key that never leaves its server: the transit engine of HashiCorp Vault, and of OpenBao, which speaks the same.
//!
//! | call | sends | answers |
//! |---|---|---|
//! | `POST /v1/MOUNT/encrypt/KEY` | `plaintext`, `associated_data` (base64) | `data.ciphertext`: `vault:vN:...` |
//! | `POST /v1/MOUNT/decrypt/KEY` | `ciphertext`, `associated_data` | `data.plaintext` (base64) |
//! | `GET /v1/MOUNT/keys/KEY` | | `data.latest_version` |
//! | `POST /v1/MOUNT/keys/KEY/rotate` | | nothing that matters |
//!
//! The token goes in `X-Vault-Token` and is read anew for every call, because agents renew it. Nothing but the configured
//! address is ever asked: no redirect is followed, no proxy of the environment used, and plain text is spoken with this machine
//! only. Answers are bounded in size and time. The calls are few (one a tenant and start) and block a thread made for that.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::future::{BoxFuture, FutureExt as _};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tenantry_types::error::sanitise;
use ureq::Agent;
use ureq::http::{Method, Request, Uri};
use zeroize::{Zeroize as _, Zeroizing};

use super::{MasterKey, MasterKeyError, SecretKey, WrappedKey};
use crate::outgoing;

/// The largest answer that is read, bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 10;
/// Characters of an error of Vault's that are shown.
const MAX_SHOWN_CHARS: usize = 200;
/// The longest token that is read, bytes.
const MAX_TOKEN_BYTES: u64 = 16 << 10;

/// Where a key lies in Vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultConfig {
    /// Such as `https://vault.example.com:8200`.
    pub address: String,
    /// Where the transit engine is mounted.
    pub mount: String,
    /// The key's name.
    pub key: String,
    /// The namespace, where Vault has several.
    pub namespace: Option<String>,
    /// The file of the token.
    pub token_file: PathBuf,
    /// The authorities, in PEM form, that sign Vault's certificate; none: the public ones.
    pub authorities: Option<Vec<u8>>,
    /// How long a call may take.
    pub timeout: Duration,
}

/// Why an address is not asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultAddressError {
    /// It is no such URL.
    #[error("is no URL such as \"https://vault.example.com:8200\": a scheme, a host and a port, and nothing else")]
    NotAUrl,
    /// Others could read the data keys on their way.
    #[error("would send data keys in plain text: use https, or http with an address of this machine (127.0.0.1)")]
    PlainText,
}

impl VaultConfig {
    /// Whether the address may be asked.
    ///
    /// # Errors
    /// [`VaultAddressError`] says why not.
    pub fn check_address(address: &str) -> Result<(), VaultAddressError> {
        let uri: Uri = address.parse().map_err(|_| VaultAddressError::NotAUrl)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(VaultAddressError::NotAUrl);
        };
        let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !authority.as_str().contains('@');
        if !is_bare || authority.host().is_empty() {
            return Err(VaultAddressError::NotAUrl);
        }
        match scheme {
            "https" => Ok(()),
            "http" if outgoing::is_this_machine(authority.host()) => Ok(()),
            "http" => Err(VaultAddressError::PlainText),
            _ => Err(VaultAddressError::NotAUrl),
        }
    }

    /// Whether a mount's or key's name goes into a path as it is.
    pub fn is_name(name: &str) -> bool {
        let plain = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        name.len() <= 256 && name.split('/').all(plain)
    }
}

/// A key of Vault's transit engine. It should be of an authenticated kind (`aes256-gcm96`, the usual one, or
/// `chacha20-poly1305`), which binds a wrapped key to its tenant and generation.
#[derive(Clone)]
pub struct VaultKey {
    inner: Arc<Inner>,
}

struct Inner {
    agent: Agent,
    config: VaultConfig,
}

impl fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultKey")
            .field("mount", &self.inner.config.mount)
            .field("key", &self.inner.config.key)
            .finish()
    }
}

/// What every answer is in.
#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: String,
}

impl Drop for Decrypted {
    fn drop(&mut self) {
        self.plaintext.zeroize();
    }
}

#[derive(Deserialize)]
struct Described {
    latest_version: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Errors {
    errors: Vec<String>,
}

impl VaultKey {
    const KIND: &'static str = "vault";

    /// A key of a Vault; nothing is asked yet.
    ///
    /// # Errors
    /// [`MasterKeyError::Invalid`] if the address is not one that may be asked, or the authorities are not in PEM form.
    pub fn new(config: VaultConfig) -> Result<Self, MasterKeyError> {
        VaultConfig::check_address(&config.address)
            .map_err(|error| MasterKeyError::Invalid(format!("`encryption.vault.address` {error}")))?;
        if !VaultConfig::is_name(&config.mount) || !VaultConfig::is_name(&config.key) {
            return Err(MasterKeyError::Invalid("`mount` and `key` are plain names".to_owned()));
        }
        let https_only = config.address.starts_with("https:");
        let agent = outgoing::agent(config.authorities.as_deref(), https_only, config.timeout).map_err(|_| {
            MasterKeyError::Invalid("`encryption.vault.ca` names no certificate in PEM form".to_owned())
        })?;
        Ok(Self { inner: Arc::new(Inner { agent, config }) })
    }

    /// Does something that blocks, on a thread for that.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, MasterKeyError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, MasterKeyError>> {
        let inner = Arc::clone(&self.inner);
        async move {
            let worked = tokio::task::spawn_blocking(move || work(&inner)).await;
            worked.unwrap_or_else(|error| Err(MasterKeyError::System(std::io::Error::other(error))))
        }
        .boxed()
    }
}

impl Inner {
    fn id(&self, version: &str) -> String {
        format!("{}:{}/{}:v{version}", VaultKey::KIND, self.config.mount, self.config.key)
    }

    fn current(&self) -> Result<String, MasterKeyError> {
        let path = format!("keys/{}", self.config.key);
        let described: Described = self.call(Method::GET, &path, None)?;
        Ok(self.id(&described.latest_version.to_string()))
    }

    fn wrap(&self, key: &SecretKey, context: &[u8]) -> Result<WrappedKey, MasterKeyError> {
        let path = format!("encrypt/{}", self.config.key);
        let mut body = json!({
            "plaintext": BASE64.encode(key.as_bytes()),
            "associated_data": BASE64.encode(context),
        });
        let answer = self.call(Method::POST, &path, Some(&body));
        wipe(&mut body);
        let Encrypted { ciphertext: text } = answer?;
        let version = version_of(&text).ok_or_else(strange)?;
        Ok(WrappedKey { master_key: self.id(version), text })
    }

    fn unwrap(&self, wrapped: &WrappedKey, context: &[u8]) -> Result<SecretKey, MasterKeyError> {
        let is_ours = version_of(&wrapped.text).is_some_and(|version| self.id(version) == wrapped.master_key);
        if !is_ours {
            return Err(MasterKeyError::Unknown { wanted: wrapped.master_key.clone() });
        }
        let path = format!("decrypt/{}", self.config.key);
        let body = json!({ "ciphertext": wrapped.text, "associated_data": BASE64.encode(context) });
        let decrypted: Decrypted = self.call(Method::POST, &path, Some(&body))?;
        let bytes = Zeroizing::new(BASE64.decode(&decrypted.plaintext).map_err(|_| strange())?);
        Ok(SecretKey::new(bytes.as_slice().try_into().map_err(|_| MasterKeyError::Refused)?))
    }

    /// Makes a new version. A token that may not do this leaves it to who may: then the newest version there is counts.
    fn rotate(&self) -> Result<(), MasterKeyError> {
        let path = format!("keys/{}/rotate", self.config.key);
        match self.request(Method::POST, &path, Some(&json!({}))) {
            Ok(_) => Ok(()),
            Err(MasterKeyError::Denied(reason)) => {
                tracing::info!(reason, "the token may not rotate the key in Vault; its newest version is used");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Value>) -> Result<T, MasterKeyError> {
        let answer = Zeroizing::new(self.request(method, path, body)?);
        let Answer { data } = serde_json::from_slice(&answer).map_err(|_| strange())?;
        Ok(data)
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Vec<u8>, MasterKeyError> {
        let config = &self.config;
        let token = token(&config.token_file)?;
        let uri = format!("{}/v1/{}/{path}", config.address.trim_end_matches('/'), config.mount);
        let text = Zeroizing::new(body.map(ToString::to_string).unwrap_or_default());
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("x-vault-token", token.as_str())
            // Vault's agents can be told to refuse what a page made a browser send.
            .header("x-vault-request", "true")
            .header("content-type", "application/json");
        let request = match &config.namespace {
            Some(namespace) => request.header("x-vault-namespace", namespace),
            None => request,
        };
        let invalid = |_| MasterKeyError::Invalid("the token or the namespace cannot be sent".to_owned());
        let outcome = match body {
            Some(_) => self.agent.run(request.body(text.as_str()).map_err(invalid)?),
            None => self.agent.run(request.body(()).map_err(invalid)?),
        };
        let response =
            outcome.map_err(|error| MasterKeyError::Unreachable(sanitise(&error.to_string(), MAX_SHOWN_CHARS)))?;
        let status = response.status().as_u16();
        let mut answer = response.into_body();
        let answer = answer.with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        let answer =
            answer.map_err(|error| MasterKeyError::Unreachable(sanitise(&error.to_string(), MAX_SHOWN_CHARS)))?;
        match status {
            200..300 => Ok(answer),
            // A redirect is not followed: the token is for the configured address and no other.
            300..400 => Err(MasterKeyError::Unreachable(
                "it redirects to another address, which is not followed; name that one in `encryption.vault.address`"
                    .to_owned(),
            )),
            // It cannot decrypt what it is given: another key, or a changed text.
            400 if path.starts_with("decrypt/") => Err(MasterKeyError::Refused),
            400..500 if status != 429 => Err(MasterKeyError::Denied(shown(status, &answer))),
            _ => Err(MasterKeyError::Unreachable(shown(status, &answer))),
        }
    }
}

impl MasterKey for VaultKey {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn current(&self) -> BoxFuture<'_, Result<Option<String>, MasterKeyError>> {
        self.blocking(|inner| inner.current().map(Some))
    }

    fn wrap<'a>(&'a self, key: &'a SecretKey, context: &'a [u8]) -> BoxFuture<'a, Result<WrappedKey, MasterKeyError>> {
        let (key, context) = (key.clone(), context.to_vec());
        self.blocking(move |inner| inner.wrap(&key, &context))
    }

    fn unwrap<'a>(
        &'a self,
        wrapped: &'a WrappedKey,
        context: &'a [u8],
    ) -> BoxFuture<'a, Result<SecretKey, MasterKeyError>> {
        let (wrapped, context) = (wrapped.clone(), context.to_vec());
        self.blocking(move |inner| inner.unwrap(&wrapped, &context))
    }

    fn rotate(&self) -> BoxFuture<'_, Result<(), MasterKeyError>> {
        self.blocking(Inner::rotate)
    }

    /// Vault keeps its old versions until its operator raises `min_decryption_version`.
    fn forget_older(&self) -> BoxFuture<'_, Result<(), MasterKeyError>> {
        std::future::ready(Ok(())).boxed()
    }
}

/// The version in a text such as `vault:v3:...`.
fn version_of(text: &str) -> Option<&str> {
    let (version, _) = text.strip_prefix("vault:v")?.split_once(':')?;
    (!version.is_empty() && version.len() <= 10 && version.bytes().all(|byte| byte.is_ascii_digit())).then_some(version)
}

fn strange() -> MasterKeyError {
    MasterKeyError::Unreachable("its answer is not one of Vault's transit engine".to_owned())
}

/// What Vault says, which comes from another program.
fn shown(status: u16, answer: &[u8]) -> String {
    let Errors { errors } = serde_json::from_slice(answer).unwrap_or_default();
    sanitise(&format!("{status} {}", errors.join("; ")), MAX_SHOWN_CHARS)
}

fn token(path: &Path) -> Result<Zeroizing<String>, MasterKeyError> {
    use std::io::Read as _;

    let unreadable = |_| {
        MasterKeyError::Invalid(
            "the file of the token, which `encryption.vault.token_file` names, cannot be read".to_owned(),
        )
    };
    let mut text = Zeroizing::new(String::new());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// Wipes the texts of a body.
fn wipe(body: &mut Value) {
    if let Some(fields) = body.as_object_mut() {
        for value in fields.values_mut() {
            if let Value::String(text) = value {
                text.zeroize();
            }
        }
    }
}
