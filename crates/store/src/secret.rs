//! The text of an API key: `tnty_`, the key's id, `_`, and 256 random bits.
//!
//! The id makes the key found without a search; the random part makes it unguessable, so a plain hash is enough (a slow
//! one defends short passwords, and would cost every request milliseconds). The hash covers the whole text.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tenantry_types::{Digest, KeyId};

const PREFIX: &str = "tnty_";
const ID_DIGITS: usize = 32;
/// 32 bytes in unpadded URL-safe base64.
const RANDOM_CHARS: usize = 43;
const LENGTH: usize = PREFIX.len() + ID_DIGITS + 1 + RANDOM_CHARS;

/// Reads and makes the texts clients send as bearer tokens.
#[derive(Debug, Clone, Copy)]
pub struct KeySecret;

impl KeySecret {
    /// The key a text claims to be and the hash to compare with; nothing if it does not even look like a key.
    pub fn parse(text: &str) -> Option<(KeyId, Digest)> {
        if text.len() != LENGTH || !text.is_ascii() {
            return None;
        }
        let (id, random) = text.strip_prefix(PREFIX)?.split_at_checked(ID_DIGITS)?;
        let lower_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        let url_safe = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
        if !id.bytes().all(lower_hex) || !random.strip_prefix('_')?.bytes().all(url_safe) {
            return None;
        }
        // On the stack: every request comes by here.
        let mut printed = [0; KeyId::PREFIX.len() + ID_DIGITS];
        printed.iter_mut().zip(KeyId::PREFIX.bytes().chain(id.bytes())).for_each(|(place, c)| *place = c);
        let id = str::from_utf8(&printed).ok()?.parse().ok()?;
        Some((id, Digest::of(text.as_bytes())))
    }

    /// The text of a key and its hash.
    pub(crate) fn make(id: KeyId, random: &[u8; 32]) -> (String, Digest) {
        let id = id.to_string();
        let digits = id.strip_prefix(KeyId::PREFIX).unwrap_or(&id);
        let text = format!("{PREFIX}{digits}_{}", URL_SAFE_NO_PAD.encode(random));
        let digest = Digest::of(text.as_bytes());
        (text, digest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_made_secret_parses_to_its_id_and_hash(ms in 0_u64..1 << 40, id in any::<[u8; 10]>(), random in any::<[u8; 32]>()) {
            let id = KeyId::from_parts(ms, id);
            let (text, digest) = KeySecret::make(id, &random);
            prop_assert_eq!(text.len(), LENGTH);
            prop_assert_eq!(KeySecret::parse(&text), Some((id, digest)));
        }

        #[test]
        fn any_text_is_refused_or_parsed_without_panic(text in ".{0,100}") {
            prop_assert_eq!(KeySecret::parse(&text), None);
        }

        #[test]
        fn a_changed_character_never_gives_the_same_key_and_hash(at in 0..LENGTH, with in proptest::char::range('!', '~')) {
            let id = KeyId::from_parts(7, [3; 10]);
            let (text, digest) = KeySecret::make(id, &[9; 32]);
            let mut changed: Vec<char> = text.chars().collect();
            changed[at] = with;
            let changed: String = changed.into_iter().collect();
            prop_assume!(changed != text);
            prop_assert_ne!(KeySecret::parse(&changed), Some((id, digest)));
        }
    }
}
