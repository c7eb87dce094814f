//! An issuer and its keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::{Map, Value};
use tenantry_types::MonotonicTime;

use super::{FETCH_PAUSE, Subject, algorithm, claims, fetch};
use crate::config::IssuerSettings;

/// The most keys of an issuer that are kept.
const MAX_KEYS: usize = 64;
/// The sizes of RSA keys that are taken, bytes: smaller ones are broken, larger ones are slow for whoever sends us tokens.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// An issuer.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) settings: IssuerSettings,
    algorithms: Vec<Algorithm>,
    keys: ArcSwap<Keys>,
    /// Held while its keys are read; with when that was tried last.
    fetching: tokio::sync::Mutex<()>,
    tried_ns: AtomicU64,
}

#[derive(Debug, Default)]
struct Keys {
    /// The document they came from; none: never read.
    document: Option<Value>,
    keys: Vec<Key>,
}

#[derive(Clone)]
pub(super) struct Key {
    kid: Option<String>,
    /// Which algorithms it can be used with.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("algorithms", &self.algorithms).finish_non_exhaustive()
    }
}

impl Issuer {
    pub(super) fn new(settings: IssuerSettings) -> Self {
        Self {
            algorithms: settings.algorithms.iter().filter_map(|name| algorithm(name)).collect(),
            settings,
            keys: ArcSwap::default(),
            fetching: tokio::sync::Mutex::default(),
            tried_ns: AtomicU64::new(0),
        }
    }

    /// Whether tokens signed so are looked at.
    pub(super) fn accepts(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    pub(super) fn has_keys(&self) -> bool {
        self.keys.load().document.is_some()
    }

    /// The keys a token may be signed with: the one it names, or, where it names none, all of its algorithm. None: there is
    /// none, and the issuer may have new ones.
    pub(super) fn keys(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<Vec<Key>> {
        let keys = self.keys.load();
        let fits = |key: &&Key| key.algorithms.contains(&algorithm) && (kid.is_none() || key.kid.as_deref() == kid);
        let found: Vec<Key> = keys.keys.iter().filter(fits).cloned().collect();
        (!found.is_empty()).then_some(found)
    }

    /// Whom a token names and until when, if it is good.
    pub(super) fn verify(
        &self,
        token: &str,
        keys: &[Key],
        algorithm: Algorithm,
        now_ms: i64,
    ) -> Option<(Subject, i64)> {
        let validation = signature_only(algorithm);
        let claims: Map<String, Value> =
            keys.iter().find_map(|key| decode(token, &key.key, &validation).ok().map(|token| token.claims))?;
        let skew_ms = i64::try_from(self.settings.clock_skew.as_millis()).ok()?;
        let (issuer, audiences) = (&self.settings.url, &self.settings.audiences);
        let until_ms = claims::valid_until(&claims, issuer, audiences, skew_ms, now_ms)?;
        Some((claims::subject(&claims, &self.settings)?, until_ms))
    }

    /// Reads its keys, unless that was tried a moment ago. Answers whether they are others now.
    pub(super) async fn fetch(&self, now: MonotonicTime) -> bool {
        let _one = self.fetching.lock().await;
        let tried = self.tried_ns.load(Ordering::Relaxed);
        if tried > 0 && now.saturating_since(MonotonicTime::from_nanos(tried)) < FETCH_PAUSE {
            return false;
        }
        self.tried_ns.store(now.as_nanos().max(1), Ordering::Relaxed);
        let settings = self.settings.clone();
        let fetched = tokio::task::spawn_blocking(move || fetch::keys(&settings)).await;
        let document = match fetched {
            Ok(Ok(document)) => document,
            Ok(Err(error)) => {
                tracing::warn!(
                    issuer = self.settings.url,
                    error = &error as &dyn std::error::Error,
                    "an issuer's keys cannot be read"
                );
                return false;
            }
            Err(error) => {
                tracing::error!(issuer = self.settings.url, %error, "reading an issuer's keys failed");
                return false;
            }
        };
        if self.keys.load().document.as_ref() == Some(&document) {
            return false;
        }
        let keys = read(&document);
        tracing::info!(issuer = self.settings.url, keys = keys.len(), "read an issuer's keys");
        self.keys.store(Arc::new(Keys { document: Some(document), keys }));
        true
    }

    /// As if this document had been read.
    #[cfg(test)]
    pub(super) fn has_read(&self, document: Value) {
        self.keys.store(Arc::new(Keys { keys: read(&document), document: Some(document) }));
    }
}

/// The signature and nothing else: what the claims mean is ours to say, with our clock.
pub(super) fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}

/// The keys of a set (RFC 7517, section 5) that can be used; others are passed over.
fn read(document: &Value) -> Vec<Key> {
    let all = document.get("keys").and_then(Value::as_array);
    let jwks =
        all.into_iter().flatten().take(MAX_KEYS).filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok());
    jwks.filter_map(|jwk| key(&jwk)).collect()
}

fn key(jwk: &Jwk) -> Option<Key> {
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let length = |text: &str| URL_SAFE_NO_PAD.decode(text).ok().map(|bytes| bytes.len());
    let possible = match &jwk.algorithm {
        AlgorithmParameters::RSA(key) if length(&key.n).is_some_and(|bytes| RSA_BYTES.contains(&bytes)) => vec![
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 if [length(&key.x), length(&key.y)] == [Some(32); 2] => vec![Algorithm::ES256],
            EllipticCurve::P384 if [length(&key.x), length(&key.y)] == [Some(48); 2] => vec![Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 && length(&key.x) == Some(32) => {
            vec![Algorithm::EdDSA]
        }
        // A shared secret is nobody's signature.
        _ => return None,
    };
    let algorithms = match &jwk.common.key_algorithm {
        None => possible,
        Some(named) => {
            let named = algorithm(&named.to_string())?;
            possible.into_iter().filter(|algorithm| *algorithm == named).collect()
        }
    };
    Some(Key { kid: jwk.common.key_id.clone(), algorithms, key: DecodingKey::from_jwk(jwk).ok()? })
}
