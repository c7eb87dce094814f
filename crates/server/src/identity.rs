//! Callers without a key: signed tokens (JWT, RFC 7519 and 9068) of OpenID providers and of our own token endpoint.
//!
//! A token is checked once; what came out is kept until it ends, by the hash of its text. Nothing here waits for the network
//! but [`Identity::fetch`]: a token that is signed with a key we have not seen makes the edge wait for one reading of its
//! issuer's keys, which happens at most every [`FETCH_PAUSE`] whoever asks.
//!
//! What a token says is believed as far as its issuer's table in the configuration goes: which tenant, which roles. Whoever
//! it names gets an id that is made from issuer and subject, so that usage and audit name him the same each time.

mod claims;
mod fetch;
mod issuer;
mod tokens;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hashlink::LruCache;
use jsonwebtoken::{Algorithm, decode_header};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tenantry_types::{ActionSet, Digest, KeyId, MonotonicTime, Role, TenantName};

use issuer::Issuer;
use tokens::Tokens;
pub use tokens::{IssuedToken, TokenKeyError};

use crate::config::IdentitySettings;

/// The most tokens that are known at one time.
const MAX_VERIFIED: usize = 10_000;
/// The longest token that is looked at, bytes.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// How soon an issuer's keys are read again because a token names one that is not known.
pub(crate) const FETCH_PAUSE: Duration = Duration::from_secs(5);

/// Everybody who is believed besides the holders of keys.
#[derive(Debug)]
pub(crate) struct Identity {
    issuers: Vec<Issuer>,
    pub(crate) tokens: Option<Tokens>,
    verified: Mutex<LruCache<Digest, Verified>>,
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) who: Who,
    /// From when on it is refused, milliseconds since the Unix epoch.
    expires_ms: i64,
    /// Whose it is, in the order of the configuration; none: our own.
    issuer: Option<usize>,
}

/// Who somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// The holder of a key, within these actions.
    Key(KeyId, ActionSet),
    /// Somebody of a tenant.
    Subject(Subject),
}

/// Somebody an issuer knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) id: KeyId,
    pub(crate) tenant: TenantName,
    pub(crate) roles: Arc<[Role]>,
    /// What the issuer calls him, and which issuer, for the audit.
    pub(crate) name: Arc<str>,
}

/// What is known of a token at once.
#[derive(Debug)]
pub(crate) enum Looked {
    /// It is good.
    Good(Who),
    /// It is not.
    Bad,
    /// Its issuer has to be asked for its keys.
    Unknown(usize),
}

impl Identity {
    /// # Errors
    /// When the key of our own tokens can neither be read nor made.
    pub(crate) fn open(settings: IdentitySettings, data_dir: &Path) -> Result<Self, TokenKeyError> {
        Ok(Self {
            issuers: settings.issuers.into_iter().map(Issuer::new).collect(),
            tokens: settings.tokens.map(|settings| Tokens::open(settings, data_dir)).transpose()?,
            verified: Mutex::new(LruCache::new(MAX_VERIFIED)),
        })
    }

    /// Whether a bearer's text may be a token: a key has no dot in it.
    pub(crate) fn is_token(text: &str) -> bool {
        text.contains('.')
    }

    /// What there is to say of a token without asking anybody.
    pub(crate) fn look(&self, token: &str, now_ms: i64) -> Looked {
        if token.len() > MAX_TOKEN_BYTES {
            return Looked::Bad;
        }
        let digest = Digest::of(token.as_bytes());
        {
            let mut verified = self.verified.lock();
            match verified.get(&digest) {
                Some(known) if now_ms < known.expires_ms => return Looked::Good(known.who.clone()),
                Some(_) => {
                    verified.remove(&digest);
                    return Looked::Bad;
                }
                None => {}
            }
        }
        let looked = self.verify(token, now_ms);
        match looked {
            Ok(verified) => {
                let who = verified.who.clone();
                self.verified.lock().insert(digest, verified);
                Looked::Good(who)
            }
            Err(Some(issuer)) => Looked::Unknown(issuer),
            Err(None) => Looked::Bad,
        }
    }

    /// Checks a token. The error is the issuer whose keys may have to be read again, if that may help.
    fn verify(&self, token: &str, now_ms: i64) -> Result<Verified, Option<usize>> {
        let header = decode_header(token).map_err(|_| None)?;
        // Whose it says it is, to choose the keys; all of it counts only once its signature is good.
        let claimed: Map<String, Value> = jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| None)?;
        let issuer = claimed.get("iss").and_then(Value::as_str).ok_or(None)?;
        if let Some(tokens) = self.tokens.as_ref().filter(|tokens| tokens.issuer() == issuer) {
            let (who, expires_ms) = tokens.verify(token, now_ms).ok_or(None)?;
            return Ok(Verified { who, expires_ms, issuer: None });
        }
        let (index, issuer) =
            self.issuers.iter().enumerate().find(|(_, known)| known.settings.url == issuer).ok_or(None)?;
        if !issuer.accepts(header.alg) {
            return Err(None);
        }
        let Some(keys) = issuer.keys(header.kid.as_deref(), header.alg) else { return Err(Some(index)) };
        let (subject, expires_ms) = issuer.verify(token, &keys, header.alg, now_ms).ok_or(None)?;
        Ok(Verified { who: Who::Subject(subject), expires_ms, issuer: Some(index) })
    }

    /// Reads an issuer's keys, unless that was done a moment ago. Answers whether they were ever read.
    pub(crate) async fn fetch(&self, index: usize, now: MonotonicTime) -> bool {
        let Some(issuer) = self.issuers.get(index) else { return false };
        if issuer.fetch(now).await {
            // What was signed with a key that is gone is not believed any longer.
            self.verified.lock().retain(|_, known| known.issuer != Some(index));
        }
        issuer.has_keys()
    }

    /// How many issuers there are, and how often each one's keys are read.
    pub(crate) fn refreshes(&self) -> Vec<Duration> {
        self.issuers.iter().map(|issuer| issuer.settings.refresh).collect()
    }
}

/// An algorithm by its name in the configuration.
fn algorithm(name: &str) -> Option<Algorithm> {
    name.parse().ok()
}

/// The id of somebody whom an issuer calls so: the same each time, and nobody else's.
fn id_of(issuer: &str, subject: &str) -> KeyId {
    let text = format!("tenantry subject 1\0{}\0{issuer}{subject}", issuer.len());
    let digest = Digest::of(text.as_bytes());
    let bytes = digest.as_bytes();
    let mut time = [0; 8];
    let mut random = [0; 10];
    // 48 bits and 80 bits: as wide as an id's parts are.
    time.iter_mut().skip(2).zip(bytes).for_each(|(place, byte)| *place = *byte);
    random.iter_mut().zip(bytes.iter().skip(6)).for_each(|(place, byte)| *place = *byte);
    KeyId::from_parts(u64::from_be_bytes(time), random)
}

#[cfg(test)]
mod tests;
