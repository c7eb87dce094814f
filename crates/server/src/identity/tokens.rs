//! Our own tokens: short-lived ones that the holder of a key gets for it (RFC 6749, section 4.4; RFC 9068), signed with
//! Ed25519. They say which key, and which actions at most; what the key may do is looked up at each use, so that a key that is
//! revoked takes its tokens with it.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, decode, encode};
use serde_json::{Map, Value, json};
use tenantry_types::{Action, ActionSet, KeyId};
use zeroize::Zeroizing;

use super::issuer::signature_only;
use super::{Who, claims};
use crate::config::TokenSettings;

/// The file of the keys in the data folder: 64 hexadecimal digits a line. The first one signs, all of them are accepted.
const KEY_FILE: &str = "token.keys";
/// The largest such file, bytes.
const MAX_FILE_BYTES: u64 = 4 << 10;
const SEED_BYTES: usize = 32;
/// What comes before the seed of an Ed25519 key in PKCS #8 (RFC 8410, section 7).
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Why the keys of our tokens cannot be used. For the operator.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// The file cannot be read or made.
    #[error("the file {KEY_FILE} in the data folder cannot be read or made")]
    File(#[from] io::Error),
    /// The file is not what it should be.
    #[error(
        "the file {KEY_FILE} in the data folder must hold 64 hexadecimal digits a line; remove it to have a new one made"
    )]
    Content,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// The token endpoint's part that knows no HTTP.
pub(crate) struct Tokens {
    settings: TokenSettings,
    signing: EncodingKey,
    kid: String,
    accepted: Vec<DecodingKey>,
    set: Value,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("settings", &self.settings).field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// A token just made.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// What goes after `Authorization: Bearer`.
    pub token: String,
    /// How long it is valid, seconds.
    pub expires_in: u64,
    /// The actions it was confined to, where that was asked for.
    pub scope: Option<String>,
}

impl std::fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedToken").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

impl Tokens {
    pub(super) fn open(settings: TokenSettings, data_dir: &Path) -> Result<Self, TokenKeyError> {
        let seeds = seeds(&data_dir.join(KEY_FILE))?;
        let mut signing = None;
        let (mut accepted, mut set) = (Vec::new(), Vec::new());
        for seed in seeds.chunks_exact(SEED_BYTES) {
            let der = Zeroizing::new([&PKCS8_HEAD, seed].concat());
            let key = EncodingKey::from_ed_der(&der);
            let mut jwk = Jwk::from_encoding_key(&key, Algorithm::EdDSA).map_err(|_| TokenKeyError::Content)?;
            let kid = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| TokenKeyError::Content)?;
            jwk.common.key_id = Some(kid.clone());
            accepted.push(DecodingKey::from_jwk(&jwk).map_err(|_| TokenKeyError::Content)?);
            set.push(serde_json::to_value(&jwk).map_err(|_| TokenKeyError::Content)?);
            if signing.is_none() {
                signing = Some((key, kid));
            }
        }
        let (signing, kid) = signing.ok_or(TokenKeyError::Content)?;
        Ok(Self { settings, signing, kid, accepted, set: json!({ "keys": set }) })
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// The public keys (RFC 7517, section 5).
    pub(crate) fn key_set(&self) -> &Value {
        &self.set
    }

    /// A token for a key. `actions`: what it is confined to. `id`: not that of any other token.
    pub(crate) fn issue(&self, key: KeyId, actions: Option<&[Action]>, id: &str, now_ms: i64) -> Option<IssuedToken> {
        let now = now_ms.div_euclid(1_000);
        let lifetime = self.settings.lifetime.as_secs();
        let scope = actions.map(|actions| actions.iter().map(|action| action.as_str()).collect::<Vec<_>>().join(" "));
        let mut claims = json!({
            "iss": self.settings.issuer,
            "aud": self.settings.issuer,
            "sub": key.to_string(),
            "client_id": key.to_string(),
            "iat": now,
            "exp": now.checked_add(i64::try_from(lifetime).ok()?)?,
            "jti": id,
        });
        if let Some(scope) = &scope {
            claims.as_object_mut()?.insert("scope".to_owned(), scope.as_str().into());
        }
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(self.kid.clone());
        let token = encode(&header, &claims, &self.signing).ok()?;
        Some(IssuedToken { token, expires_in: lifetime, scope })
    }

    /// Which key a token is for, if it is good, and until when.
    pub(super) fn verify(&self, token: &str, now_ms: i64) -> Option<(Who, i64)> {
        let validation = signature_only(Algorithm::EdDSA);
        let claims: Map<String, Value> =
            self.accepted.iter().find_map(|key| decode(token, key, &validation).ok().map(|token| token.claims))?;
        let own = [self.settings.issuer.clone()];
        let until_ms = claims::valid_until(&claims, &self.settings.issuer, &own, 0, now_ms)?;
        let key = claims.get("sub")?.as_str()?.parse().ok()?;
        let actions = match claims.get("scope") {
            None => ActionSet::ALL,
            Some(scope) => {
                scope.as_str()?.split_ascii_whitespace().filter_map(|word| word.parse::<Action>().ok()).collect()
            }
        };
        Some((Who::Key(key, actions), until_ms))
    }
}

/// The seeds one after the other, made where there is no file.
fn seeds(path: &Path) -> Result<Zeroizing<Vec<u8>>, TokenKeyError> {
    let mut text = Zeroizing::new(String::new());
    match std::fs::File::open(path) {
        Ok(file) => {
            file.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut seed = Zeroizing::new([0; SEED_BYTES]);
            getrandom::fill(&mut *seed).map_err(|_| TokenKeyError::Random)?;
            seed.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
        }
        Err(error) => return Err(error.into()),
    }
    let mut seeds = Zeroizing::new(Vec::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.len() != 2 * SEED_BYTES || !line.is_ascii() {
            return Err(TokenKeyError::Content);
        }
        for pair in line.as_bytes().chunks_exact(2) {
            let byte = std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
            seeds.push(byte.ok_or(TokenKeyError::Content)?);
        }
    }
    Ok(seeds)
}
