use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use tenantry_types::Action;

use super::*;
use crate::config::{IssuerSettings, TokenSettings};

const URL: &str = "https://login.example.org";
const NOW_MS: i64 = 1_700_000_000_000;

/// A key of Ed25519 from one byte.
fn signing(number: u8) -> EncodingKey {
    let mut der = vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    der.extend([number; 32]);
    EncodingKey::from_ed_der(&der)
}

fn set(numbers: &[u8]) -> Value {
    let key = |number: &u8| {
        let mut jwk = Jwk::from_encoding_key(&signing(*number), Algorithm::EdDSA).unwrap();
        jwk.common.key_id = Some(format!("k{number}"));
        serde_json::to_value(jwk).unwrap()
    };
    json!({ "keys": numbers.iter().map(key).collect::<Vec<_>>() })
}

pub(super) fn settings() -> IssuerSettings {
    IssuerSettings {
        url: URL.to_owned(),
        jwks_url: None,
        audiences: vec!["tenantry".to_owned()],
        algorithms: vec!["EdDSA".to_owned()],
        clock_skew: Duration::from_secs(60),
        refresh: Duration::from_secs(300),
        ca: None,
        tenant_claim: Some("org.tenant".to_owned()),
        tenant: None,
        roles_claim: "groups".to_owned(),
        roles: Some([("ml".to_owned(), Role::Deployer), ("root".to_owned(), Role::PlatformAdmin)].into()),
        default_role: Some(Role::Viewer),
    }
}

fn identity(settings: IssuerSettings, numbers: &[u8]) -> Identity {
    let settings = IdentitySettings { issuers: vec![settings], tokens: None };
    let identity = Identity::open(settings, Path::new("/nonexistent")).unwrap();
    identity.issuers[0].has_read(set(numbers));
    identity
}

fn claims() -> Value {
    json!({
        "iss": URL, "aud": ["other", "tenantry"], "sub": "ann", "exp": NOW_MS / 1_000 + 300, "iat": NOW_MS / 1_000,
        "org": { "tenant": "acme" }, "groups": ["ml", "unheard-of"],
    })
}

fn token(number: u8, claims: &Value) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(format!("k{number}"));
    encode(&header, claims, &signing(number)).unwrap()
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

fn looked(identity: &Identity, token: &str) -> Option<Subject> {
    match identity.look(token, NOW_MS) {
        Looked::Good(Who::Subject(subject)) => Some(subject),
        Looked::Good(Who::Key(..)) | Looked::Bad | Looked::Unknown(_) => None,
    }
}

#[test]
fn a_good_token_names_somebody_of_a_tenant() {
    let identity = identity(settings(), &[1]);
    let subject = looked(&identity, &token(1, &claims())).unwrap();
    assert_eq!(subject.tenant.as_str(), "acme");
    assert_eq!(&*subject.roles, [Role::Deployer]);
    assert_eq!(&*subject.name, "ann of https://login.example.org");
    // The same each time, and another for another.
    assert_eq!(subject.id, id_of(URL, "ann"));
    assert_ne!(subject.id, id_of(URL, "bob"));
    assert_ne!(id_of("https://a", "bc"), id_of("https://ab", "c"));
    let roles = |groups: Value| looked(&identity, &token(1, &with("groups", groups))).unwrap().roles.to_vec();
    assert_eq!(roles(json!("ml other")), [Role::Deployer]);
    assert_eq!(roles(json!(["nobody"])), [Role::Viewer]);
    assert_eq!(roles(Value::Null), [Role::Viewer]);
    assert_eq!(roles(json!(["root", "ml", "ml"])), [Role::PlatformAdmin, Role::Deployer]);
}

#[test]
fn without_a_table_words_are_roles_but_never_the_platforms() {
    let identity = identity(IssuerSettings { roles: None, default_role: None, ..settings() }, &[1]);
    let roles = |groups: Value| looked(&identity, &token(1, &with("groups", groups))).unwrap().roles.to_vec();
    assert_eq!(
        roles(json!(["platform_admin", "admin", "on-call"])),
        [Role::Admin, Role::Custom("on-call".parse().unwrap())]
    );
    assert_eq!(roles(json!(["platform_admin"])), []);
}

