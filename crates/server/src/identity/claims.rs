//! What a token's claims mean here.

use std::sync::Arc;

use serde_json::{Map, Value};
use tenantry_types::error::sanitise;
use tenantry_types::{Role, TenantName};

use super::{Subject, id_of};
use crate::config::IssuerSettings;

/// The longest subject, bytes (OpenID Connect Core, section 2: 255).
const MAX_SUBJECT_BYTES: usize = 255;
/// The most words of roles that are looked at.
const MAX_ROLE_WORDS: usize = 256;
/// How much of a subject and of an issuer the audit shows, characters.
const MAX_SHOWN_CHARS: usize = 128;

/// Whether a token is for us and valid now; if so, until when, milliseconds since the Unix epoch.
pub(super) fn valid_until(
    claims: &Map<String, Value>,
    issuer: &str,
    audiences: &[String],
    skew_ms: i64,
    now_ms: i64,
) -> Option<i64> {
    let is_ours = |audience: &Value| audience.as_str().is_some_and(|name| audiences.iter().any(|own| own == name));
    let is_for_us = match claims.get("aud")? {
        Value::Array(all) => all.iter().any(is_ours),
        one => is_ours(one),
    };
    // RFC 7519, section 2: seconds, perhaps with a fraction.
    let instant = |name: &str| -> Option<Option<i64>> {
        let Some(value) = claims.get(name) else { return Some(None) };
        let seconds = value.as_f64().filter(|seconds| seconds.is_finite() && seconds.abs() < 1e12)?;
        Some(Some((seconds * 1_000.0) as i64))
    };
    let expires_ms = instant("exp")??.saturating_add(skew_ms);
    let begins = [instant("nbf")?, instant("iat")?];
    let has_begun = begins.into_iter().flatten().all(|begins_ms| begins_ms.saturating_sub(skew_ms) <= now_ms);
    let is_from = claims.get("iss").and_then(Value::as_str) == Some(issuer);
    (is_for_us && is_from && has_begun && now_ms < expires_ms).then_some(expires_ms)
}

/// Whom a good token names.
pub(super) fn subject(claims: &Map<String, Value>, settings: &IssuerSettings) -> Option<Subject> {
    let subject = claims.get("sub").and_then(Value::as_str)?;
    if subject.is_empty() || subject.len() > MAX_SUBJECT_BYTES {
        return None;
    }
    let tenant: TenantName = match (&settings.tenant, &settings.tenant_claim) {
        (Some(tenant), _) => tenant.clone(),
        (None, Some(claim)) => find(claims, claim)?.as_str()?.parse().ok()?,
        (None, None) => return None,
    };
    let mut roles: Vec<Role> = find(claims, &settings.roles_claim)
        .map(words)
        .unwrap_or_default()
        .iter()
        .filter_map(|word| role(word, settings))
        .collect();
    if roles.is_empty() {
        roles.extend(settings.default_role.clone());
    }
    roles.sort_unstable();
    roles.dedup();
    let shown = |text: &str| sanitise(text, MAX_SHOWN_CHARS);
    Some(Subject {
        id: id_of(&settings.url, subject),
        tenant,
        roles: roles.into(),
        name: Arc::from(format!("{} of {}", shown(subject), shown(&settings.url))),
    })
}

/// What a word of the claim means. The platform's role is given by a table only, never by what a token calls it.
fn role(word: &str, settings: &IssuerSettings) -> Option<Role> {
    match &settings.roles {
        Some(roles) => roles.get(word).cloned(),
        None => word.parse().ok().filter(|role| *role != Role::PlatformAdmin),
    }
}

/// A list of texts, or one text with spaces in it as `scope` has.
fn words(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(all) => all.iter().filter_map(Value::as_str).take(MAX_ROLE_WORDS).collect(),
        Value::String(text) => text.split_ascii_whitespace().take(MAX_ROLE_WORDS).collect(),
        _ => Vec::new(),
    }
}

/// A claim by its name, or by the names on the way to it with dots between them.
fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    find(claims.get(first)?.as_object()?, rest)
}
