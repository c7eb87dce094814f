//! What differs where the main listener's requests come over HTTP/2.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request, Response};
use hyper::body::{Body as _, Incoming};

use super::body::Chunks;
use crate::connection::Requests;
use crate::reply::Reply;
use crate::request_body::RequestBody;
use crate::route::{Edge, Entrance};

/// Answers one request of the main listener.
pub(crate) async fn answer(
    edge: Arc<Edge>,
    requests: Arc<Requests>,
    request: Request<Incoming>,
) -> Result<Response<Chunks>, Infallible> {
    let is_head = request.method() == Method::HEAD;
    let reply = edge.answer(Entrance::Main, request.map(RequestBody::of_http2)).await?;
    let reply = if is_head { without_body(reply) } else { reply };
    Ok(reply.map(|body| Chunks::new(body, requests)))
}

/// The answer to HEAD: it says how long the body would be, and has none. The library sees to that for HTTP/1.1 alone.
fn without_body(reply: Reply) -> Reply {
    let (mut head, body) = reply.into_parts();
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    Response::from_parts(head, bytes::Bytes::new().into())
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::reply::{JSON, with_type};

    #[test]
    fn an_answer_to_head_has_a_length_and_no_body() {
        let reply = without_body(with_type(StatusCode::OK, JSON, "{\"ready\":true}".into()));
        assert_eq!(reply.headers()[CONTENT_LENGTH], "14");
        assert!(reply.body().is_end_stream());
        // What the admin router has taken away already keeps the length it gave.
        let mut reply = with_type(StatusCode::OK, JSON, bytes::Bytes::new());
        reply.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(7));
        assert_eq!(without_body(reply).headers()[CONTENT_LENGTH], "7");
    }
}
