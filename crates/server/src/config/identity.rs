//! Who is believed besides the holders of keys, as meant.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tenantry_store::outgoing::is_this_machine;
use tenantry_types::{Role, TenantName};

use super::{IdentityTable, IssuerTable, SettingsError, TokensTable};
use crate::identity::FETCH_PAUSE;

/// The signature algorithms that are known, all of them with public keys.
const ALGORITHMS: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
/// The most a clock may differ.
const MAX_SKEW: Duration = Duration::from_secs(300);
/// The longest a token of ours is valid.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3_600);

/// Who is believed besides the holders of keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdentitySettings {
    /// Others who say who somebody is.
    pub issuers: Vec<IssuerSettings>,
    /// Our own tokens for the holders of keys; none: there are none.
    pub tokens: Option<TokenSettings>,
}

/// An OpenID provider, or another issuer of signed tokens (JWT).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSettings {
    /// What its tokens say in `iss`, and where its discovery document is.
    pub url: String,
    /// Where its keys are; none: where the discovery document says.
    pub jwks_url: Option<String>,
    /// One of these must be among a token's `aud`.
    pub audiences: Vec<String>,
    /// The algorithms that are accepted.
    pub algorithms: Vec<String>,
    /// How much its clock may differ from ours.
    pub clock_skew: Duration,
    /// How often its keys are read again.
    pub refresh: Duration,
    /// The authorities of its certificate; none: the public ones.
    pub ca: Option<PathBuf>,
    /// The claim that names the tenant; none where `tenant` does.
    pub tenant_claim: Option<String>,
    /// The tenant of all its tokens.
    pub tenant: Option<TenantName>,
    /// The claim that lists roles or groups.
    pub roles_claim: String,
    /// What the words in that claim mean here; none: a word that names a role means that role, but for the platform's.
    pub roles: Option<BTreeMap<String, Role>>,
    /// The role of those whose claim has no word that means one; none: they may do nothing.
    pub default_role: Option<Role>,
}

/// Tokens of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSettings {
    /// What they say in `iss` and `aud`.
    pub issuer: String,
    /// How long one is valid.
    pub lifetime: Duration,
}

impl IdentitySettings {
    pub(super) fn from_table(table: &IdentityTable) -> Result<Self, SettingsError> {
        let issuers: Vec<IssuerSettings> = table.issuer.iter().map(issuer).collect::<Result<_, _>>()?;
        let tokens = tokens(&table.tokens)?;
        let mut names: Vec<&str> = issuers.iter().map(|issuer| issuer.url.as_str()).collect();
        names.extend(tokens.as_ref().map(|tokens| tokens.issuer.as_str()));
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return fail("identity.issuer.url", "is there twice; each issuer has one table");
        }
        Ok(Self { issuers, tokens })
    }
}

fn issuer(table: &IssuerTable) -> Result<IssuerSettings, SettingsError> {
    check_url("identity.issuer.url", &table.url)?;
    if let Some(url) = &table.jwks_url {
        check_url("identity.issuer.jwks_url", url)?;
    }
    if table.audience.is_empty() || table.audience.iter().any(String::is_empty) {
        return fail("identity.issuer.audience", "must name what tokens for this server say in `aud`");
    }
    if table.algorithms.is_empty() || table.algorithms.iter().any(|name| !ALGORITHMS.contains(&name.as_str())) {
        let problem = format!("must be some of {}", ALGORITHMS.join(", "));
        return Err(SettingsError { key: "identity.issuer.algorithms", problem });
    }
    if table.clock_skew.0 > MAX_SKEW {
        return fail("identity.issuer.clock_skew", "must be at most \"5m\"");
    }
    if table.refresh.0 < FETCH_PAUSE {
        return fail("identity.issuer.refresh", "must be at least \"5s\"");
    }
    let role = |key, text: &String| {
        let parsed = text.parse::<Role>();
        parsed.map_err(|error| SettingsError { key, problem: format!("has a role that cannot be: {error}") })
    };
    let tenant = table.tenant.as_ref().map(|name| name.parse()).transpose();
    let tenant = tenant.map_err(|error: tenantry_types::name::NameError| SettingsError {
        key: "identity.issuer.tenant",
        problem: format!("is no name of a tenant: {error}"),
    })?;
    match (&table.tenant_claim, &tenant) {
        (None, None) => {
            return fail(
                "identity.issuer.tenant_claim",
                "must name the claim that says the tenant, unless `tenant` does",
            );
        }
        (Some(_), Some(_)) => return fail("identity.issuer.tenant", "must be absent where `tenant_claim` is set"),
        _ => {}
    }
    let roles = |(word, name): (&String, &String)| Ok((word.clone(), role("identity.issuer.roles", name)?));
    let roles =
        table.roles.as_ref().map(|map| map.iter().map(roles).collect::<Result<_, SettingsError>>()).transpose()?;
    Ok(IssuerSettings {
        url: table.url.clone(),
        jwks_url: table.jwks_url.clone(),
        audiences: table.audience.clone(),
        algorithms: table.algorithms.clone(),
        clock_skew: table.clock_skew.0,
        refresh: table.refresh.0,
        ca: table.ca.clone(),
        tenant_claim: table.tenant_claim.clone(),
        tenant,
        roles_claim: table.roles_claim.clone(),
        roles,
        default_role: table.default_role.as_ref().map(|name| role("identity.issuer.default_role", name)).transpose()?,
    })
}

fn tokens(table: &TokensTable) -> Result<Option<TokenSettings>, SettingsError> {
    if !table.enabled {
        return Ok(None);
    }
    if table.issuer.is_empty() {
        return fail("identity.tokens.issuer", "must say what tokens have in `iss`");
    }
    if table.lifetime.0 < Duration::from_secs(1) || table.lifetime.0 > MAX_LIFETIME {
        return fail("identity.tokens.lifetime", "must be from \"1s\" to \"24h\"");
    }
    Ok(Some(TokenSettings { issuer: table.issuer.clone(), lifetime: table.lifetime.0 }))
}

/// What is fetched is fetched encrypted, but from this machine.
pub(crate) fn is_fit_to_fetch(url: &str) -> bool {
    let Ok(url) = url.parse::<http::Uri>() else { return false };
    let Some(host) = url.host() else { return false };
    match url.scheme_str() {
        Some("https") => true,
        Some("http") => is_this_machine(host),
        _ => false,
    }
}

fn check_url(key: &'static str, url: &str) -> Result<(), SettingsError> {
    if is_fit_to_fetch(url) {
        Ok(())
    } else {
        fail(key, "must be an https:// address; http:// is for this machine only")
    }
}

fn fail<T>(key: &'static str, problem: &str) -> Result<T, SettingsError> {
    Err(SettingsError { key, problem: problem.to_owned() })
}
