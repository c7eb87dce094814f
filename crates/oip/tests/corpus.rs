//! The fuzz target's seeds stay what their names say, so that a fuzz run starts from bodies that are accepted.

#![expect(clippy::unwrap_used, reason = "a helper of tests, which the lints do not recognise as such")]

use std::path::Path;

use tenantry_oip::{decode_request, decode_response};
use tenantry_types::Payload;

/// A seed: the value of the header that says how long the JSON part is, and the body. The target says how they are written.
fn seed(name: &str) -> (Option<String>, Payload) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/v2_body").join(name);
    let seed = std::fs::read(path).unwrap();
    let end = seed.iter().position(|byte| *byte == b'\n').unwrap();
    let (head, body) = seed.split_at(end + 1);
    let header_length = std::str::from_utf8(head).unwrap().split(' ').next().unwrap();
    let header_length = match header_length.strip_prefix('<') {
        Some(binary_bytes) => Some((body.len() - binary_bytes.parse::<usize>().unwrap()).to_string()),
        None => (header_length != "-").then(|| header_length.to_owned()),
    };
    (header_length, body.to_vec().into())
}

#[test]
fn seeds_of_requests_are_accepted_and_the_one_that_is_wrong_is_refused() {
    let decode = |name| {
        let (header_length, body) = seed(name);
        decode_request("m".parse().unwrap(), None, header_length.as_deref(), body)
    };
    for name in ["json", "binary", "raw", "mixed", "deep", "all_types"] {
        assert!(decode(name).is_ok(), "{name}: {:?}", decode(name));
    }
    assert!(decode("nan").is_err());
}

#[test]
fn seeds_of_answers_are_accepted() {
    for name in ["response", "response_binary"] {
        let (header_length, body) = seed(name);
        assert!(decode_response(header_length.as_deref(), body).is_ok(), "{name}");
    }
}
