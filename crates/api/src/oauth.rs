//! The token endpoint (RFC 6749, sections 3.2, 4.4 and 5; RFC 6750) and the documents clients find it by (RFC 8414).
//!
//! The holder of a key sends its id as `client_id` and its text as `client_secret`, and gets a token that lives shortly.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::Serialize;
use serde_json::json;
use tenantry_types::{ErrorCode, RequestId, ServiceError};

use crate::caller::authorization;
use crate::connection::Peer;
use crate::reply::{self, Reply};
use crate::request_body::RequestBody;
use crate::route::Edge;

/// The largest form, bytes.
const MAX_FORM_BYTES: usize = 8 << 10;
const FORM: &str = "application/x-www-form-urlencoded";
const TOKEN: &str = "/oauth2/token";
const KEYS: &str = "/oauth2/jwks";

/// Whether a path is one of this module's.
pub(crate) fn is_oauth(path: &str) -> bool {
    matches!(path, TOKEN | KEYS | "/.well-known/oauth-authorization-server")
}

/// Serves a request for a token or a document.
pub(crate) async fn serve(edge: &Edge, request: Request<RequestBody>, id: RequestId) -> Reply {
    let is_token = request.uri().path() == TOKEN;
    let fits = match *request.method() {
        Method::POST => is_token,
        Method::GET | Method::HEAD => !is_token,
        _ => false,
    };
    if !fits {
        return reply::method_not_allowed(if is_token { "POST" } else { "GET, HEAD" }, &id);
    }
    let Some((keys, issuer)) = edge.server.token_keys() else { return reply::not_found(&id) };
    match request.uri().path() {
        TOKEN => token(edge, request).await.unwrap_or_else(|refused| refused.into_reply()),
        KEYS => reply::json(StatusCode::OK, keys),
        _ => {
            let base = base(&request, edge.settings.tls.is_some());
            reply::json(
                StatusCode::OK,
                &json!({
                    "issuer": issuer,
                    "token_endpoint": format!("{base}{TOKEN}"),
                    "jwks_uri": format!("{base}{KEYS}"),
                    "grant_types_supported": ["client_credentials"],
                    "response_types_supported": [],
                    "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                    "scopes_supported": tenantry_types::Action::ALL,
                }),
            )
        }
    }
}

/// Where the client reached us: HTTP/2 says so beside the path, as HTTP/1.1 may (RFC 9112, section 3.2.2).
fn base<B>(request: &Request<B>, is_encrypted: bool) -> String {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let host = authority.or_else(|| request.headers().get(HOST)?.to_str().ok()).unwrap_or("localhost");
    format!("{}://{host}", if is_encrypted { "https" } else { "http" })
}

/// An error as RFC 6749 has it (section 5.2).
struct Refused {
    status: StatusCode,
    error: &'static str,
    description: String,
}

#[derive(Serialize)]
struct RefusedBody<'a> {
    error: &'static str,
    error_description: &'a str,
}

impl Refused {
    fn invalid(error: &'static str, description: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, description: description.into() }
    }

    fn into_reply(self) -> Reply {
        let body = RefusedBody { error: self.error, error_description: &self.description };
        let mut reply = reply::json(self.status, &body);
        if self.status == StatusCode::UNAUTHORIZED {
            reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"tenantry\""));
        }
        not_kept(reply)
    }
}

impl From<ServiceError> for Refused {
    fn from(error: ServiceError) -> Self {
        let (status, name) = match error.code {
            ErrorCode::Unauthenticated => (StatusCode::UNAUTHORIZED, "invalid_client"),
            ErrorCode::InvalidArgument => (StatusCode::BAD_REQUEST, "invalid_scope"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
        };
        let description = match error.code {
            ErrorCode::Unauthenticated => "send the key's id as client_id and its text as client_secret".to_owned(),
            _ => error.message,
        };
        Self { status, error: name, description }
    }
}

async fn token(edge: &Edge, request: Request<RequestBody>) -> Result<Reply, Refused> {
    let (head, body) = request.into_parts();
    let is_form = head
        .headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(FORM)));
    if !is_form {
        return Err(Refused::invalid("invalid_request", format!("send a form of type {FORM}")));
    }
    let body = Limited::new(body, MAX_FORM_BYTES).collect();
    let body = tokio::time::timeout(edge.settings.body_timeout, body).await;
    let body = match body {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return Err(Refused::invalid("invalid_request", "the form did not come, or is too large")),
        Err(_) => return Err(Refused::invalid("invalid_request", "the form did not arrive in time")),
    };
    let form = Form::read(&body)?;
    match form.grant_type.as_deref() {
        Some("client_credentials") => {}
        _ => return Err(Refused::invalid("unsupported_grant_type", "send grant_type=client_credentials")),
    }
    let client = match authorization(&head.headers) {
        Some(header) => basic(header),
        None => form.client_id.zip(form.client_secret),
    };
    // Whoever names nobody is refused as one whose key is not good.
    let (client_id, secret) = client.unwrap_or_default();
    let source = Peer::source(&head.extensions);
    let issued = edge.server.issue_token(&client_id, &secret, form.scope.as_deref(), source)?;
    let mut answer = json!({ "access_token": issued.token, "token_type": "Bearer", "expires_in": issued.expires_in });
    if let (Some(scope), Some(answer)) = (issued.scope, answer.as_object_mut()) {
        answer.insert("scope".to_owned(), scope.into());
    }
    Ok(not_kept(reply::json(StatusCode::OK, &answer)))
}

fn not_kept(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// The fields of the form that are read; one that comes twice is refused (section 3.2).
#[derive(Default)]
struct Form {
    grant_type: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    scope: Option<String>,
}

impl Form {
    fn read(body: &Bytes) -> Result<Self, Refused> {
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(body) {
            let field = match &*name {
                "grant_type" => &mut form.grant_type,
                "client_id" => &mut form.client_id,
                "client_secret" => &mut form.client_secret,
                "scope" => &mut form.scope,
                _ => continue,
            };
            if field.replace(value.into_owned()).is_some() {
                return Err(Refused::invalid("invalid_request", format!("{name} is there twice")));
            }
        }
        Ok(form)
    }
}

/// The two parts of a header of basic authentication, each encoded as in a form (section 2.3.1).
fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, rest) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let plain = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (id, secret) = plain.split_once(':')?;
    let decoded = |text: &str| form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned());
    Some((decoded(id)?, decoded(secret)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_once_a_field() {
        let read = |text: &'static str| Form::read(&Bytes::from_static(text.as_bytes()));
        let form = read("grant_type=client_credentials&scope=model.infer+model.read&client_id=a%20b&x=1").ok().unwrap();
        assert_eq!(form.grant_type.as_deref(), Some("client_credentials"));
        assert_eq!((form.scope.as_deref(), form.client_id.as_deref()), (Some("model.infer model.read"), Some("a b")));
        assert_eq!(read("client_id=a&client_id=b").err().unwrap().error, "invalid_request");
    }

    #[test]
    fn basic_authentication_has_two_parts() {
        let header = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(basic(&header("key_1:tnty_a%2Bb")), Some(("key_1".to_owned(), "tnty_a+b".to_owned())));
        for wrong in ["Basic", "Basic !", "Bearer a:b", &header("nothing")] {
            assert_eq!(basic(wrong), None, "{wrong}");
        }
    }
}
