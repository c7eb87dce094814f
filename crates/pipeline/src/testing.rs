//! What the tests of every module share: the reference answers, the fetched files, and the generator's noise.

use std::path::Path;

/// The answers of the models' own packages; `tests/golden/generate.py` wrote them.
pub(crate) fn reference() -> serde_json::Value {
    serde_json::from_str(include_str!("../tests/golden/reference.json")).unwrap()
}

/// A file that `cargo xtask fetch` brings.
pub(crate) fn fetched(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/models").join(name);
    std::fs::read(path).unwrap_or_else(|error| panic!("{name}: {error}; run `cargo xtask fetch` first"))
}

/// The same bytes as the Python side makes: a linear congruential generator, its high byte.
pub(crate) fn noise(count: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(count).collect()
}
