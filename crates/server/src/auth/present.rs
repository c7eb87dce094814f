//! What a caller presents, and whom that makes him.

use std::net::IpAddr;
use std::time::Duration;

use tenantry_store::KeySecret;
use tenantry_types::{Action, ErrorCode, ServiceError};

use super::{Principal, authenticate, bearer, unauthenticated};
use crate::Server;
use crate::identity::{Identity, IssuedToken, Looked, Who};
use crate::server::unix_ms;

/// When a token of an issuer whose keys cannot be read may be tried again.
const ISSUER_RETRY: Duration = Duration::from_secs(5);
/// The most actions that are looked at where a token is asked for.
const MAX_SCOPE_WORDS: usize = 64;

/// What a caller presents. What the header says counts; a certificate is asked only where there is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Presented<'a> {
    /// The value of the header `Authorization`.
    pub authorization: Option<&'a str>,
    /// The names of a verified client certificate, such as `DNS:batch.acme.example`.
    pub certificate: &'a [Box<str>],
    /// Where the call came from, if that is known.
    pub source: Option<IpAddr>,
}

impl<'a> Presented<'a> {
    /// The token of the header, if it may be one.
    fn token(&self) -> Option<&'a str> {
        self.authorization.and_then(bearer).filter(|text| Identity::is_token(text))
    }
}

impl Server {
    /// Who is calling: the one place that says so. With a token whose issuer has keys that are not known here, waits until
    /// they are read.
    ///
    /// # Errors
    /// 401 with one text, whatever was wrong. It leaves a record in the audit trail, within bounds. 503 where the keys of a
    /// token's issuer were never read.
    pub async fn authenticate(&self, presented: &Presented<'_>) -> Result<Principal, ServiceError> {
        let Some(token) = presented.token() else { return self.authenticate_now(presented) };
        let now_ms = unix_ms();
        let mut looked = self.identity.look(token, now_ms);
        if let Looked::Unknown(issuer) = looked {
            if !self.identity.fetch(issuer, self.node.now()).await {
                let text = "the keys of this token's issuer cannot be read now; try again shortly";
                return Err(ServiceError::new(ErrorCode::Unavailable, text).retry_after(ISSUER_RETRY));
            }
            looked = self.identity.look(token, now_ms);
        }
        self.concluded(presented, self.of_token(looked, now_ms))
    }

    /// The same from what is known here already.
    ///
    /// # Errors
    /// 401 with one text, whatever was wrong.
    pub fn authenticate_now(&self, presented: &Presented<'_>) -> Result<Principal, ServiceError> {
        let now_ms = unix_ms();
        let outcome = match (presented.token(), presented.authorization) {
            (Some(token), _) => self.of_token(self.identity.look(token, now_ms), now_ms),
            (None, None) if !presented.certificate.is_empty() => self.of_certificate(presented.certificate, now_ms),
            (None, authorization) => authenticate(&self.routing.load(), authorization, now_ms),
        };
        self.concluded(presented, outcome)
    }

    /// Where he calls from; of whoever is refused the metrics and the audit take note.
    fn concluded(
        &self,
        presented: &Presented<'_>,
        outcome: Result<Principal, ServiceError>,
    ) -> Result<Principal, ServiceError> {
        match outcome {
            Ok(principal) => Ok(principal.at(presented.source)),
            Err(error) => {
                self.metrics.unresolved(None).ended(Some(error.code), Duration::ZERO);
                self.refused_unknown(presented.authorization, presented.source, error.code);
                Err(error)
            }
        }
    }

    fn of_token(&self, looked: Looked, now_ms: i64) -> Result<Principal, ServiceError> {
        let Looked::Good(who) = looked else { return Err(unauthenticated()) };
        let routing = self.routing.load();
        match who {
            Who::Key(id, actions) => {
                let routed = routing.keys.get(&id).filter(|routed| routed.key.is_live(now_ms));
                let routed = routed.ok_or_else(unauthenticated)?;
                routed.note_used(now_ms);
                Ok(Principal::of_key(routed).within(actions))
            }
            Who::Subject(subject) => {
                let tenant = routing.tenant(&subject.tenant).ok_or_else(unauthenticated)?;
                let custom = routing.roles.get(&tenant.id).map_or(&[][..], Vec::as_slice);
                let grants = self.access.grants(&subject.roles, tenant.operator, custom);
                Ok(Principal::of_subject(&subject, tenant, grants))
            }
        }
    }

    fn of_certificate(&self, names: &[Box<str>], now_ms: i64) -> Result<Principal, ServiceError> {
        let routing = self.routing.load();
        let found = names.iter().find_map(|name| routing.keys.get(routing.certificates.get(name)?));
        let routed = found.filter(|routed| routed.key.is_live(now_ms)).ok_or_else(unauthenticated)?;
        routed.note_used(now_ms);
        Ok(Principal::of_key(routed))
    }

    /// A token for the holder of a key (RFC 6749, section 4.4). `id` and `secret`: the key's id and its text. `scope`: the
    /// actions it is confined to, with spaces between them; none: all that the key allows.
    ///
    /// # Errors
    /// 401 for a key that is not good, 400 for a scope with words that are no actions, 501 where tokens are switched off.
    pub fn issue_token(
        &self,
        id: &str,
        secret: &str,
        scope: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<IssuedToken, ServiceError> {
        let Some(tokens) = &self.identity.tokens else {
            let text = "this server issues no tokens; its operator can set `identity.tokens.enabled`";
            return Err(ServiceError::new(ErrorCode::Unimplemented, text));
        };
        let authorization = format!("Bearer {secret}");
        let is_of_key = KeySecret::parse(secret).is_some_and(|(key, _)| key.to_string() == id);
        let presented =
            Presented { authorization: is_of_key.then_some(authorization.as_str()), certificate: &[], source };
        let principal = self.authenticate_now(&presented)?;
        let actions = match scope {
            None => None,
            Some(scope) => {
                let words = scope.split_ascii_whitespace().take(MAX_SCOPE_WORDS);
                let actions: Result<Vec<Action>, _> = words.map(str::parse).collect();
                let actions = actions.map_err(|error| ServiceError::invalid(error.to_string()));
                Some(actions?).filter(|actions| !actions.is_empty())
            }
        };
        let name = self.new_request_id().to_string();
        tokens.issue(principal.key, actions.as_deref(), &name, unix_ms()).ok_or_else(ServiceError::internal)
    }

    /// The public keys of our tokens, and what they say in `iss`; none where there are no tokens.
    pub fn token_keys(&self) -> Option<(&serde_json::Value, &str)> {
        self.identity.tokens.as_ref().map(|tokens| (tokens.key_set(), tokens.issuer()))
    }
}