#[test]
fn whatever_is_wrong_with_a_token_it_is_not_good() {
    let identity = identity(settings(), &[1]);
    let seconds = NOW_MS / 1_000;
    let wrong = [
        with("iss", json!("https://login.example.com")),
        with("iss", Value::Null),
        with("aud", json!("other")),
        with("aud", json!(["other"])),
        with("aud", Value::Null),
        with("exp", json!(seconds - 61)),
        with("exp", json!("soon")),
        with("exp", json!(1e300)),
        with("exp", Value::Null),
        with("nbf", json!(seconds + 61)),
        with("iat", json!(seconds + 61)),
        with("sub", Value::Null),
        with("sub", json!("")),
        with("sub", json!("x".repeat(256))),
        with("org", json!({ "tenant": "No Tenant" })),
        with("org", Value::Null),
    ];
    for claims in wrong {
        assert_eq!(looked(&identity, &token(1, &claims)), None, "{claims}");
    }
    // Within the skew.
    for claims in [with("exp", json!(seconds - 59)), with("nbf", json!(seconds + 59))] {
        assert!(looked(&identity, &token(1, &claims)).is_some(), "{claims}");
    }
    let good = token(1, &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let other = token(1, &with("sub", json!("bob")));
    let other: Vec<&str> = other.split('.').collect();
    let forged = format!("{}.{}.{}", parts[0], other[1], parts[2]);
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", parts[1]);
    for text in [forged.as_str(), &unsigned, "a.b.c", "..", ".", &format!("{good}."), &"x.".repeat(MAX_TOKEN_BYTES)] {
        assert!(matches!(identity.look(text, NOW_MS), Looked::Bad), "{text}");
    }
}

#[test]
fn only_algorithms_of_the_list_count() {
    let identity = identity(IssuerSettings { algorithms: vec!["RS256".to_owned()], ..settings() }, &[1]);
    assert!(matches!(identity.look(&token(1, &claims()), NOW_MS), Looked::Bad));
    // A public key is no shared secret, whatever a header says (RFC 8725, section 2.1).
    let identity = self::identity(settings(), &[1]);
    let public = set(&[1])["keys"][0]["x"].as_str().unwrap().to_owned();
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("k1".to_owned());
    let forged = encode(&header, &claims(), &EncodingKey::from_secret(public.as_bytes()).unwrap()).unwrap();
    assert!(matches!(identity.look(&forged, NOW_MS), Looked::Bad));
}

#[test]
fn keys_that_cannot_be_used_are_passed_over() {
    let good = set(&[1])["keys"][0].clone();
    let mut short = good.clone();
    short["x"] = json!("AAAA");
    short["kid"] = json!("short");
    let weak = json!({ "kty": "RSA", "kid": "weak", "n": "AQAB", "e": "AQAB" });
    let secret = json!({ "kty": "oct", "kid": "secret", "k": "c2VjcmV0" });
    let mut encryption = good.clone();
    encryption["use"] = json!("enc");
    encryption["kid"] = json!("encryption");
    let strange = json!({ "kty": "new", "kid": 7 });
    let identity = identity(settings(), &[]);
    identity.issuers[0].has_read(json!({ "keys": [short, weak, secret, encryption, strange, good] }));
    for kid in ["short", "weak", "secret", "encryption"] {
        assert!(identity.issuers[0].keys(Some(kid), Algorithm::EdDSA).is_none(), "{kid}");
    }
    assert!(looked(&identity, &token(1, &claims())).is_some());
}

#[test]
fn an_unknown_key_is_asked_for_and_a_known_token_is_not_checked_again() {
    let identity = identity(settings(), &[1]);
    let (old, new) = (token(1, &claims()), token(2, &claims()));
    assert!(looked(&identity, &old).is_some());
    assert!(matches!(identity.look(&new, NOW_MS), Looked::Unknown(0)));
    identity.issuers[0].has_read(set(&[2]));
    assert!(looked(&identity, &new).is_some());
    // It is known, until it ends.
    assert!(looked(&identity, &old).is_some());
    assert!(matches!(identity.look(&old, NOW_MS + 360_000), Looked::Bad));
    assert!(matches!(identity.look(&old, NOW_MS), Looked::Unknown(0)), "it was forgotten when it ended");
}

#[test]
fn our_own_tokens_say_which_key_and_which_actions() {
    let folder = tempfile::tempdir().unwrap();
    let settings = || TokenSettings { issuer: "tenantry".to_owned(), lifetime: Duration::from_secs(900) };
    let open = || {
        let settings = IdentitySettings { issuers: Vec::new(), tokens: Some(settings()) };
        Identity::open(settings, folder.path()).unwrap()
    };
    let identity = open();
    let key = KeyId::from_parts(5, [6; 10]);
    let issued = identity.tokens.as_ref().unwrap().issue(key, None, "req_1", NOW_MS).unwrap();
    let who = |identity: &Identity, token: &str, now_ms| match identity.look(token, now_ms) {
        Looked::Good(Who::Key(key, actions)) => Some((key, actions)),
        _ => None,
    };
    assert_eq!(who(&identity, &issued.token, NOW_MS), Some((key, ActionSet::ALL)));
    assert_eq!(who(&identity, &issued.token, NOW_MS + 900_000), None);
    let narrow = identity.tokens.as_ref().unwrap().issue(key, Some(&[Action::ModelInfer]), "req_2", NOW_MS).unwrap();
    assert_eq!(narrow.scope.as_deref(), Some("model.infer"));
    let only = [Action::ModelInfer].into_iter().collect();
    // The next start believes it, too; it reads the file that this one made.
    assert_eq!(who(&open(), &narrow.token, NOW_MS), Some((key, only)));
    let file = folder.path().join("token.keys");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // A new key in front signs, and the old one is still accepted.
    let old = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{}\n{old}", "ab".repeat(32))).unwrap();
    let rotated = open();
    assert_eq!(rotated.tokens.as_ref().unwrap().key_set()["keys"].as_array().unwrap().len(), 2);
    assert_eq!(who(&rotated, &issued.token, NOW_MS), Some((key, ActionSet::ALL)));
    let newer = rotated.tokens.as_ref().unwrap().issue(key, None, "req_3", NOW_MS).unwrap();
    assert_eq!(who(&identity, &newer.token, NOW_MS), None);
    std::fs::write(&file, "nonsense\n").unwrap();
    let settings = IdentitySettings { issuers: Vec::new(), tokens: Some(settings()) };
    assert!(matches!(Identity::open(settings, folder.path()), Err(TokenKeyError::Content)));
}
